"""The embedded scenes as a source: rendered once into the store, at the size and number a run asks for."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from stopgrad.data import DataConfig, open_data, sources


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOPGRAD_CACHE", str(tmp_path / "cache"))


def numbers(images: Any) -> list[int]:
    return [int(images[i][0, 0, 0]) for i in range(len(images))]


@pytest.fixture
def rendered(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Stands in for the renderer: pixel value and label follow from seed and number. Lists what was asked for."""
    asked: list[tuple[int, int]] = []

    def render_rgb(seed: int, index: Sequence[int], size: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        asked.append((size, len(index)))
        pixels = np.zeros((len(index), size, size, 3), np.uint8)
        pixels[...] = (np.asarray(index) % 100 + 100 * seed)[:, None, None, None]
        return pixels, np.asarray(index) % 10

    monkeypatch.setattr(sources.scenes, "render_rgb", render_rgb)
    monkeypatch.setattr(sources.scenes, "TRAIN", 70)
    monkeypatch.setattr(sources.scenes, "TEST", 20)
    monkeypatch.setattr(sources.scenes, "TRAIN_SEED", 0)
    monkeypatch.setattr(sources.scenes, "TEST_SEED", 1)
    return asked


@pytest.mark.parametrize("name", sources.SCENES)
@pytest.mark.parametrize("channels", [1, 3])
def test_scenes_are_rendered_once_in_order(name: str, channels: Any, rendered: list[tuple[int, int]]) -> None:
    data = open_data(DataConfig(source=name, channels=channels), image_size=32)
    assert (data.name, data.synthetic) == (sources.scenes.VERSION, True)
    assert numbers(data.train) == list(range(70))
    assert numbers(data.test) == [100 + i for i in range(20)]
    assert data.train[0].shape == (32, 32, channels)
    assert data.train.labels is not None
    assert data.train.labels.tolist() == [i % 10 for i in range(70)]
    assert len(data.classes) == 10
    rendered.clear()
    open_data(DataConfig(source=name, channels=channels), image_size=32)
    assert sum(count for _, count in rendered) == 2  # the probe of the renderer


@pytest.mark.parametrize(("wanted", "size"), [(16, 32), (96, 96), (320, 256)])
def test_scenes_are_rendered_at_the_size_of_the_run_within_what_they_can(
    wanted: int, size: int, rendered: list[tuple[int, int]]
) -> None:
    data = open_data(DataConfig(limit=5), image_size=wanted)
    assert data.train[0].shape == (size, size, 3)
    assert {asked for asked, _ in rendered} == {size}


def test_a_limit_takes_the_first_scenes_and_a_fifth_of_them_for_the_test(rendered: list[tuple[int, int]]) -> None:
    data = open_data(DataConfig(limit=25), image_size=32)
    assert numbers(data.train) == list(range(25))
    assert numbers(data.test) == [100 + i for i in range(5)]
    assert len(open_data(DataConfig(limit=2), image_size=32).test) == 1
    beyond = open_data(DataConfig(limit=100), image_size=32)
    assert (len(beyond.train), len(beyond.test)) == (70, 20)
    assert beyond.notes == ("data.limit=100, but there are 70 scenes",)
    assert data.fingerprint != beyond.fingerprint


def test_another_renderer_does_not_find_the_pictures_of_the_old_one(
    rendered: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    open_data(DataConfig(limit=5), image_size=32)
    old = sources.scenes.render_rgb

    def brighter(*asked: Any) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        pixels, labels = old(*asked)
        return pixels + np.uint8(50), labels

    monkeypatch.setattr(sources.scenes, "render_rgb", brighter)
    assert numbers(open_data(DataConfig(limit=5), image_size=32).train) == [50, 51, 52, 53, 54]


def test_gray_scenes_are_the_luma_of_their_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    colour = open_data(DataConfig(limit=5), image_size=32)
    gray = open_data(DataConfig(limit=5, channels=1), image_size=32)
    expected = np.rint(colour.train[0].astype(float) @ [0.299, 0.587, 0.114])
    assert (gray.train[0][:, :, 0] == expected).all()
