"""The views of an image on the CPU: OpenCV on 8-bit pixels, a few calls an image, all outside Python's global lock.

The operations are torchvision's, clamped one by one; only the rounding to 8 bits in between differs (Pillow, which the
papers' code runs, rounds there too). Solarize and normalise are one look-up. Why colour is not one 3x4 matrix an image:
with the hue turned in YIQ instead of HSV the mean error of that operation alone is 4.7/255, up to 30/255 on a
colourful photograph, against 0.15/255 here. Whole views differ from `exact` by 0.4 to 0.6/255 in the mean
(CIFAR-10 at 32 pixels, Imagenette at 64, 128 and 224; all presets).

These pixels have 8 bits and 1 or 3 channels; `wide` does the others.

Shrinking with antialias is torch's, which on 8 bits is Pillow's to a level and takes two thirds of the time of a filter
and an interpolation by OpenCV, a third of Pillow's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from stopgrad.views.config import CropConfig
from stopgrad.views.params import BRIGHTNESS, CONTRAST, HUE, LUMA, SATURATION, Params, blur_radius
from stopgrad.views.samples import Samples

Pixels = NDArray[Any]  # uint8; [H, W, 3], or [H, W] for one channel, as OpenCV has it

_GRAY = np.tile(np.array(LUMA, dtype=np.float32), (3, 1))  # [3, 3]
_EYE = np.eye(3, dtype=np.float32)
# Views worked on together: so many pixel values, and so many views, at most. Few long calls also leave Python's lock to
# the other threads: at 224 px two threads made 2,600 views/s together with 14 views at a time, 1,640 with one.
TALL, MANY = 1 << 21, 128
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
    """Writes the views of `samples` (B images [H, W, C]) into `out` [B, S, S, C], normalised.

    They are worked on many at a time, in one tall image: most of the time of a call on 32x32 pixels is the call.
    """
    step = max(1, min(MANY, TALL // out[0].size))
    for at in range(0, len(out), step):
        part = slice(at, at + step)
        _fill(out[part], samples[part], list(rows(params.take(part))), crop, looks)


def _fill(out: NDArray[np.float32], samples: Samples, chosen: list[Row], crop: CropConfig, looks: Tables) -> None:
    stack = np.empty(out.shape, dtype=np.uint8)  # [B, S, S, C]
    colour = out.shape[3] == 3
    images = list(stack if colour else stack[:, :, :, 0])
    for image, sample, row in zip(images, samples, chosen, strict=True):
        geometry(sample, row, crop.interpolation, image)
    # One hue turn an image at most, so the jitter is what comes before it, the turn of all at once, what comes after.
    where = [row.order.index(HUE) for row in chosen]
    for image, row, place in zip(images, chosen, where):
        jitter(image, row, row.order[:place])
    if colour:
        _turn_hues(stack, chosen)
    for image, row, place in zip(images, chosen, where):
        jitter(image, row, row.order[place + 1 :])
    if colour and (gray := [i for i, row in enumerate(chosen) if row.gray]):
        stack[gray] = cv2.transform(_tall(stack[gray]), _GRAY).reshape(-1, *stack.shape[1:])
    for image, row in zip(images, chosen):
        if row.sigma:
            # cv2.GaussianBlur on 8 bits works in fixed point: three times slower at large sigma and less exact.
            taps = cv2.getGaussianKernel(2 * blur_radius(row.sigma, len(image)) + 1, row.sigma, cv2.CV_32F)
            cv2.sepFilter2D(image, -1, taps, taps, dst=image, borderType=cv2.BORDER_REFLECT_101)
    cv2.LUT(_tall(stack), looks.plain, dst=_tall(out))
    for i, row in enumerate(chosen):
        if row.solarize:
            cv2.LUT(_tall(stack[i : i + 1]), looks.solarized, dst=_tall(out[i : i + 1]))


def _tall(stack: NDArray[Any]) -> NDArray[Any]:
    """[B, S, S, C] -> [B * S, S, C], or [B * S, S] for one channel: many images as one, not copied."""
    count, height, width, channels = stack.shape
    return stack.reshape(count * height, width, channels) if channels > 1 else stack.reshape(count * height, width)


@dataclass(slots=True)
class Row:
    """One image's parameters as Python numbers: read from arrays one by one they would cost more than the pixels."""

    box: list[int]
    hflip: bool
    vflip: bool
    turns: int
    angle: float
    factors: tuple[float, float, float, float]  # brightness, contrast, saturation, hue
    saturate: NDArray[np.float32]  # [3, 3], the saturation as a matrix of the channels
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
    keep = p.saturation.astype(np.float32)[:, None, None]
    saturate = keep * _EYE + (1 - keep) * _GRAY  # [B, 3, 3]
    columns: tuple[NDArray[Any], ...] = (p.box, p.hflip, p.vflip, p.turns, p.angle)
    later: tuple[NDArray[Any], ...] = (p.order, p.gray, p.sigma, p.solarize)
    return map(
        Row,
        *(column.tolist() for column in columns),
        map(tuple, factors.tolist()),
        saturate,
        *(column.tolist() for column in later),
    )


def geometry(sample: Pixels, row: Row, interpolation: str, out: Pixels) -> None:
    """Crop, resize, flip, turn: `sample` [H, W, C] into `out` [S, S, C], or [S, S] for one channel."""
    x, y, w, h = row.box
    cut = sample[y : y + h, x : x + w]
    if out.ndim == 2:
        cut = cut[:, :, 0]
    if not (row.hflip or row.vflip or row.turns or row.angle):
        resize(cut, interpolation, out)
        return
    image = resize(cut, interpolation, np.empty_like(out))
    if row.turns or row.angle:
        image = _turn(image, row)
        np.copyto(out, image)
    else:
        cv2.flip(image, FLIPS[row.hflip, row.vflip], dst=out)


def _turn(image: Pixels, row: Row) -> Pixels:
    if row.hflip or row.vflip:
        image = cv2.flip(image, FLIPS[row.hflip, row.vflip])
    if row.turns:
        image = cv2.rotate(image, TURNS[row.turns])
    if row.angle:
        side = len(image)
        middle = (side - 1) / 2
        matrix = cv2.getRotationMatrix2D((middle, middle), row.angle, 1.0)
        image = cv2.warpAffine(image, matrix, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    return image


def resize(image: Pixels, interpolation: str, out: Pixels) -> Pixels:
    """Antialiased: `image` [h, w, 3] or [h, w] into `out`, of the height and width wanted; returns it."""
    height, width = out.shape[:2]
    if image.shape[:2] == (height, width):
        np.copyto(out, image)
    elif interpolation == "bilinear" and image.shape[0] <= height and image.shape[1] <= width:
        cv2.resize(image, (width, height), dst=out, interpolation=cv2.INTER_LINEAR)  # enlarged: nothing to antialias
    else:
        # The axes are turned by numpy: every call of torch lets go of Python's lock, and another thread takes it.
        # reshape, not None: torch sees that channels are last by the stride of an axis of one
        stack = image.copy().reshape(1, *image.shape[:2], -1)  # a copy is writable, the store is not
        planes = torch.from_numpy(stack.transpose(0, 3, 1, 2))
        resized = F.interpolate(planes, size=(height, width), mode=interpolation, antialias=True).numpy()
        np.copyto(out, resized[0].transpose(1, 2, 0) if image.ndim == 3 else resized[0, 0])
    return out


def jitter(image: Pixels, row: Row, operations: list[int]) -> None:
    """Those of brightness, contrast and saturation that are in `operations`, in that order and in place.

    image: [S, S, 3], or [S, S], on which saturation does nothing.
    """
    if not row.jitter:
        return
    for operation in operations:
        factor = row.factors[operation]
        if operation == BRIGHTNESS:
            cv2.convertScaleAbs(image, dst=image, alpha=factor)
        elif operation == CONTRAST:
            red, green, blue, _ = cv2.mean(image)
            middle = red if image.ndim == 2 else LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue
            cv2.addWeighted(image, factor, image, 0.0, (1 - factor) * middle, dst=image)
        elif operation == SATURATION and image.ndim == 3:
            cv2.transform(image, row.saturate, dst=image)


def _turn_hues(stack: NDArray[np.uint8], chosen: list[Row]) -> None:
    """In 8-bit HSV the circle has 256 steps, so that the sum wraps by itself. stack: [B, S, S, 3], in place."""
    turned = [i for i, row in enumerate(chosen) if row.jitter]
    if not turned:
        return
    steps = np.array([round(chosen[i].factors[HUE] * 256) % 256 for i in turned], dtype=np.uint8)
    every = len(turned) == len(stack)
    images = stack if every else stack[turned]
    hsv = cv2.cvtColor(_tall(images), cv2.COLOR_RGB2HSV_FULL).reshape(images.shape)
    hsv[:, :, :, 0] += steps[:, None, None]
    cv2.cvtColor(_tall(hsv), cv2.COLOR_HSV2RGB_FULL, dst=_tall(images))
    if not every:
        stack[turned] = images
