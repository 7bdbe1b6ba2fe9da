"""The transform without chance: what evaluation, export and a finished encoder see.

Shorter side resized (antialiased bilinear, Pillow's), centre square cut, normalised: torchvision's
Resize, CenterCrop, Normalize.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from stopgrad.contracts import ConfigError, Preprocess
from stopgrad.views.config import ViewsConfig
from stopgrad.views.samples import check, white

# The papers cut 224 from 256; at small sizes everybody takes the whole image.
CROP_FRACTION, WHOLE_UP_TO = 0.875, 96


def preprocess_of(
    config: ViewsConfig, channels: int, depth: Literal[8, 16] = 8, sensors: tuple[str, ...] = ()
) -> Preprocess:
    """The test transform that belongs to `config`. Above 96 pixels the centre 87.5 % is cut, else the whole square."""
    mean, std = config.statistics(channels)
    fraction = 1.0 if config.image_size <= WHOLE_UP_TO else CROP_FRACTION
    return Preprocess(
        image_size=config.image_size,
        channels=channels,
        crop_fraction=fraction,
        mean=mean,
        std=std,
        depth=depth,
        sensors=sensors,
    )


def preprocess_batch(samples: Sequence[NDArray[Any]], preprocess: Preprocess, threads: int = 1) -> Tensor:
    """B images [H, W, C], uint8 or uint16, of any size -> [B, C, S, S], float32, normalised, channels last in memory.

    Raises DataError where an image has another number of channels, ConfigError where `preprocess` contradicts itself.
    """
    channels, side = preprocess.channels, preprocess.image_size
    if not len(preprocess.mean) == len(preprocess.std) == channels:
        raise ConfigError(
            f"preprocess: mean and std need {channels} values each, got {preprocess.mean}, {preprocess.std}"
        )
    check(samples, channels)
    dtype = samples[0].dtype if len(samples) else np.dtype(np.uint8)
    # 8 bits are rounded to 8 bits when they are resized, as torchvision on Pillow's does; 16 bits are not rounded
    pixels = np.empty((len(samples), side, side, channels), dtype=np.uint8 if dtype == np.uint8 else np.float32)

    def fill(start: int, stop: int) -> None:
        for i in range(start, stop):
            pixels[i] = centre(samples[i], preprocess)

    step = -(-len(samples) // max(1, threads)) or 1
    starts = range(0, len(samples), step)
    if len(starts) <= 1:
        fill(0, len(samples))
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(lambda start: fill(start, min(start + step, len(samples))), starts))
    x = torch.from_numpy(pixels).float().div_(white(dtype))  # [B, S, S, C]
    return x.sub_(torch.tensor(preprocess.mean)).div_(torch.tensor(preprocess.std)).permute(0, 3, 1, 2)  # [B, C, S, S]


def centre(sample: NDArray[Any], preprocess: Preprocess) -> NDArray[Any]:
    """[H, W, C] -> [S, S, C]: shorter side to S / crop_fraction, then the middle. uint16 may become float32."""
    side = preprocess.image_size
    short = max(side, round(side / preprocess.crop_fraction))
    height, width = sample.shape[:2]
    if min(height, width) != short:
        # As torchvision: the longer side is cut to a whole pixel, not rounded.
        height, width = (
            (short, int(short * width / height)) if height <= width else (int(short * height / width), short)
        )
        sample = _resized(sample, height, width)
    top, left = round((height - side) / 2), round((width - side) / 2)
    return sample[top : top + side, left : left + side]


def _resized(sample: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    """[h, w, C] -> [height, width, C], antialiased bilinear: Pillow's, of which gray and RGB can be done at once."""

    def one(pixels: NDArray[Any]) -> NDArray[Any]:
        flat = np.ascontiguousarray(pixels)
        return np.asarray(Image.fromarray(flat).resize((width, height), Image.Resampling.BILINEAR))

    if sample.dtype == np.uint8 and sample.shape[2] == 3:
        return one(sample)
    planes = sample if sample.dtype == np.uint8 else sample.astype(np.float32)
    return np.stack([one(planes[:, :, band]) for band in range(sample.shape[2])], axis=2)
