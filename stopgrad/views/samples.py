"""What the views accept as an image: uint8 or uint16, [H, W, C], with the channels the run was set up for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stopgrad.contracts import DataError

Samples = Sequence[NDArray[Any]] | NDArray[Any]  # B images [H, W, C] of one type; one array where all sizes are equal


def white(dtype: np.dtype[Any]) -> int:
    """The largest value of a pixel: it becomes 1."""
    return 255 if dtype == np.uint8 else 65535


def check(samples: Samples, channels: int) -> NDArray[np.int64]:
    """Sizes (height, width) of the samples, [B, 2]. Raises DataError that names the first one that doesn't fit."""
    if isinstance(samples, np.ndarray) and samples.ndim == 4:
        _check_one(samples.shape[1:], samples.dtype, channels, 0)
        return np.tile(np.array(samples.shape[1:3], dtype=np.int64), (len(samples), 1))
    for place, sample in enumerate(samples):
        _check_one(sample.shape, sample.dtype, channels, place)
        if sample.dtype != samples[0].dtype:
            raise DataError(
                f"views: sample {place} of the batch is {sample.dtype}, the first is {samples[0].dtype}; all need the "
                "same depth: build the store again with data.depth=16, or 8"
            )
    return np.array([sample.shape[:2] for sample in samples], dtype=np.int64).reshape(-1, 2)


def _check_one(shape: tuple[int, ...], dtype: np.dtype[Any], channels: int, place: int) -> None:
    if dtype in (np.uint8, np.uint16) and len(shape) == 3 and shape[2] == channels and min(shape) > 0:
        return
    raise DataError(
        f"views: sample {place} of the batch is {dtype} of shape {list(shape)}; images must be uint8 or uint16, "
        f"[height, width, {channels}]; build the store again with data.channels={channels}"
    )
