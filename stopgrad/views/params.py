"""What is drawn for a view, and the drawing of it: numbers only, no pixels.

Every number depends on (seed, epoch, image index, view) alone, so an image has the same view in any batch, thread or
process. Each draw has a column of its own: changing one probability leaves all other draws of the view as they were.
The laws are torchvision's: RandomResizedCrop (ten tries, then the centre), ColorJitter (factors uniform, order uniform
over the 24), RandomRotation, RandomSolarize.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from stopgrad import rng
from stopgrad.views.config import CropConfig

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)  # names of the operations in Params.order
LUMA = (0.2989, 0.587, 0.114)  # of red, green, blue: gray, as torchvision weighs them
ORDERS = np.array(list(itertools.permutations(range(4))), dtype=np.int64)  # [24, 4]

_TRIES = 10  # of RandomResizedCrop
# Columns of the draws: the tries' areas and ratios first, then one column each.
_PLACE = 2 * _TRIES  # and the next
_HFLIP, _VFLIP, _TURN, _TURNS, _ROTATE, _ANGLE, _JITTER, _FACTORS = 22, 23, 24, 25, 26, 27, 28, 29  # factors: 29 to 32
_ORDER, _GRAY, _BLUR, _SIGMA, _SOLARIZE, _DRAWS = 33, 34, 35, 36, 37, 38


@dataclass(frozen=True, slots=True)
class Params:
    """One view of B images. What was not drawn for an image holds the value that changes nothing."""

    box: NDArray[np.int64]  # [B, 4]: x, y, width, height of the crop, in pixels of the source
    hflip: NDArray[np.bool_]  # [B]
    vflip: NDArray[np.bool_]  # [B]
    turns: NDArray[np.int64]  # [B], quarter turns counter-clockwise, 0 to 3, after the flips
    angle: NDArray[np.float64]  # [B], degrees counter-clockwise about the centre, after the quarter turns
    brightness: NDArray[np.float64]  # [B], factor; 1 changes nothing
    contrast: NDArray[np.float64]  # [B], factor
    saturation: NDArray[np.float64]  # [B], factor
    hue: NDArray[np.float64]  # [B], turns of the colour circle, -0.5 to 0.5; 0 changes nothing
    order: NDArray[np.int64]  # [B, 4]: BRIGHTNESS, CONTRAST, SATURATION, HUE in the order they are applied
    gray: NDArray[np.bool_]  # [B]
    sigma: NDArray[np.float64]  # [B], of the blur, pixels of the crop; 0: none
    solarize: NDArray[np.bool_]  # [B]

    def __len__(self) -> int:
        return len(self.box)

    def take(self, rows: slice) -> Params:
        """The parameters of some of the images."""
        return Params(*(getattr(self, field.name)[rows] for field in fields(self)))


def draw(
    crop: CropConfig, sizes: NDArray[np.int64], seed: int, epoch: int, index: NDArray[np.int64], view: int
) -> Params:
    """The parameters of view number `view` of the images `index` [B], whose (height, width) are `sizes` [B, 2]."""
    u = rng.uniform(rng.VIEWS, seed, epoch, index, _DRAWS, view)  # [B, draws]

    def between(column: int, low: float, high: float) -> NDArray[np.float64]:
        return low + (high - low) * u[:, column]

    jitter = u[:, _JITTER] < crop.jitter

    def factor(number: int, strength: float) -> NDArray[np.float64]:
        return np.where(jitter, between(_FACTORS + number, 1 - strength, 1 + strength), 1.0)

    turned = u[:, _TURN] < crop.quarter_turns
    rotated = u[:, _ROTATE] < crop.rotation
    return Params(
        box=boxes(crop, sizes, u[:, : _PLACE + 2]),
        hflip=u[:, _HFLIP] < crop.hflip,
        vflip=u[:, _VFLIP] < crop.vflip,
        turns=np.where(turned, 1 + (u[:, _TURNS] * 3).astype(np.int64), 0),
        angle=np.where(rotated, between(_ANGLE, -crop.rotation_degrees, crop.rotation_degrees), 0.0),
        brightness=factor(BRIGHTNESS, crop.brightness),
        contrast=factor(CONTRAST, crop.contrast),
        saturation=factor(SATURATION, crop.saturation),
        hue=np.where(jitter, between(_FACTORS + HUE, -crop.hue, crop.hue), 0.0),
        order=ORDERS[(u[:, _ORDER] * len(ORDERS)).astype(np.int64)],
        gray=u[:, _GRAY] < crop.grayscale,
        sigma=np.where(u[:, _BLUR] < crop.blur, between(_SIGMA, *crop.blur_sigma), 0.0),
        solarize=u[:, _SOLARIZE] < crop.solarize,
    )


def blur_radius(sigma: float, side: int) -> int:
    """Pixels of the Gaussian on each side of its centre: three sigma, but less than `side`: the edge is mirrored."""
    return min(math.ceil(3 * sigma), side - 1)


def boxes(crop: CropConfig, sizes: NDArray[np.int64], u: NDArray[np.float64]) -> NDArray[np.int64]:
    """RandomResizedCrop: the first of ten tries that fits, else the largest centre crop of an allowed ratio.

    sizes: [B, 2], (height, width).  u: [B, 22], uniform: ten areas, ten ratios, the place.
    Returns [B, 4]: x, y, width, height.
    """
    height, width = sizes[:, 0], sizes[:, 1]
    low, high = np.log(crop.ratio)
    area = (height * width)[:, None] * (crop.scale[0] + (crop.scale[1] - crop.scale[0]) * u[:, :_TRIES])  # [B, 10]
    ratio = np.exp(low + (high - low) * u[:, _TRIES:_PLACE])
    # rint rounds halves to even, as Python's round() in torchvision does.
    w = np.rint(np.sqrt(area * ratio)).astype(np.int64)
    h = np.rint(np.sqrt(area / ratio)).astype(np.int64)
    fits = (w > 0) & (h > 0) & (w <= width[:, None]) & (h <= height[:, None])
    found, first = fits.any(axis=1), fits.argmax(axis=1)[:, None]
    w, h = np.take_along_axis(w, first, 1)[:, 0], np.take_along_axis(h, first, 1)[:, 0]  # [B]
    # The fallback: the whole image, or its centre where its own ratio is out of range.
    narrow, wide = width / height < crop.ratio[0], width / height > crop.ratio[1]
    centre_w = np.where(wide, np.rint(height * crop.ratio[1]).astype(np.int64), width)
    centre_h = np.where(narrow, np.rint(width / crop.ratio[0]).astype(np.int64), height)
    w = np.where(found, w, np.clip(centre_w, 1, width))
    h = np.where(found, h, np.clip(centre_h, 1, height))
    x = np.where(found, (u[:, _PLACE] * (width - w + 1)).astype(np.int64), (width - w) // 2)
    y = np.where(found, (u[:, _PLACE + 1] * (height - h + 1)).astype(np.int64), (height - h) // 2)
    return np.stack([x, y, w, h], axis=1)
