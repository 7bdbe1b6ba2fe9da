"""Windows of sounds: [T] of any length, int16 as they are stored, become [B, window], float32, full scale 1.

Where a window begins depends on (seed, epoch, index of the sound, view) alone, so a sound has the same view in any
batch, thread or process. Only the samples of the window are read: a store that is mapped may hold hours a sound.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stopgrad import rng
from stopgrad.contracts import Batch, DataError, Views
from stopgrad.views.audio_config import AudioPreprocess, AudioViewsConfig
from stopgrad.views.maker import Buffers

_PLACE, _GAIN, _DRAWS = range(3)  # columns of the draws


class AudioViewMaker:
    """Views of one batch after another. Holds no state but arrays it uses again.

    seed: of the run. It has no threads: 64 windows of 20,480 samples are a few milliseconds.
    """

    def __init__(self, config: AudioViewsConfig, seed: int, device: torch.device) -> None:
        self.config, self.seed, self.device = config, seed, device
        self.buffers = Buffers()

    def __call__(self, batch: Batch) -> Views:
        """`windows` tensors [B, window], float32, on the device. Raises DataError for samples that are no sounds."""
        config = self.config
        lengths = _lengths(batch.samples)
        crops = []
        for view in range(config.windows):
            begins, factors = draw(config, lengths, self.seed, batch.epoch, batch.index, view)
            out = self.buffers.take((len(lengths), config.window))
            for row, sound, begin in zip(out, batch.samples, begins.tolist(), strict=True):
                fill(row, sound, begin, config.short)
            if config.gain:
                out *= factors[:, None]
            crops.append(torch.from_numpy(out).to(self.device))  # [B, window]
        index = torch.from_numpy(np.array(batch.index, dtype=np.int64))
        return Views(tuple(crops), index.to(self.device, non_blocking=True))

    def close(self) -> None:
        """Nothing is held that has an end."""


def draw(
    config: AudioViewsConfig, lengths: NDArray[np.int64], seed: int, epoch: int, index: NDArray[np.int64], view: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """View number `view` of the sounds `index` [B], of `lengths` [B]: where each window begins, [B], and its factor.

    A window begins at a sample of the sound; of a padded one that is shorter, before it: at 0 or below.
    """
    u = rng.uniform(rng.VIEWS, seed, epoch, index, _DRAWS, view)  # [B, 2]
    low = np.minimum(0, lengths - config.window)
    high = np.maximum(0, lengths - config.window)
    if config.short == "repeat":
        low, high = np.zeros_like(low), np.where(low < 0, lengths - 1, high)
    begins = low + (u[:, _PLACE] * (high - low + 1)).astype(np.int64)
    decibels = config.gain * (2 * u[:, _GAIN] - 1)
    return begins, (10.0 ** (decibels / 20)).astype(np.float32)


def fill(out: NDArray[np.float32], sound: NDArray[Any], begin: int, short: str) -> None:
    """out [W] = the window of `sound` [T] that begins at `begin`, full scale 1; what lies outside it by `short`."""
    scale = np.float32(1 / 32768) if sound.dtype == np.int16 else np.float32(1)
    if short == "repeat" and len(sound) < len(out):
        turned = np.roll(sound, -begin)
        once = np.multiply(turned, scale, dtype=np.float32)
        out[:] = np.resize(once, len(out))
        return
    first, last = max(0, begin), min(len(sound), begin + len(out))
    left = first - begin
    right = left + last - first
    out[:left] = 0
    np.multiply(sound[first:last], scale, out=out[left:right])
    out[right:] = 0


def read_audio(samples: Sequence[NDArray[Any]], preprocess: AudioPreprocess) -> Tensor:
    """B sounds [T] of any length, at the rate of `preprocess` -> [B, window], float32: what an encoder takes.

    The middle of each, see `AudioPreprocess`. int16, or floats with a full scale of 1. Raises DataError for others.
    """
    lengths = _lengths(samples)
    out = np.empty((len(lengths), preprocess.window), dtype=np.float32)
    for row, sound in zip(out, samples):
        spare = len(sound) - preprocess.window
        repeated = spare < 0 and preprocess.short == "repeat"
        fill(row, sound, 0 if repeated else spare // 2, preprocess.short)
    return torch.from_numpy(out)


def _lengths(samples: Sequence[NDArray[Any]]) -> NDArray[np.int64]:
    """[B]. Raises DataError that names the first sample that is no sound."""
    for place, sample in enumerate(samples):
        if sample.ndim != 1 or not len(sample) or sample.dtype not in (np.int16, np.float32, np.float64):
            raise DataError(
                f"views: sample {place} of the batch is {sample.dtype} of shape {list(sample.shape)}; sounds must be "
                "int16 or float, [length], mono; open them with data.kind=audio"
            )
    return np.array([len(sample) for sample in samples], dtype=np.int64)
