"""Settings of the views of sounds, and the transform without chance that belongs to them. No torch here.

Defaults are CPC's: windows of 20,480 samples at 16 kHz, 1.28 s (arXiv:1807.03748, section 3.1).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from stopgrad.contracts import ConfigError, did_you_mean

LOWEST_RATE, HIGHEST_RATE = 1_000, 192_000  # Hz, of a window
SHORTEST, LONGEST = 16, 1 << 24  # samples of a window
MOST_WINDOWS = 64
LOUDEST = 60.0  # dB
SHORT = ("pad", "repeat")


@dataclass(frozen=True, kw_only=True, slots=True)
class AudioViewsConfig:
    """What one sound is turned into: windows of it, each drawn by itself."""

    kind: Literal["audio"] = "audio"  # of samples; media.KINDS has them all
    sample_rate: int = 16_000  # Hz, that sounds are stored at
    window: int = 20_480  # samples of a view
    windows: int = 1  # views of a sound: CPC takes one, methods that compare views two
    # A sound that is shorter than the window stands at a random place among zeros, or is repeated from a random point.
    short: Literal["pad", "repeat"] = "pad"
    gain: float = 0.0  # dB: a view is made louder or softer by up to this; it may pass full scale then

    def __post_init__(self) -> None:
        if self.kind != "audio":
            raise ConfigError(f"views.kind: must be audio here, got {self.kind!r}")
        check_rate(self.sample_rate)
        if not SHORTEST <= self.window <= LONGEST:
            raise ConfigError(
                f"views.window must be {SHORTEST} to {LONGEST:,} samples, got {self.window:,}; "
                f"1.28 s at {self.sample_rate} Hz are {round(1.28 * self.sample_rate):,}"
            )
        if not 1 <= self.windows <= MOST_WINDOWS:
            raise ConfigError(
                f"views.windows must be 1 to {MOST_WINDOWS}, got {self.windows}; 1 is for CPC, 2 for methods that "
                "compare views"
            )
        if self.short not in SHORT:
            raise ConfigError(f"views.short must be pad or repeat, got {self.short!r}; use pad")
        if not 0 <= self.gain <= LOUDEST:
            raise ConfigError(f"views.gain must be 0 to {LOUDEST:g} dB, got {self.gain}; use 0, or 6 for a factor of 2")

    @property
    def sides(self) -> tuple[int, ...]:
        """Samples of every view."""
        return (self.window,) * self.windows

    def watched(self) -> AudioViewsConfig:
        """What a run is watched with: two views of each sound."""
        return dataclasses.replace(self, windows=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioPreprocess:
    """What turns a sound into the backbone's input when nothing is random, kept with the weights.

    At sample_rate, mono, full scale is 1: the middle window of a sound; a shorter one stands in the middle among
    zeros, or is repeated from its beginning.
    """

    kind: ClassVar[str] = "audio"
    depth: ClassVar[int] = 8  # bits of the pictures that stand for sounds

    sample_rate: int  # Hz
    window: int  # samples
    short: Literal["pad", "repeat"] = "pad"

    def as_settings(self) -> tuple[str, ...]:
        """What a recipe must say to read sounds this way, as a.b=c."""
        return (f"views.sample_rate={self.sample_rate}", f"views.window={self.window}", f"views.short={self.short}")

    def as_dict(self) -> dict[str, Any]:
        """Plain values, with the kind."""
        return {"kind": self.kind, **dataclasses.asdict(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> AudioPreprocess:
        """What `as_dict` wrote, with the kind or without.

        Raises ConfigError for anything else: it may be a stranger's.
        """
        given = dict(values)
        if given.pop("kind", cls.kind) != cls.kind:
            raise ConfigError(f"preprocess: kind must be {cls.kind}, got {values['kind']!r}")
        names = [one.name for one in dataclasses.fields(cls)]
        for name in given:
            if name not in names:
                raise ConfigError(f"preprocess: {str(name)[:40]!r} is unknown{did_you_mean(str(name), names)}")
        for name, low, high in (("sample_rate", LOWEST_RATE, HIGHEST_RATE), ("window", SHORTEST, LONGEST)):
            value = given.get(name)
            if type(value) is not int or not low <= value <= high:
                raise ConfigError(f"preprocess: {name} must be {low} to {high}, got {value!r}")
        found = cls(**given)
        if found.short not in SHORT:
            raise ConfigError(f"preprocess: short must be pad or repeat, got {found.short!r}")
        return found


def audio_preprocess(config: AudioViewsConfig) -> AudioPreprocess:
    """The transform without chance that belongs to `config`."""
    return AudioPreprocess(sample_rate=config.sample_rate, window=config.window, short=config.short)


def check_rate(sample_rate: int) -> None:
    """Raises ConfigError for a rate that nothing is resampled to."""
    if not LOWEST_RATE <= sample_rate <= HIGHEST_RATE:
        raise ConfigError(
            f"views.sample_rate must be {LOWEST_RATE:,} to {HIGHEST_RATE:,} Hz, got {sample_rate:,}; "
            "speech has 8000 or 16000"
        )
