"""Mean and standard deviation a channel, measured on training images: what `views.mean=[]` stands for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stopgrad import rng
from stopgrad.contracts import DataError, Images

IMAGES = 4096  # looked at; more move no value by a percent
SIDE = 192  # pixels: of a larger image every second, third, ... row and column is read
PIECE = 64  # images at a time


@dataclass(frozen=True, slots=True)
class Statistics:
    """Of pixels scaled to [0, 1], one value a channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    images: int  # that were looked at
    notes: tuple[str, ...]  # sentences for the user


def measure(images: Images, channels: int) -> Statistics:
    """Statistics of a fixed choice of up to 4,096 images [H, W, C], uint8 or uint16; each image counts the same.

    A channel that is the same everywhere has no spread to divide by: its std is 1, and a note says so. The values have
    six significant digits, so that a recipe holds all of them. Raises DataError where there is no image.
    """
    if not len(images):
        raise DataError("data: there is no training image to measure views.mean and views.std on")
    chosen = np.sort(rng.permutation(len(images), seed=0, epoch=0, purpose=rng.EVAL)[:IMAGES])
    total, squares = np.zeros(channels), np.zeros(channels)
    level = 0.0
    for start in range(0, len(chosen), PIECE):
        for image in images.take(chosen[start : start + PIECE]):
            white = 255 if image.dtype == np.uint8 else 65535
            step = max(1, min(image.shape[:2]) // SIDE)
            pixels = image[::step, ::step].reshape(-1, channels).astype(np.float64) / white  # [P, C]
            total += pixels.mean(axis=0)
            squares += np.square(pixels).mean(axis=0)
            level = max(level, 1 / white)
    mean = total / len(chosen)
    std = np.sqrt(np.maximum(squares / len(chosen) - np.square(mean), 0))
    constant = np.flatnonzero(std < level / 2)
    std[constant] = 1.0
    notes: tuple[str, ...] = ()
    if len(constant):
        which = ", ".join(str(band) for band in constant[:8]) + (", ..." if len(constant) > 8 else "")
        notes = (
            f"{len(constant)} of {channels} channels ({which}; the first is 0) have nearly the same value in all "
            "images: there is nothing to learn from them",
        )
    return Statistics(_short(mean), _short(std), len(chosen), notes)


def _short(values: NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(float(f"{value:.6g}") for value in values)
