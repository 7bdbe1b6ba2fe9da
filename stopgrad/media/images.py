"""Images: decoded pixels [H, W, C] of any size; crops [B, C, S, S], normalised."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from stopgrad.contracts import ConfigError, Maker, Preprocess
from stopgrad.data.sources import Data, DataConfig, Progress, open_data
from stopgrad.data.statistics import measure
from stopgrad.media.medium import Raw, Say
from stopgrad.views.config import ViewsConfig
from stopgrad.views.maker import ViewMaker
from stopgrad.views.preprocess import preprocess_batch, preprocess_of

PIXELS_SIDE = 32  # raw pixels are averaged down to this side: 3 * 32 * 32 numbers an image at most


class Images:
    """See `medium.Medium`."""

    def open(self, data: DataConfig, views: ViewsConfig, progress: Progress | None = None) -> Data:
        return open_data(data, views.image_size, progress=progress)

    def settled(self, data: DataConfig, views: ViewsConfig, opened: Data, say: Say) -> ViewsConfig:
        if views.mean:
            return views
        found = measure(opened.train, data.channels)
        for note in found.notes:
            say(note)
        say(f"views.mean and views.std measured on {found.images:,} training images")
        return replace(views, mean=found.mean, std=found.std)

    def preprocess(self, data: DataConfig, views: ViewsConfig) -> Preprocess:
        return preprocess_of(views, data.channels, data.depth)

    def maker(self, views: ViewsConfig, preprocess: Preprocess, seed: int, device: torch.device, threads: int) -> Maker:
        return ViewMaker(views, preprocess.channels, seed, device, threads)

    def clean(self, samples: Sequence[NDArray[Any]], preprocess: Preprocess, threads: int = 1) -> Tensor:
        return preprocess_batch(samples, preprocess, threads)

    def raw(self, preprocess: Preprocess) -> Raw:
        side = pixels_side(preprocess.channels, preprocess.image_size)
        return Raw(
            name="pixels",
            told="raw pixels",
            protocol=f"raw pixels at {side} x {side}, for kNN standardised by the training images",
            encode=as_pixels,
            pixels=(preprocess.channels, side, side),
        )

    def pictures(self, clean: Tensor, preprocess: Preprocess, side: int) -> Tensor:
        mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (preprocess.mean, preprocess.std))
        seen = (clean.float() * std + mean).contiguous()
        if clean.shape[2] <= side:  # pixels stay pixels
            return F.interpolate(seen, size=side, mode="nearest")
        return F.interpolate(seen, size=side, mode="bilinear", antialias=True)

    def input(self, preprocess: Preprocess) -> tuple[int, int]:
        return preprocess.channels, preprocess.image_size

    def refitted(self, views: ViewsConfig, preprocess: Preprocess) -> ViewsConfig:
        return replace(views, image_size=preprocess.image_size, mean=preprocess.mean, std=preprocess.std)

    def check_fit(self, views: ViewsConfig, preprocess: Preprocess) -> None:
        found, needed = views.statistics(preprocess.channels), (preprocess.mean, preprocess.std)
        if not np.allclose(found, needed):
            raise ConfigError(
                f"evaluation: views.mean and views.std are {found}, the encoder was trained with {needed}; "
                "set views.mean and views.std to those"
            )

    def in_words(self, preprocess: Preprocess) -> str:
        return f"test transform {preprocess.image_size} px, crop fraction {preprocess.crop_fraction:g}"


MEDIUM = Images()


def as_pixels(images: Tensor) -> Tensor:
    """[B, C, S, S] -> [B, D]: the pixels themselves, averaged down so that D <= 3 * 32 * 32."""
    side = pixels_side(images.shape[1], images.shape[2])
    small = F.adaptive_avg_pool2d(images.float(), side) if side < max(images.shape[2:]) else images.float()
    return small.flatten(1).cpu()


def pixels_side(channels: int, size: int) -> int:
    return max(1, min(size, PIXELS_SIDE, math.isqrt(3 * PIXELS_SIDE**2 // channels)))
