"""A folder of sensors, from `stopgrad train` to its encoder and its towers, as any folder of images."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import stopgrad
from stopgrad.assemble import api, use
from stopgrad.assemble.draw_views import draw_views
from stopgrad.assemble.preflight import check
from stopgrad.assemble.rehearse import _part
from stopgrad.assemble.train import Finished
from stopgrad.contracts import ConfigError, DataError
from stopgrad.data import DataConfig, open_data
from stopgrad.nn.towers import SensorTowers, parts_of
from stopgrad.recipe.text import load as load_recipe
from stopgrad.training.progress import Progress
from tests.training import small_run

QUIET = Progress(quiet=True)
SIDE, TRAIN, TEST = 24, 60, 20
SETTINGS = (
    *small_run.SETTINGS,
    "loop.batch_size=20",
    "loop.epochs=2",
    "data.sensors=[rgb,depth]",
    "data.depth=16",
    "data.labels=labels:ignore=0",
    "views.image_size=16",
    "views.mean=[]",
    "views.std=[]",
    "views.crops.*.jitter=0",
    "views.crops.*.grayscale=0",
    "backbone.split=sensors_lab",
    "data.max_bad_fraction=0.1",
)


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scenes of one of three colours at one of two depths, which their label maps say; one has no depth."""
    root = tmp_path_factory.mktemp("rooms")
    random = np.random.default_rng(0)
    for part, count in (("train", TRAIN), ("test", TEST)):
        for name in ("rgb", "depth", "labels"):
            (root / part / name).mkdir(parents=True)
        for i in range(count):
            colour, near = i % 3, i % 2
            rgb = random.integers(0, 90, (SIDE, SIDE, 3))
            rgb[..., colour] += 120
            labels = np.full((SIDE, SIDE), 1 + colour, np.uint8)
            labels[:8] = 4 + near
            labels[8:12] = 0
            depth = random.integers(0, 9000, (SIDE, SIDE)) + 30_000 * near
            Image.fromarray(rgb.astype(np.uint8)).save(root / part / "rgb" / f"{i}.png")
            Image.fromarray(depth.astype(np.uint16)).save(root / part / "depth" / f"{i}.png")
            Image.fromarray(labels).save(root / part / "labels" / f"{i}.png")
    (root / "train" / "depth" / "7.png").unlink()
    return root


def trained(source: Path, out: Path, *more: str) -> Finished:
    options = api.Options(data=str(source), settings=(*SETTINGS, *more))
    return api.train("simsiam/scenes", out=out, name="run", options=options, progress=QUIET)


@pytest.fixture(scope="module")
def run(rooms: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return trained(rooms, tmp_path_factory.mktemp("runs"))


def test_scores_say_which_labels_occur_beside_their_baselines(run: Finished) -> None:
    found = {row.name: row for row in run.results}
    for who in ("", "baseline_random_", "baseline_pixels_"):
        assert 0 < float(found[f"{who}segments_ap"].value or 0) <= 100
    assert float(found["baseline_pixels_segments_ap"].value or 0) > 95  # colour and depth are all there is
    assert "of 5 of 5 labels" in found["segments_ap"].protocol
    assert "knn_top1" not in found


def test_the_run_folder_is_that_of_any_run(run: Finished) -> None:
    recipe = load_recipe(run.path / "recipe.yaml")
    views = recipe.views
    assert (recipe.data.channels, views.mean[:3], views.std[:3]) == (4, (0, 0, 0), (1, 1, 1))  # type: ignore[union-attr]
    assert "train/7,no depth" in (run.path / "bad_files.csv").read_text()
    gallery = json.loads((run.path / "gallery" / "gallery.json").read_text())
    assert gallery["views"]["told"].startswith("rows of an image: rgb, depth")
    assert gallery["views"]["rows"] == 12
    assert api.resume(run.path, progress=QUIET).trained is False


def test_the_encoder_knows_its_sensors_wherever_it_goes(run: Finished, rooms: Path) -> None:
    encoder = stopgrad.load(run.path)
    assert encoder.preprocess.sensors == ("rgb", "depth")
    assert isinstance(encoder.backbone, SensorTowers)
    from_run = stopgrad.embed(run.path, rooms)
    from_file = stopgrad.embed(run.path / "encoder.safetensors", str(rooms))
    assert from_run.names == from_file.names
    assert from_run.features == pytest.approx(from_file.features)
    assert len(from_run) == TRAIN + TEST - 1
    rgb = np.zeros((SIDE, SIDE, 4), np.uint16)
    assert len(stopgrad.embed(encoder, [rgb])) == 1
    with pytest.raises(DataError, match=r"this encoder takes several of a scene \(rgb, depth\)"):
        use.read_query(rooms / "train/rgb/0.png", encoder)


def test_the_file_alone_is_scored_on_the_sensors_it_wants(run: Finished, rooms: Path) -> None:
    settings = [s for s in SETTINGS if s.startswith(("eval", "loop.threads", "loop.view", "data.max_bad"))]
    found = api.evaluate(run.path / "encoder.safetensors", data=str(rooms), settings=settings, progress=QUIET)
    again = {row.name: row.value for row in found}
    before = {row.name: row.value for row in run.results}
    assert again["effective_rank"] == pytest.approx(before["effective_rank"], rel=1e-4)
    alone = api.evaluate(run.path, settings=["eval.tower=L"], progress=QUIET)
    assert any("features of L alone" in row.protocol for row in alone)


def test_a_run_of_one_folder_reads_that_folder_again_and_takes_any_other_images(run: Finished, rooms: Path) -> None:
    rgb, _ = use.tower_of(stopgrad.load(run.path), "rgb")  # an encoder of ordinary photographs, like a run of [rgb]
    kept = DataConfig(source=str(rooms), sensors=("rgb",), depth=16, max_bad_fraction=0.1)
    assert len(use.open_for(rgb, rooms, None, kept).train) == TRAIN
    other = use.open_for(rgb, rooms / "test" / "rgb", None, kept)
    assert len(other.train) + len(other.test) == TEST
    with pytest.raises(DataError, match="several pictures of each scene"):
        use.open_for(rgb, rooms, None)


def test_a_tower_is_exported_by_itself(run: Finished, rooms: Path, tmp_path: Path) -> None:
    done = use.export(run.path, tmp_path / "depth.safetensors", tower="depth")
    assert done.path.exists()
    depth, whole = stopgrad.load(tmp_path / "depth.safetensors"), stopgrad.load(run.path)
    assert (depth.preprocess.channels, depth.preprocess.depth, depth.preprocess.sensors) == (1, 16, ())
    x = torch.rand(3, 4, 16, 16)
    assert torch.equal(depth(x[:, 3:]), parts_of(whole.backbone, x)[2])
    assert len(stopgrad.embed(tmp_path / "depth.safetensors", rooms / "test" / "depth")) == TEST
    with pytest.raises(ConfigError, match="--tower front: this encoder has rgb, depth"):
        use.export(run.path, tmp_path / "front.safetensors", tower="front")


def test_a_rehearsal_takes_the_labels_of_the_images_it_takes(rooms: Path) -> None:
    config = DataConfig(source=str(rooms), sensors=("rgb",), labels="labels:ignore=0", depth=16, max_bad_fraction=0.1)
    data = open_data(config, 16)
    part = _part(data, 0.5, 0)
    assert part.occurring is not None
    assert part.occurring.train.shape == (len(part.train), 5) == (TRAIN // 2, 5)
    for images, has in ((part.train, part.occurring.train), (part.test, part.occurring.test)):
        for i in range(len(images)):
            number = int(images.name(i).rpartition("/")[2])
            assert has[i].tolist() == [number % 3 == c for c in range(3)] + [number % 2 == near for near in range(2)]


def test_check_says_the_sensors_and_views_draws_them_apart(rooms: Path, tmp_path: Path) -> None:
    settings = [s for s in SETTINGS if not s.startswith("method")]
    found = check(str(rooms), method="simsiam", options=api.Options(settings=SETTINGS), timed=False, progress=QUIET)
    assert found.problem == ""
    lines = dict(line for title, section in found.sections if title == "Sizes" for line in section)
    assert lines["sensors"].startswith("rgb 3, depth 1 channels")
    lines = dict(line for title, section in found.sections if title == "Images" for line in section)
    assert lines["labels"] == "5, 2.0 of them in one of the images; used by the evaluation alone"
    plain = check(str(rooms), options=api.Options(settings=()), timed=False, progress=QUIET)
    assert "several pictures of each scene" in plain.problem
    options = api.Options(data=str(rooms), settings=settings)
    both, rows = draw_views("simsiam/scenes", tmp_path / "both.png", options=options, images=3, progress=QUIET)
    alone, _ = draw_views(
        "simsiam/scenes",
        tmp_path / "rgb.png",
        options=api.Options(data=str(rooms), settings=("data.sensors=[rgb]",)),
        images=3,
        progress=QUIET,
    )
    assert rows == 3
    heights = []
    for path in (both, alone):
        with Image.open(path) as picture:
            heights.append(picture.height)
    assert heights[0] > heights[1] + 2.5 * 128  # three rows more
