"""The sheet of views shows what the maker made: its pixels are found in the picture again, for any channels."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from stopgrad.contracts import Batch, Views
from stopgrad.views.sheet import CELL, MARGIN, sheet


class Stored:
    """Images of one size with a name."""

    labels = None

    def __init__(self, images: NDArray[np.generic]) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> NDArray[np.generic]:
        return self.images[index]

    def name(self, index: int) -> str:
        return f"image {index}"

    def take(self, index: NDArray[np.int64]) -> NDArray[np.generic]:
        return self.images[index]


def same(mean: float, std: float, side: int = 32) -> object:
    """A maker whose views are the images themselves, so that what is drawn is known."""

    def make(batch: Batch) -> Views:
        stacked = np.stack([sample / np.iinfo(sample.dtype).max for sample in batch.samples]).astype(np.float32)
        crop = torch.from_numpy((stacked - mean) / std).permute(0, 3, 1, 2)
        return Views((crop, crop), torch.from_numpy(batch.index))

    return make


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_views_are_drawn_as_the_image_they_are(channels: int, dtype: type) -> None:
    random = np.random.default_rng(0)
    images = random.integers(0, np.iinfo(dtype).max + 1, (4, 32, 32, channels)).astype(dtype)
    mean, std = [0.4] * channels, [0.2] * channels
    drawn = sheet(Stored(images), [0, 3], same(0.4, 0.2), mean, std, epochs=2, title="t", names=["a", "b"])
    assert drawn.dtype == np.uint8
    assert drawn.shape[2] == 3
    # the stored image stands at the left margin; its views repeat it further to the right, pixel by pixel
    column = drawn[:, MARGIN : MARGIN + CELL].astype(int)
    rows = np.flatnonzero((column == 255).all(axis=2).mean(axis=1) < 0.3)  # text above it is mostly paper
    top = int(rows[0])
    stored = column[top : top + CELL]
    x = MARGIN + CELL + 18
    view = drawn[top : top + CELL, x : x + CELL].astype(int)
    assert np.abs(stored - view).max() <= 1
    assert len(np.unique(stored)) > 100  # stretched or not, it is no flat patch
    assert (np.ptp(stored, axis=2) == 0).all() == (channels < 3)


def test_an_eight_bit_photograph_is_drawn_with_its_own_values() -> None:
    images = np.zeros((1, 32, 32, 3), np.uint8)
    images[0, :, :, 0] = 200
    drawn = sheet(Stored(images), [0], same(0.5, 0.5), [0.5] * 3, [0.5] * 3, epochs=1)
    assert (drawn == (200, 0, 0)).all(axis=2).sum() >= 3 * CELL * CELL


def test_rows_epochs_and_long_names_fit_the_picture() -> None:
    images = np.zeros((9, 40, 20, 1), np.uint8)
    long = "a/very/long/folder/" * 10 + "end.jpg"

    def make(batch: Batch) -> Views:
        crops = tuple(torch.zeros(len(batch.index), 1, side, side) for side in (64, 64, 24))
        return Views(crops, torch.from_numpy(batch.index))

    small = sheet(Stored(images), [0], make, [0.5], [0.2], epochs=1, names=[long], notes=[long])
    large = sheet(Stored(images), range(9), make, [0.5], [0.2], epochs=3, names=[long] * 9)
    assert large.shape[0] > 8 * CELL > small.shape[0] / 2
    assert large.shape[1] > small.shape[1]
