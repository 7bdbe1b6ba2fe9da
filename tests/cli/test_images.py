"""`check` and `views` as a person types them."""

import csv
import json
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stopgrad import cli
from stopgrad.assemble.preflight import check
from stopgrad.data import DataConfig, open_data
from stopgrad.data.concerns import concerns
from stopgrad.training.progress import Progress
from stopgrad.views.config import ViewsConfig

QUIET = Progress(quiet=True)


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = cli.run(list(words), debug=False)
    out, err = capsys.readouterr()
    return code, out, err


def smooth(seed: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 255, (7, 7, 3)).astype(np.uint8)
    return Image.fromarray(pixels).resize((64, 48), Image.Resampling.BICUBIC)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of 90 and 30; an exact copy, a near one, one of one colour, two bad files, a text, an evil name."""
    root = tmp_path / "photos"
    for name, count in (("a", 90), ("<img src=x onerror=alert(1)>", 30)):
        (root / name).mkdir(parents=True)
        for i in range(count):
            smooth(i + 1000 * (name == "a")).save(root / name / f"{i}.png")
    (root / "a" / "copy.png").write_bytes((root / "a" / "3.png").read_bytes())
    smooth(1005).resize((32, 24), Image.Resampling.BOX).save(root / "a" / "near.png")
    Image.new("RGB", (64, 48), (9, 9, 9)).save(root / "a" / "flat.png")
    (root / "a" / "empty.png").write_bytes(b"")
    (root / "a" / "page\x1b[2J.png").write_bytes(b"<html>")
    (root / "readme.md").write_text("text")
    return root


def test_check_counts_finds_copies_and_says_what_it_would_do(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    groups, facts = tmp_path / "groups.csv", tmp_path / "facts.json"
    code, out, err = run(capsys, "check", str(folder), "--no-time", "--duplicates", str(groups), "--json", str(facts))
    assert code == 0, err
    assert "A run can start." in out
    assert "\x1b" not in out
    assert "empty.png: empty file" in out
    assert r"page\x1b[2J.png" in out
    assert "1 of 123 are copies of another image, byte for byte" in out
    assert "loop.batch_size" in out
    assert f"stopgrad train simsiam --data {folder}" in out
    found = json.loads(facts.read_text())
    assert found["train"] + found["test"] == 123
    assert (found["copied"], found["near"], found["one_colour"], len(found["bad"])) == (1, 1, 1, 2)
    assert found["shorter_side"] == [24.0, 48.0, 48.0]
    assert sum(found["classes"].values()) == found["train"]
    with groups.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["kind"] for row in rows] == ["exact", "exact", "near", "near"]
    assert {row["path"] for row in rows} == {"a/3.png", "a/copy.png", "a/5.png", "a/near.png"}


def test_check_measures_time_and_memory_and_leaves_nothing_behind(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stopgrad.assemble import api, minutes

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(minutes, "MEASURED_SECONDS", 0.1)
    before = sorted(tmp_path.rglob("*"))
    settings = ("backbone.width=8", "eval={linear: none, random_seeds: 2}", "loop.epochs=7", "watch.every_steps=5")
    found = check(str(folder), options=api.Options(settings=settings), progress=QUIET)
    assert found.problem == ""
    facts = found.facts
    parts = facts["training_seconds"] + facts["evaluation_seconds"] + facts["report_seconds"]
    assert facts["seconds"] == pytest.approx(parts, abs=0.2)
    assert facts["steps"] % 7 == 0
    assert facts["memory_bytes"] > 10**7
    assert facts["store_bytes"] > 123 * 24 * 32 * 3
    assert sorted(tmp_path.rglob("*")) == before
    assert {"Images", "Sizes", "Duplicates", "Suggested", "Memory", "Warnings"} <= {
        title for title, _ in found.sections
    }


def test_check_for_minutes_says_where_they_are_few_and_repeats_what_it_was_given(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from stopgrad.assemble import minutes

    monkeypatch.setattr(minutes, "MEASURED_SECONDS", 0.1)
    settings = ("backbone.width=8", "eval={linear: none, random_seeds: 1}", "loop.batch_size=16")
    code, out, err = run(capsys, "check", str(folder), "--minutes", "0.01", "--set", *settings)
    assert code == 0, err
    assert "steps are few" in out
    given = f"--minutes 0.01 --set {shlex.join(settings)}"
    assert f"stopgrad train simsiam --data {folder} {given}" in out
    assert f"stopgrad views simsiam --data {folder} -o views.png {given}" in out
    assert run(capsys, "views", "simsiam", "--data", str(folder), "--minutes", "-1")[0] == 2


def test_check_ends_with_65_where_no_run_could_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad").mkdir()
    for i in range(4):
        (tmp_path / "bad" / f"{i}.jpg").write_text("<html>")
    code, out, err = run(capsys, "check", str(tmp_path / "bad"), "--no-time")
    assert code == 65
    assert "4 of 4 image files are bad" in err
    assert "0.jpg: not an image (looks like HTML)" in out
    assert "can start" not in out
    (tmp_path / "one").mkdir()
    smooth(0).save(tmp_path / "one" / "a.png")
    code, out, err = run(capsys, "check", str(tmp_path / "one"))
    assert code == 65
    assert "fewer than one batch" in err
    assert run(capsys, "check", str(tmp_path / "nowhere"))[0] == 66


def test_one_image_is_one_image_and_no_run_even_without_the_timing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "one").mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)).save(tmp_path / "one" / "a.png")
    code, out, err = run(capsys, "check", str(tmp_path / "one"), "--no-time")
    assert code == 65
    assert "fewer than one batch" in err
    assert "A run can start" not in out
    assert "duplicates" not in out.partition("Warnings")[2]


def test_what_makes_a_run_unlikely_to_learn_is_said_before_it(tmp_path: Path) -> None:
    for i in range(30):
        Image.new("RGB", (12, 12), (20, 30, 40)).save(tmp_path / f"{i}.png")
    found = check(str(tmp_path), timed=False, progress=QUIET)
    said = "\n".join(found.warnings)
    assert "29 of 30 images are duplicates of others, byte for byte: there is little to learn from" in said
    assert "30 of 30 images are of one colour: there is nothing to learn from" in said
    assert "training images are very few" in said
    assert "images are small: 12 pixels" in said
    data = open_data(DataConfig(source=str(tmp_path)), 32)
    assert len(concerns(data, ViewsConfig(image_size=32))) == 2  # what is cheap: few and small
    assert len(concerns(data, ViewsConfig(image_size=8))) == 1


@pytest.mark.parametrize("settings", [[], ["--set", "data.channels=1"]])
def test_views_draws_a_picture(
    settings: list[str], folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "views.png"
    code, out, err = run(
        capsys, "views", "simsiam", "--data", str(folder), "-o", str(target), "--images", "3", *settings
    )
    assert code == 0, err
    assert "3 images" in out
    first = np.asarray(Image.open(target))
    assert first.shape[0] > 3 * 128
    run(capsys, "views", "simsiam", "--data", str(folder), "-o", str(target), "--images", "3", *settings, "--seed", "1")
    assert not np.array_equal(first, np.asarray(Image.open(target)))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["views", "simsiam", "-o", "views.gif"], "write views.png"),
        (["views", "simsiam", "--images", "0"], "from 1 to 64"),
        (["views", "simsam"], "did you mean 'simsiam'"),
        (["views", "simsiam/folder"], "add --data SRC"),
        (["check", "scenes", "--minutes", "-1"], "--minutes must be 0 or more"),
    ],
)
def test_a_mistake_is_one_line(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, *words)
    assert code == 2
    assert message in err
    assert len(err.strip().splitlines()) == 1


def test_where_steps_are_slow_few_of_them_are_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two after those whose views were ready; a machine that is fast enough times five and more."""
    from types import SimpleNamespace

    from stopgrad.assemble import minutes

    def timed(seconds: float) -> tuple[float, int]:
        clock, done = [0.0], []

        def step(job: object, views: object, moment: object) -> None:
            clock[0] += seconds
            done.append(views)

        monkeypatch.setattr(minutes, "one_step", step)
        monkeypatch.setattr(minutes, "time", SimpleNamespace(monotonic=lambda: clock[0]))
        job = SimpleNamespace(views_at=lambda step: step, clock=lambda step: step)
        return minutes._time_steps(job, 2), len(done)  # type: ignore[arg-type]

    assert timed(20.0) == (pytest.approx(20.0), 5)
    assert timed(2.0) == (pytest.approx(2.0), 12)
    assert timed(0.1)[1] > 60


@pytest.mark.parametrize(("seconds", "share"), [(0.0, 1.0), (60.0, 1.0), (120.0, 0.5), (1e6, 0.25)])
def test_where_an_evaluation_is_slow_fewer_images_are_timed(seconds: float, share: float) -> None:
    from stopgrad.assemble.rehearse import rehearsed_share

    assert rehearsed_share(seconds) == share
