"""The views of an image on the CPU where 8-bit OpenCV does not reach: 16 bits, or other than 1 or 3 channels.

One float32 plane a channel, 0 to 1, nothing rounded in between. Saturation, hue and gray mean red, green and blue: they
are left out for other than 3 channels, and the contrast is then about the mean of all channels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stopgrad.views.config import CropConfig
from stopgrad.views.cpu import FLIPS, TURNS, Row, rows
from stopgrad.views.params import BRIGHTNESS, CONTRAST, LUMA, SATURATION, Params, blur_radius
from stopgrad.views.samples import Samples, white
from stopgrad.views.sensors import turned, turns_of

Planes = NDArray[np.float32]  # [C, S, S], 0 to 1


def fill(
    out: NDArray[np.float32],
    samples: Samples,
    params: Params,
    crop: CropConfig,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    normals: Sequence[int] = (),
) -> None:
    """Writes the views of `samples` (B images [H, W, C]) into `out` [B, S, S, C], normalised.

    normals: channels where normals begin, which are turned with the picture.
    """
    shift, scale = (np.array(values, dtype=np.float32) for values in (mean, std))
    for target, sample, row in zip(out, samples, rows(params), strict=True):
        image = colour(geometry(sample, row, crop.interpolation, target.shape[0], normals), row)
        if row.sigma:
            image = _each(image, partial(_blurred, sigma=row.sigma))
        if row.solarize:
            image = np.where(image >= np.float32(crop.solarize_threshold), 1 - image, image)
        np.divide(image.transpose(1, 2, 0) - shift, scale, out=target)


def geometry(sample: NDArray[Any], row: Row, interpolation: str, side: int, normals: Sequence[int] = ()) -> Planes:
    """Crop, resize, flip, turn: [H, W, C] -> [C, S, S]."""
    x, y, w, h = row.box
    cut = sample[y : y + h, x : x + w].transpose(2, 0, 1).astype(np.float32)  # [C, h, w]
    cut /= white(sample.dtype)
    for x in normals:
        cut[x], cut[x + 1] = turned(cut[x], cut[x + 1], turns_of(row.hflip, row.vflip, row.turns, row.angle).tolist())
    image = _each(cut, lambda plane: resize(plane, side, side, interpolation))
    if interpolation == "bicubic":
        image.clip(0, 1, out=image)  # it overshoots
    if row.hflip or row.vflip:
        image = _each(image, lambda plane: cv2.flip(plane, FLIPS[row.hflip, row.vflip]))
    if row.turns:
        image = _each(image, lambda plane: cv2.rotate(plane, TURNS[row.turns]))
    if row.angle:
        middle = (side - 1) / 2
        matrix = cv2.getRotationMatrix2D((middle, middle), row.angle, 1.0)
        image = _each(image, lambda plane: cv2.warpAffine(plane, matrix, (side, side), flags=cv2.INTER_LINEAR))
    return image


def resize(plane: NDArray[np.float32], height: int, width: int, interpolation: str) -> NDArray[np.float32]:
    """Antialiased, Pillow's: [h, w] -> [height, width]."""
    if plane.shape == (height, width):
        return plane
    method = Image.Resampling.BICUBIC if interpolation == "bicubic" else Image.Resampling.BILINEAR
    return np.asarray(Image.fromarray(plane).resize((width, height), method))


def colour(image: Planes, row: Row) -> Planes:
    """Jitter in the drawn order, then gray; of 3 planes all of it, of others brightness and contrast."""
    rgb = len(image) == 3
    for operation in row.order if row.jitter else ():
        factor = row.factors[operation]
        if operation == BRIGHTNESS:
            image = image * np.float32(factor)
        elif operation == CONTRAST:
            middle = float(_luma(image).mean()) if rgb else float(image.mean())
            image = image * np.float32(factor) + np.float32((1 - factor) * middle)
        elif not rgb:
            continue
        elif operation == SATURATION:
            image = image * np.float32(factor) + np.float32(1 - factor) * _luma(image)
        else:
            image = _turn_hue(image, factor)
        image = image.clip(0, 1)
    return np.repeat(_luma(image)[None], 3, axis=0) if rgb and row.gray else image


def _blurred(plane: NDArray[np.float32], sigma: float) -> NDArray[Any]:
    taps = cv2.getGaussianKernel(2 * blur_radius(sigma, len(plane)) + 1, sigma, cv2.CV_32F)
    return cv2.sepFilter2D(plane, -1, taps, taps, borderType=cv2.BORDER_REFLECT_101)


def _luma(image: Planes) -> NDArray[np.float32]:
    """[3, S, S] -> [S, S]."""
    found: NDArray[np.float32] = np.tensordot(np.array(LUMA, dtype=np.float32), image, axes=1)
    return found


def _turn_hue(image: Planes, turns: float) -> Planes:
    hsv = cv2.cvtColor(np.ascontiguousarray(image.transpose(1, 2, 0)), cv2.COLOR_RGB2HSV)  # hue in degrees
    hsv[:, :, 0] = np.remainder(hsv[:, :, 0] + np.float32(360 * turns), np.float32(360))
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), np.float32).transpose(2, 0, 1)


def _each(image: Planes, run: Callable[[NDArray[np.float32]], NDArray[Any]]) -> Planes:
    """`run` on every plane: OpenCV has no more than four channels for some of its operations."""
    return np.stack([np.asarray(run(plane), np.float32) for plane in image])
