"""A folder, archive or list of sounds, decoded once into the packed store: [T], int16, mono, at one rate.

What a sound file is, and how it is decoded, `sound` says; layout, bad files, the split and the store are those of
images (`from_listing`).
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from stopgrad.contracts import ConfigError
from stopgrad.data.attributes import check_pattern, read_attributes
from stopgrad.data.sound import NOTES, SOUNDS, SoundSettings, decode
from stopgrad.data.sources import Data, Progress, list_source
from stopgrad.views.audio_config import check_rate

if TYPE_CHECKING:
    from stopgrad.data.from_listing import Reader


@dataclass(frozen=True, kw_only=True, slots=True)
class AudioDataConfig:
    """Which sounds. Their sample rate is the one of the views."""

    kind: Literal["audio"] = "audio"
    source: str = ""  # a folder, an archive, or a list of paths; to be named before the data is opened
    limit: int = 0  # training sounds to use (0: all), chosen by content
    min_seconds: float = 0.02  # a shorter sound is bad
    max_seconds: float = 1800.0  # a longer sound is bad, known from its header before it is decoded
    max_megabytes: float = 400.0  # a larger file is bad; a file that is decoded is held in memory
    max_bad_fraction: float = 0.05  # of all sound files; a run stops above it
    pattern: str = ""  # regular expression; its named groups are attributes (`attributes`)
    table: str = ""  # CSV file: file, attribute, attribute, ...
    group: str = ""  # the attribute that says which sounds are alike, as their speaker; for cpc's same_group alone

    def __post_init__(self) -> None:
        if self.kind != "audio":
            raise ConfigError(f"data.kind: must be audio here, got {self.kind!r}")
        if self.limit < 0:
            raise ConfigError(f"data.limit: must be 0 (all sounds) or more, got {self.limit}")
        if not 0 < self.min_seconds <= self.max_seconds < math.inf:
            raise ConfigError(
                "data.min_seconds and data.max_seconds: must be 0 < min_seconds <= max_seconds, got "
                f"{self.min_seconds} and {self.max_seconds}; the defaults are 0.02 and 1800"
            )
        if not 0 < self.max_megabytes < math.inf:
            raise ConfigError(
                f"data.max_megabytes: must be a number above 0, got {self.max_megabytes}; the default is 400"
            )
        if not 0 <= self.max_bad_fraction <= 1:
            raise ConfigError(
                f"data.max_bad_fraction: must be a fraction from 0 to 1, got {self.max_bad_fraction}; "
                "the default is 0.05"
            )
        if self.pattern:
            check_pattern(self.pattern)


def open_audio(config: AudioDataConfig, sample_rate: int, *, progress: Progress | None = None) -> Data:
    """Opens the source, after decoding it into the cache where that was not done before.

    sample_rate: of the samples, Hz.  progress: called with (done, total) sounds while the store is built.
    Raises what `sources.open_data` raises, and ConfigError where sounds are to be decoded without soundfile.
    """
    if not config.source:
        raise ConfigError("data.source: empty; needed is a folder of sounds: type --data FOLDER")
    check_rate(sample_rate)
    from stopgrad.data.from_listing import open_read  # brings OpenCV and Pillow, which settings do without

    with contextlib.closing(list_source(config.source, SOUNDS)) as listing:
        data = open_read(listing, sound_reader(config, sample_rate), config.limit, config.max_bad_fraction, progress)
    found, notes = read_attributes(data.train, data.test, config.pattern, config.table)
    return replace(data, attributes=found, notes=(*data.notes, *notes))


def sound_reader(config: AudioDataConfig, sample_rate: int) -> Reader:
    """Files of sounds: rows [T]."""
    from stopgrad.data.from_listing import Reader

    settings = SoundSettings(sample_rate, config.min_seconds, config.max_seconds)
    return Reader(
        wanted=SOUNDS,
        made_by="libsndfile",
        settings=settings,
        channels=0,
        dtype=np.int16,
        largest=int(config.max_megabytes * 1e6),
        too_large=f"more than {config.max_megabytes:g} MB (data.max_megabytes)",
        notes=NOTES,
        dull="silent",
        decode=lambda data, extension: decode(data, settings, extension),
    )
