"""The views of an image on the CPU: OpenCV on 8-bit pixels, a dozen calls an image, all outside Python's global lock.

The operations are torchvision's, clamped one by one; only the rounding to 8 bits in between differs (Pillow, which the
papers' code runs, rounds there too). Solarize and normalise are one look-up. Why colour is not one 3x4 matrix an image:
with the hue turned in YIQ instead of HSV the mean error of that operation alone is 4.7/255, up to 30/255 on a
colourful photograph, against 0.15/255 here. Whole views differ from `exact` by 0.4 to 0.6/255 in the mean
(CIFAR-10 at 32 pixels, Imagenette at 64, 128 and 224; all presets).

These pixels have 8 bits and 1 or 3 channels; `wide` does the others.

Shrinking with antialias: OpenCV has no triangle filter, so a short filter comes before an interpolation (`_axis`). Past
a factor of four, and for bicubic, Pillow's own resampling is as fast and exact.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stopgrad.views.config import CropConfig
from stopgrad.views.params import BRIGHTNESS, CONTRAST, LUMA, SATURATION, Params, blur_radius
from stopgrad.views.samples import Samples

Pixels = NDArray[Any]  # uint8; [H, W, 3], or [H, W] for one channel, as OpenCV has it

_GRAY = np.tile(np.array(LUMA, dtype=np.float32), (3, 1))  # [3, 3]
_EYE = np.eye(3, dtype=np.float32)
_LARGE_SHRINK = 4.0
FLIPS = {(True, False): 1, (False, True): 0, (True, True): -1}  # (hflip, vflip) -> code of cv2.flip
TURNS = {1: cv2.ROTATE_90_COUNTERCLOCKWISE, 2: cv2.ROTATE_180, 3: cv2.ROTATE_90_CLOCKWISE}


@dataclass(frozen=True, slots=True)
class Tables:
    """Pixel value -> normalised float, [1, 256, C], as it is and solarized."""

    plain: NDArray[np.float32]
    solarized: NDArray[np.float32]


def tables(mean: Sequence[float], std: Sequence[float], threshold: float) -> Tables:
    value = np.arange(256) / 255
    inverted = np.where(value >= threshold, 1 - value, value)

    def normalised(x: NDArray[np.float64]) -> NDArray[np.float32]:
        table = (x[:, None] - np.array(mean)) / np.array(std)  # [256, C]
        return np.ascontiguousarray(table[None], dtype=np.float32)

    return Tables(normalised(value), normalised(inverted))


def fill(out: NDArray[np.float32], samples: Samples, params: Params, crop: CropConfig, looks: Tables) -> None:
    """Writes the views of `samples` (B images [H, W, C]) into `out` [B, S, S, C], normalised."""
    for target, sample, row in zip(out, samples, rows(params), strict=True):
        image = geometry(sample, row, crop.interpolation, target.shape[0])
        if row.jitter:
            image = jitter(image, row)
        if row.gray and image.ndim == 3:
            image = cv2.transform(image, _GRAY)
        if row.sigma:
            # cv2.GaussianBlur on 8 bits works in fixed point: three times slower at large sigma and less exact.
            taps = cv2.getGaussianKernel(2 * blur_radius(row.sigma, len(image)) + 1, row.sigma, cv2.CV_32F)
            image = cv2.sepFilter2D(image, -1, taps, taps, borderType=cv2.BORDER_REFLECT_101)
        if image.ndim == 2:
            target = target[:, :, 0]
        cv2.LUT(image, looks.solarized if row.solarize else looks.plain, dst=target)


@dataclass(slots=True)
class Row:
    """One image's parameters as Python numbers: read from arrays one by one they would cost more than the pixels."""

    box: list[int]
    hflip: bool
    vflip: bool
    turns: int
    angle: float
    factors: tuple[float, float, float, float]  # brightness, contrast, saturation, hue
    order: list[int]
    gray: bool
    sigma: float
    solarize: bool

    @property
    def jitter(self) -> bool:
        return self.factors != (1.0, 1.0, 1.0, 0.0)


def rows(params: Params) -> Iterator[Row]:
    p = params
    factors = np.stack([p.brightness, p.contrast, p.saturation, p.hue], axis=1)
    columns: tuple[NDArray[Any], ...] = (p.box, p.hflip, p.vflip, p.turns, p.angle)
    later: tuple[NDArray[Any], ...] = (p.order, p.gray, p.sigma, p.solarize)
    return map(
        Row,
        *(column.tolist() for column in columns),
        map(tuple, factors.tolist()),
        *(column.tolist() for column in later),
    )


def geometry(sample: Pixels, row: Row, interpolation: str, side: int) -> Pixels:
    """Crop, resize, flip, turn: [H, W, C] -> [S, S, C], or [S, S] for one channel."""
    x, y, w, h = row.box
    cut = sample[y : y + h, x : x + w]
    image = resize(cut[:, :, 0] if cut.shape[2] == 1 else cut, side, side, interpolation)
    if row.hflip or row.vflip:
        image = cv2.flip(image, FLIPS[row.hflip, row.vflip])
    if row.turns:
        image = cv2.rotate(image, TURNS[row.turns])
    if row.angle:
        middle = (side - 1) / 2
        matrix = cv2.getRotationMatrix2D((middle, middle), row.angle, 1.0)
        image = cv2.warpAffine(image, matrix, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    return image


def resize(image: Pixels, height: int, width: int, interpolation: str) -> Pixels:
    """Antialiased: [h, w, 3] or [h, w] -> the same with `height` and `width`."""
    shrink = image.shape[0] / height, image.shape[1] / width
    if shrink == (1.0, 1.0):
        return np.ascontiguousarray(image)
    if interpolation == "bicubic" or max(shrink) > _LARGE_SHRINK:
        method = Image.Resampling.BICUBIC if interpolation == "bicubic" else Image.Resampling.BILINEAR
        return np.asarray(Image.fromarray(np.ascontiguousarray(image)).resize((width, height), method))
    (down, first), (across, second) = _axis(shrink[0]), _axis(shrink[1])
    if len(down) > 1 or len(across) > 1:
        image = cv2.sepFilter2D(image, -1, across, down, borderType=cv2.BORDER_REPLICATE)
    if first != second:
        image = cv2.resize(image, (image.shape[1], height), interpolation=first)
    return cv2.resize(image, (width, height), interpolation=second)


def _axis(shrink: float) -> tuple[NDArray[np.float32], int]:
    """Filter and interpolation that together are nearly the triangle of half-width `shrink` source pixels.

    From 1.75 on, the triangle sampled at whole pixels, then interpolated linearly: the triangle itself but for its
    kinks. Below, the kinks matter: cubic interpolation, which adds no variance, of a filter with the triangle's
    variance, shrink**2 / 6; near 1, linear interpolation of a fitted one. Error of the weights (root of the summed
    squares, mean over phases): at most 0.06, against 0.13 for the sampled triangle, 0.4 for no filter.
    """
    if shrink <= 1:
        return np.ones(1, dtype=np.float32), cv2.INTER_LINEAR
    if shrink < 1.75:
        side = (shrink**2 - 1) / 6 if shrink < 1.1 else shrink**2 / 12
        weights = np.array([side, 1 - 2 * side, side], dtype=np.float32)
        return weights, cv2.INTER_LINEAR if shrink < 1.1 else cv2.INTER_CUBIC
    radius = math.ceil(shrink) - 1
    triangle = 1 - np.abs(np.arange(-radius, radius + 1)) / shrink
    return np.asarray(triangle / triangle.sum(), dtype=np.float32), cv2.INTER_LINEAR


def jitter(image: Pixels, row: Row) -> Pixels:
    """The four in the drawn order. image: [S, S, 3], or [S, S], on which saturation and hue do nothing."""
    for operation in row.order:
        factor = row.factors[operation]
        if operation == BRIGHTNESS:
            image = cv2.convertScaleAbs(image, alpha=factor)
        elif operation == CONTRAST:
            means = cv2.mean(image)
            middle = means[0] if image.ndim == 2 else sum(map(float.__mul__, LUMA, means))
            image = cv2.addWeighted(image, factor, image, 0.0, (1 - factor) * middle)
        elif image.ndim == 2:
            continue
        elif operation == SATURATION:
            image = cv2.transform(image, factor * _EYE + (1 - factor) * _GRAY)
        else:
            image = _turn_hue(image, factor)
    return image


def _turn_hue(image: Pixels, turns: float) -> Pixels:
    """In 8-bit HSV the circle has 256 steps, so that the sum wraps by itself."""
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL)
    hsv[:, :, 0] += np.uint8(round(turns * 256) % 256)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL)
