"""`stopgrad train clip` from a table of captions to two encoders, scores, a report, exports; and to the bit again."""

import dataclasses
import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from stopgrad.assemble import api, use
from stopgrad.assemble.draw_views import draw_views
from stopgrad.assemble.preflight import check
from stopgrad.assemble.report import report
from stopgrad.assemble.train import Finished
from stopgrad.contracts import ConfigError, InterruptedRunError, MissingInputError
from stopgrad.recipe.text import load as load_recipe
from stopgrad.rundir import RunDir
from stopgrad.training.progress import Progress

pytest.importorskip("tokenizers", reason="no tokenizers: pip install 'stopgrad[text]'")
QUIET = Progress(quiet=True)
COLOURS = {"red": (200, 40, 40), "green": (40, 200, 40), "blue": (40, 40, 200)}
SMALL = (
    "backbone.width=8",
    "method.dim=16",
    "method.text.width=16",
    "method.text.layers=1",
    "method.text.heads=2",
    "views.image_size=16",
    "views.text.length=12",
    "data.label=colour",
    "loop.batch_size=8",
    "loop.epochs=3",
    "loop.threads=1",
    "loop.view_threads=1",
    "loop.precision=float32",
    "loop.log_every_steps=2",
    "loop.checkpoint_every_steps=0",
    "watch={every_steps: 4, images: 20, knn_every_steps: 100, knn_bank: 20}",
    "eval={k: [3], linear: none, random_seeds: 1, retrieval_images: 8, batch_size: 16}",
)


@pytest.fixture(scope="module")
def things(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """train/ and test/ with a table each: 48 and 12 images of a colour, with a hostile caption and an empty one."""
    root = tmp_path_factory.mktemp("things")
    random = np.random.default_rng(0)
    for part, count in (("train", 48), ("test", 12)):
        (root / part).mkdir()
        lines = ["file,caption,colour"]
        for i in range(count):
            name = list(COLOURS)[i % 3]
            shade = random.integers(-30, 30, (20, 24, 3)) + np.array(COLOURS[name])
            Image.fromarray(shade.clip(0, 255).astype(np.uint8)).save(root / part / f"{i}.png")
            lines.append(f"{i}.png,a {name} thing number {i % 5},{name}")
        lines[-1] = f'{count - 1}.png,"<script>alert(1)</script> a thing",{name}'
        if part == "train":
            lines[1] = lines[1].replace("a red thing number 0", "  ")
        (root / part / "captions.csv").write_text("\n".join(lines))
    return root


def trained(source: Path, out: Path, name: str = "run", *more: str) -> Finished:
    return api.train("clip", out=out, name=name, data=str(source), progress=QUIET, settings=(*SMALL, *more))


@pytest.fixture(scope="module")
def run(things: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return trained(things, tmp_path_factory.mktemp("runs"))


def test_a_run_leaves_two_encoders_into_one_space(run: Finished) -> None:
    image, text = api.load(run.path), api.load(run.path, tower="text")
    assert (image.preprocess.kind, text.preprocess.kind) == ("image", "text")
    assert image.dim == text.dim == 16
    assert image(torch.zeros(2, 3, 16, 16)).shape == text(torch.ones(2, 12, dtype=torch.int64)).shape == (2, 16)
    recipe = load_recipe(run.path / "recipe.yaml")
    assert "red" in recipe.views.text.words  # type: ignore[union-attr]
    assert (run.path / "bad_files.csv").read_text().splitlines()[1] == "train/captions.csv:2,empty caption"


def test_scores_stand_beside_chance_the_nearest_caption_and_untrained_towers(run: Finished) -> None:
    found = {row.name: row for row in run.results}
    for name in ("zero_shot_top1", "image_to_text_r1", "text_to_image_r10"):
        for who in ("", "baseline_chance_", "baseline_nearest_caption_", "baseline_random_"):
            assert found[who + name].value is not None
    assert found["baseline_chance_zero_shot_top1"].value == pytest.approx(100 / 3)
    assert found["baseline_nearest_caption_zero_shot_top1"].value == pytest.approx(100.0)
    assert {"knn_top1", "baseline_random_knn_top1", "baseline_pixels_knn_top1"} <= found.keys()


def test_the_same_scores_come_from_the_files(run: Finished, things: Path) -> None:
    again = {row.name: row.value for row in api.evaluate(run.path, progress=QUIET)}
    rows = {row.name: row.value for row in run.results if row.name in again and "_random_" not in row.name}
    assert {name: again[name] for name in rows} == rows
    assert "zero_shot_top1" in rows


def test_classes_of_images_without_captions_are_named_too(run: Finished, tmp_path: Path) -> None:
    for part in ("train", "test"):
        for name, colour in COLOURS.items():
            (tmp_path / part / name).mkdir(parents=True)
            for i in range(4):
                pixels = np.full((20, 20, 3), colour, np.uint8)
                pixels[i] = 255
                Image.fromarray(pixels).save(tmp_path / part / name / f"{part}{i}.png")
    found = {row.name: row for row in api.evaluate(run.path, data=str(tmp_path), progress=QUIET)}
    assert found["zero_shot_top1"].n == 12
    assert "image_to_text_r1" not in found
    assert "knn_top1" in found


def test_the_report_shows_captions_and_lets_none_of_them_run(run: Finished, tmp_path: Path) -> None:
    html = report(run.path, tmp_path / "report.html").read_text()
    assert "Captions found" in html
    assert "a red thing number" in html
    assert "<script>alert" not in html
    index = json.loads((run.path / "gallery" / "gallery.json").read_text())
    assert index["views"]["columns"][1:3] == ["view 1", "view 2"]
    assert all(len(item["found"]) == 3 for item in index["captions"])
    whole = (run.path / "gallery" / "gallery.json").read_text()
    (run.path / "gallery" / "gallery.json").unlink()  # made again from the files
    report(run.path, tmp_path / "again.html")
    again = json.loads((run.path / "gallery" / "gallery.json").read_text())
    assert {**again, "facts": {}} == {**json.loads(whole), "facts": {}}


def test_each_encoder_is_exported_by_itself(run: Finished, tmp_path: Path) -> None:
    done = use.export(run.path, tmp_path / "text.safetensors", tower="text", progress=QUIET)
    assert "texts" in " ".join(done.lines)
    loaded = api.load(tmp_path / "text.safetensors")
    ids = torch.randint(0, 9, (3, 12))
    torch.testing.assert_close(loaded(ids), api.load(run.path, tower="text")(ids))
    use.export(run.path, tmp_path / "image.safetensors", progress=QUIET)
    assert api.load(tmp_path / "image.safetensors").preprocess.kind == "image"
    with pytest.raises(ConfigError, match="--tower depth: "):
        use.export(run.path, tmp_path / "x.safetensors", tower="depth", progress=QUIET)


def test_images_and_captions_find_each_other_through_the_files(run: Finished, things: Path) -> None:
    image, text = api.load(run.path), api.load(run.path, tower="text")
    pictures = use.embed(image, [np.full((20, 20, 3), colour, np.uint8) for colour in COLOURS.values()])
    sentences = use.embed(text, [np.frombuffer(f"a {name} thing".encode(), np.uint8) for name in COLOURS])
    assert pictures.features.shape == sentences.features.shape == (3, 16)


def test_a_run_that_was_stopped_goes_on_to_the_bit(
    run: Finished, things: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = RunDir.append_log

    def interrupt(self: RunDir, line: dict[str, Any]) -> None:
        real(self, line)
        if line["step"] == 8:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(RunDir, "append_log", interrupt)
    with pytest.raises(InterruptedRunError):
        trained(things, tmp_path, "a")
    monkeypatch.undo()
    resumed = api.resume(tmp_path / "a", progress=QUIET)
    for file in ("encoder.safetensors", "text_encoder.safetensors"):
        assert (resumed.path / file).read_bytes() == (run.path / file).read_bytes()


def test_views_are_drawn_a_row_a_pair(things: Path, tmp_path: Path) -> None:
    options = api.Options(data=str(things), settings=SMALL)
    path, rows = draw_views("clip", tmp_path / "views.png", options=options, images=3, epochs=2, progress=QUIET)
    drawn = np.asarray(Image.open(path))
    assert rows == 3
    assert drawn.shape == (3 * 134, 4 * 134, 3)  # the whole image, two crops, the caption
    caption = drawn[10:120, 3 * 134 + 10 : 4 * 134 - 10]
    assert np.unique(caption.reshape(-1, 3), axis=0).shape[0] > 1  # something is written there


def test_check_says_what_is_there(things: Path) -> None:
    found = check(str(things), method="clip", options=api.Options(settings=SMALL), timed=False, progress=QUIET)
    assert not found.problem
    said = " ".join(f"{name} {value}" for _, lines in found.sections for name, value in lines)
    for part in ("47 for training, 12 for the test", "3 with 15 to 16", "empty caption", "kinds of token"):
        assert part in said


def test_data_of_ones_own_gets_the_preset_for_it_and_scenes_theirs(things: Path) -> None:
    assert api.compose("clip", api.Options(data=str(things))).views.sides[0] == 64
    assert api.compose("clip/folder", api.Options(data=str(things))).views.sides[0] == 64
    assert api.compose("clip", api.Options()).data.source == "scenes-v1"
    assert api.compose("clip", api.Options(data=str(things), image_size=32)).views.sides[0] == 32


def test_images_without_captions_and_methods_without_a_text_tower_are_refused(things: Path, tmp_path: Path) -> None:
    Image.new("RGB", (16, 16)).save(tmp_path / "a.png")
    with pytest.raises(MissingInputError, match=r"no captions in .*needed is a captions\.csv"):
        trained(tmp_path, tmp_path / "runs")
    clip = api.compose("clip", api.Options())
    with pytest.raises(ConfigError, match=r"clip learns from images with captions, and views\.kind is image"):
        dataclasses.replace(api.compose("simsiam", api.Options()), method=clip.method)
