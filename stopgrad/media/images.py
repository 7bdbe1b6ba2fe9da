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
from stopgrad.data import scenes
from stopgrad.data.decode import BadImageError, DecodeSettings, decode
from stopgrad.data.sources import Data, DataConfig, Progress, open_data
from stopgrad.data.statistics import measure
from stopgrad.media.medium import Raw, Say
from stopgrad.media.sizes import Lines, numbers, shapes, three
from stopgrad.views.config import ViewsConfig
from stopgrad.views.maker import ViewMaker
from stopgrad.views.preprocess import preprocess_batch, preprocess_of
from stopgrad.views.sensors import described, geometric, normals_at, sensors_of

PIXELS_SIDE = 32  # raw pixels are averaged down to this side: 3 * 32 * 32 numbers an image at most


class Images:
    """See `medium.Medium`."""

    one, many, such_as = "an image", "images", "photo.jpg"

    def open(self, data: DataConfig, views: ViewsConfig, progress: Progress | None = None) -> Data:
        return open_data(data, views.image_size, progress=progress)

    def sizes(self, opened: Data, data: DataConfig, views: ViewsConfig) -> tuple[Lines, dict[str, Any]]:
        found = shapes(opened)  # [N, 2]
        short, long = found.min(axis=1), found.max(axis=1)
        aspect = found[:, 1] / found[:, 0]
        bounded = int((long == data.max_side).sum())
        lines = [
            ("shorter side", f"{three(short)} pixels (least, median, most; as stored)"),
            ("longer side", f"{three(long)} pixels"),
            ("width / height", three(aspect, "{:.2f}")),
            ("channels", f"{data.channels} of {data.depth} bits"),
        ]
        named = [f"{sensor.name} {sensor.channels}" for sensor in data.scene_sensors()]
        if named:
            lines.append(
                ("sensors", f"{', '.join(named)} channels, of one image each; stopgrad views draws them apart")
            )
        if bounded and data.max_side > views.image_size:
            lines.append(("", f"{bounded:,} are stored with a longer side of {data.max_side} (data.max_side)"))
        return lines, {
            "shorter_side": numbers(short),
            "longer_side": numbers(long),
            "aspect": numbers(aspect),
            "channels": data.channels,
            "depth": data.depth,
            "largest_stored": data.max_side,
            **({"sensors": named} if named else {}),
        }

    def settled(self, data: DataConfig, views: ViewsConfig, opened: Data, say: Say) -> ViewsConfig:
        if views.mean:
            return views
        found = measure(opened.train, data.channels)
        for note in found.notes:
            say(note)
        say(f"views.mean and views.std measured on {found.images:,} training images")
        return replace(views, mean=found.mean, std=found.std)

    def preprocess(self, data: DataConfig, views: ViewsConfig) -> Preprocess:
        return preprocess_of(views, data.channels, data.depth, described(data.scene_sensors()))

    def maker(self, views: ViewsConfig, preprocess: Preprocess, seed: int, device: torch.device, threads: int) -> Maker:
        normals = normals_at(sensors_of(preprocess))
        return ViewMaker(views, preprocess.channels, seed, device, threads, normals)

    def clean(self, samples: Sequence[NDArray[Any]], preprocess: Preprocess, threads: int = 1) -> Tensor:
        return preprocess_batch(samples, preprocess, threads)

    def decode(self, file: bytes, extension: bytes, data: DataConfig, preprocess: Preprocess) -> NDArray[Any]:
        if preprocess.sensors:
            raise BadImageError(
                f"one file, and this encoder takes several of a scene ({', '.join(preprocess.sensors)})"
            )
        settings = DecodeSettings(
            channels=data.channels,
            max_side=data.max_side,
            min_side=1,
            max_megapixels=data.max_megapixels,
            depth=data.depth,
        )
        return decode(file, settings, extension).pixels

    def stand_ins(self, count: int, preprocess: Preprocess) -> tuple[Sequence[NDArray[Any]], str]:
        size = min(max(preprocess.image_size, 32), 256)
        rgb, _ = scenes.render_rgb(scenes.TEST_SEED, np.arange(count, dtype=np.int64), size)  # [count, S, S, 3]
        images: NDArray[Any] = rgb[..., np.arange(preprocess.channels) % 3]
        return list(images if preprocess.depth == 8 else images.astype(np.uint16) * 257), "the embedded scenes"

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

    def wanted(self, data: DataConfig, preprocess: Preprocess) -> DataConfig:
        sensors = preprocess.sensors or data.sensors
        return replace(data, channels=preprocess.channels, depth=preprocess.depth, sensors=sensors)

    def refitted(self, views: ViewsConfig, preprocess: Preprocess) -> ViewsConfig:
        crops = tuple(map(geometric, views.crops)) if preprocess.sensors else views.crops
        return replace(views, image_size=preprocess.image_size, mean=preprocess.mean, std=preprocess.std, crops=crops)

    def check_fit(self, views: ViewsConfig, preprocess: Preprocess) -> None:
        found, needed = views.statistics(preprocess.channels), (preprocess.mean, preprocess.std)
        if not np.allclose(found, needed):
            raise ConfigError(
                f"evaluation: views.mean and views.std are {found}, the encoder was trained with {needed}; "
                "set views.mean and views.std to those"
            )

    def said(self, sample: NDArray[Any]) -> str:
        return ""

    def heard(self, sample: NDArray[Any], preprocess: Preprocess) -> None:
        return None

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
