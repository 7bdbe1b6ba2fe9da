"""The whole chain on images of other than 3 channels of 8 bits: store, statistics, training, encoder, scores."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import stopgrad
from stopgrad.assemble import api
from stopgrad.assemble.build import resolve
from stopgrad.assemble.train import measured
from stopgrad.contracts import ConfigError
from stopgrad.data import DataConfig, open_data
from stopgrad.recipe.text import load as load_recipe
from stopgrad.rundir import RunDir
from stopgrad.training.progress import Progress
from stopgrad.views import preprocess_batch
from tests.training import small_run

SIDE = 16
FEW = (
    "loop.epochs=2",
    f"views.image_size={SIDE}",
    "views.mean=[]",
    "views.std=[]",
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOPGRAD_CACHE", str(tmp_path / "cache"))


def folder(root: Path, channels: int, dtype: Any) -> Path:
    """100 images of two classes that differ by a band; every second with the bands first."""
    random = np.random.default_rng(channels)
    for i in range(100):
        values = random.integers(0, 60 if dtype == np.uint8 else 9000, (20, 22, channels))
        values[:, :, i % 2] += 3 * values.max() // 4 + random.integers(0, 20)
        place = root / f"class {i % 2}" / f"{i:03d}.npy"
        place.parent.mkdir(parents=True, exist_ok=True)
        np.save(place, values.astype(dtype).transpose(2, 0, 1) if i % 4 == 3 else values.astype(dtype))
    return root


@pytest.mark.parametrize(("channels", "dtype", "depth"), [(5, np.uint16, 16), (2, np.uint8, 8)])
def test_an_encoder_is_trained_on_any_channels_and_depth(tmp_path: Path, channels: int, dtype: Any, depth: int) -> None:
    source = folder(tmp_path / "images", channels, dtype)
    settings = (*FEW, f"data.channels={channels}", f"data.depth={depth}")
    done = train(tmp_path, source, settings)
    recipe = load_recipe(done.path / "recipe.yaml")
    data = open_data(recipe.data, SIDE)
    pixels = np.stack([data.train[i] for i in range(len(data.train))])
    assert pixels.dtype == dtype
    scaled = pixels.reshape(-1, channels) / (2**depth - 1)
    assert recipe.views.mean == pytest.approx(scaled.mean(axis=0), rel=1e-4)  # measured, and written out
    assert recipe.views.std == pytest.approx(scaled.std(axis=0), rel=1e-4)
    first = next(line for line in RunDir(done.path).read_log() if "pixel_std" in line)
    assert first["held_distinct"] == first["held_images"]
    assert first["pixel_std"] > 0.3  # of pixels that are normalised
    assert data.train.name(0).endswith(".npy")

    encoder = stopgrad.load(done.path)
    assert (encoder.preprocess.channels, encoder.preprocess.depth) == (channels, depth)
    assert encoder.preprocess.mean == recipe.views.mean
    features = encoder(preprocess_batch(data.test.take(np.arange(4)), encoder.preprocess))
    assert features.shape == (4, encoder.dim)
    assert torch.isfinite(features).all()

    # scores of the file alone: the images come as it wants them, whatever the recipe of the call says
    again = api.evaluate(
        done.path / "encoder.safetensors",
        data=str(source),
        settings=[s for s in small_run.SETTINGS if s.startswith(("eval", "loop.threads", "loop.view"))],
        progress=Progress(quiet=True),
    )
    before = {row.name: row.value for row in done.results if row.split == "test" and "knn" in row.name}
    assert before
    assert {row.name: row.value for row in again if row.name in before and row.split == "test"} == before


def train(out: Path, source: Path, settings: tuple[str, ...]) -> Any:
    options = api.Options(data=str(source), settings=(*small_run.SETTINGS, "loop.batch_size=20", *settings))
    return api.train("simsiam/scenes", out=out, name="run", options=options, progress=Progress(quiet=True))


def test_values_that_do_not_fit_the_channels_are_refused_before_an_image_is_read(tmp_path: Path) -> None:
    source = folder(tmp_path / "images", 5, np.uint16)
    with pytest.raises(ConfigError, match=r"ImageNet's 3 values, the images 5 channels; type --set views.mean=\[\]"):
        train(tmp_path, source, ("data.channels=5",))
    assert not (tmp_path / "cache").exists()


def test_a_recipe_with_measured_values_measures_nothing(tmp_path: Path) -> None:
    recipe = resolve(api.compose("simsiam", api.Options()), torch.device("cpu"))
    data = open_data(DataConfig(limit=20), 32)
    assert measured(recipe, data, Progress(quiet=True)) is recipe
    empty = api.compose("simsiam", api.Options(settings=("views.mean=[]", "views.std=[]")))
    found = measured(empty, data, Progress(quiet=True)).views
    assert len(found.mean) == len(found.std) == 3
    assert found != empty.views
