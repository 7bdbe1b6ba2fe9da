"""Mean and std a channel against numpy over all pixels; what has no spread; what is looked at."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from stopgrad.contracts import DataError
from stopgrad.data import statistics
from stopgrad.data.statistics import measure

RANDOM = np.random.default_rng(0)


class Listed:
    """Images of any size, in memory."""

    labels = None

    def __init__(self, images: Sequence[NDArray[Any]]) -> None:
        self.images = images
        self.taken: list[int] = []

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> NDArray[Any]:
        return self.images[index]

    def name(self, index: int) -> str:
        return f"image {index}"

    def take(self, index: NDArray[np.int64]) -> Sequence[NDArray[Any]]:
        self.taken += index.tolist()
        return [self.images[int(i)] for i in index]


@pytest.mark.parametrize(("dtype", "white"), [(np.uint8, 255), (np.uint16, 65535)])
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_they_are_numpys(dtype: Any, white: int, channels: int) -> None:
    level = RANDOM.integers(0, white // 2, (200, 1, 1, channels))
    images = (level + RANDOM.integers(0, white // 2, (200, 8, 9, channels))).astype(dtype)
    found = measure(Listed(list(images)), channels)
    flat = images.reshape(-1, channels) / white
    assert found.mean == pytest.approx(flat.mean(axis=0), rel=1e-5)
    assert found.std == pytest.approx(flat.std(axis=0), rel=1e-5)
    assert (found.images, found.notes) == (200, ())


def test_an_image_counts_the_same_whatever_its_size() -> None:
    dark, light = np.zeros((8, 8, 2), np.uint8), np.full((80, 80, 2), 255, np.uint8)
    found = measure(Listed([dark, light]), 2)
    assert found.mean == (0.5, 0.5)
    assert found.std == (0.5, 0.5)


def test_a_large_image_is_read_in_part_and_says_nearly_the_same() -> None:
    big = RANDOM.integers(0, 256, (800, 1000, 3)).astype(np.uint8)
    found = measure(Listed([big]), 3)
    assert found.mean == pytest.approx((big / 255).mean(axis=(0, 1)), abs=0.005)
    assert found.std == pytest.approx((big / 255).std(axis=(0, 1)), abs=0.005)


def test_faint_sixteen_bits_have_a_spread_of_their_own() -> None:
    """Reflectances of satellites fill a hundredth of the range."""
    faint = RANDOM.integers(300, 500, (20, 9, 9, 2)).astype(np.uint16)
    found = measure(Listed(list(faint)), 2)
    assert found.std == pytest.approx((faint / 65535).reshape(-1, 2).std(axis=0), rel=1e-4)
    assert found.notes == ()


def test_a_channel_without_spread_is_divided_by_one_and_told() -> None:
    images = RANDOM.integers(0, 60000, (20, 8, 8, 4)).astype(np.uint16)
    images[..., 1], images[..., 3] = 7, 65535
    found = measure(Listed(list(images)), 4)
    assert (found.std[1], found.std[3]) == (1.0, 1.0)
    assert found.mean[3] == 1.0
    assert min(found.std) > 0.1
    assert found.notes == (
        "2 of 4 channels (1, 3; the first is 0) have nearly the same value in all images: there is nothing to learn "
        "from them",
    )


def test_a_fixed_choice_of_the_images_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "IMAGES", 30)
    images = [np.full((8, 8, 1), i, np.uint8) for i in range(100)]
    one, two = Listed(images), Listed(images)
    assert measure(one, 1) == measure(two, 1)
    assert one.taken == two.taken
    assert len(set(one.taken)) == 30
    assert max(one.taken) > 60  # not the first ones, which are of one class


def test_without_images_there_is_nothing_to_measure() -> None:
    with pytest.raises(DataError, match="no training image to measure"):
        measure(Listed([]), 3)
