"""Sounds: waveforms [T], mono, at one rate; windows [B, T], full scale 1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from stopgrad.contracts import ConfigError, Maker
from stopgrad.data.audio import AudioDataConfig, open_audio
from stopgrad.data.sound import SoundSettings, decode
from stopgrad.data.sources import Data, Progress
from stopgrad.media.medium import Raw, Say
from stopgrad.media.mfcc import log_mel, mfcc_features
from stopgrad.media.sizes import Lines, numbers, shapes, three
from stopgrad.views.audio import AudioViewMaker, read_audio
from stopgrad.views.audio_config import AudioPreprocess, AudioViewsConfig, audio_preprocess

# Colours of a spectrogram, from silence to the loudest: dark blue, violet, orange, pale yellow.
COLOURS = ((0.0, 0.0, 0.1), (0.35, 0.1, 0.45), (0.85, 0.3, 0.3), (0.98, 0.65, 0.2), (1.0, 1.0, 0.8))


class Sounds:
    """See `medium.Medium`."""

    one, many, such_as = "a sound", "sounds", "word.wav"

    def open(self, data: AudioDataConfig, views: AudioViewsConfig, progress: Progress | None = None) -> Data:
        return open_audio(data, views.sample_rate, progress=progress)

    def sizes(self, opened: Data, data: AudioDataConfig, views: AudioViewsConfig) -> tuple[Lines, dict[str, Any]]:
        seconds = shapes(opened)[:, 0] / views.sample_rate  # [N]
        window = views.window / views.sample_rate
        short = int((seconds < window).sum())
        lines = [
            ("length", f"{three(seconds, '{:.2f}')} seconds (least, median, most)"),
            ("together", f"{seconds.sum() / 60:,.1f} minutes, mono, 16 bits at {views.sample_rate:,} Hz"),
            ("windows", f"{window:.2f} seconds; {short:,} sounds are shorter ({views.short})"),
        ]
        return lines, {"seconds_each": numbers(seconds), "sample_rate": views.sample_rate, "window": views.window}

    def settled(self, data: AudioDataConfig, views: AudioViewsConfig, opened: Data, say: Say) -> AudioViewsConfig:
        return views

    def preprocess(self, data: AudioDataConfig, views: AudioViewsConfig) -> AudioPreprocess:
        return audio_preprocess(views)

    def maker(
        self, views: AudioViewsConfig, preprocess: AudioPreprocess, seed: int, device: torch.device, threads: int
    ) -> Maker:
        return AudioViewMaker(views, seed, device)

    def clean(self, samples: Sequence[NDArray[Any]], preprocess: AudioPreprocess, threads: int = 1) -> Tensor:
        return read_audio(samples, preprocess)

    def decode(self, file: bytes, extension: bytes, data: AudioDataConfig, preprocess: AudioPreprocess) -> NDArray[Any]:
        settings = SoundSettings(preprocess.sample_rate, data.min_seconds, data.max_seconds)
        return decode(file, settings, extension)[0]

    def stand_ins(self, count: int, preprocess: AudioPreprocess) -> tuple[Sequence[NDArray[Any]], str]:
        noise = np.random.default_rng(0).integers(-8192, 8192, (count, preprocess.window))
        return list(noise.astype(np.int16)), "noise"

    def raw(self, preprocess: AudioPreprocess) -> Raw:
        return Raw(
            name="mfcc",
            told="MFCC",
            protocol="13 MFCC and their deltas, mean and std over frames, for kNN standardised by the training sounds",
            encode=partial(mfcc_features, sample_rate=preprocess.sample_rate),
        )

    def pictures(self, clean: Tensor, preprocess: AudioPreprocess, side: int) -> Tensor:
        """A spectrogram each: time to the right, frequency (mel) upwards, 60 dB below the loudest is dark."""
        rows = []
        for wave in clean.float().cpu():
            bands = log_mel(wave, preprocess.sample_rate).T.flip(0)[None, None].float()  # [1, 1, M, F]
            shown = F.interpolate(bands, size=(side, side), mode="bilinear", antialias=True)[0, 0]
            rows.append(((shown - shown.max()) / 6 / torch.log(torch.tensor(10.0)) + 1).clamp(0, 1))
        return in_colours(torch.stack(rows))

    def input(self, preprocess: AudioPreprocess) -> tuple[int, int]:
        return 1, preprocess.window

    def wanted(self, data: AudioDataConfig, preprocess: AudioPreprocess) -> AudioDataConfig:
        return data

    def refitted(self, views: AudioViewsConfig, preprocess: AudioPreprocess) -> AudioViewsConfig:
        return replace(views, sample_rate=preprocess.sample_rate, window=preprocess.window, short=preprocess.short)

    def check_fit(self, views: AudioViewsConfig, preprocess: AudioPreprocess) -> None:
        found, needed = (views.sample_rate, views.window), (preprocess.sample_rate, preprocess.window)
        if found != needed:
            raise ConfigError(
                f"evaluation: views.sample_rate and views.window are {found}, the encoder was trained with {needed}; "
                "set both to those"
            )

    def said(self, sample: NDArray[Any]) -> str:
        return ""

    def heard(self, sample: NDArray[Any], preprocess: AudioPreprocess) -> tuple[NDArray[np.int16], int]:
        return sample, preprocess.sample_rate

    def in_words(self, preprocess: AudioPreprocess) -> str:
        return f"the middle {preprocess.window:,} samples at {preprocess.sample_rate:,} Hz, {preprocess.short} if short"


MEDIUM = Sounds()


def in_colours(values: Tensor) -> Tensor:
    """[B, S, S], 0 to 1 -> [B, 3, S, S], 0 to 1, by COLOURS."""
    table = torch.tensor(COLOURS)  # [K, 3]
    place = values * (len(COLOURS) - 1)
    low = place.floor().long().clamp(max=len(COLOURS) - 2)
    share = (place - low).unsqueeze(-1)
    return (table[low] * (1 - share) + table[low + 1] * share).permute(0, 3, 1, 2)
