"""Sounds of a gallery, each a small WAV that a report plays from inside its page.

WAV and not FLAC: the standard library writes it, so a report needs nothing that decoding needs, and every browser plays
it. What would make a page too heavy is cut: of each sound its beginning is heard, and none after the room is spent.
"""

from __future__ import annotations

import io
import wave
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from stopgrad.contracts import DataError

SECONDS = 3.0  # of a sound that can be heard
ROOM = 3_000_000  # bytes of all sounds of a gallery
LOWEST = 3000  # samples a second that browsers play

Heard = tuple[NDArray[np.int16], int]  # waveform [T], mono; samples a second


def wav(samples: NDArray[np.int16], sample_rate: int, seconds: float = SECONDS) -> bytes:
    """The first `seconds` of [T], mono, int16, as a WAV file. Raises DataError for anything else."""
    if samples.dtype != np.int16 or samples.ndim != 1:
        raise DataError(
            f"report: a sound is {samples.dtype} of shape {list(samples.shape)}; needed is int16, [length], mono"
        )
    times = -(-LOWEST // sample_rate)  # 1 of everything that is no seismogram
    heard = samples[: max(1, round(seconds * sample_rate))].repeat(times)
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(times * sample_rate)
        file.writeframes(heard.astype("<i2").tobytes())
    return out.getvalue()


def wavs(sounds: Iterable[tuple[int, Heard | None]], seconds: float = SECONDS, room: int = ROOM) -> dict[int, bytes]:
    """Position -> WAV file, of (position, sound): none of what is silent, and none once there is no room left."""
    out: dict[int, bytes] = {}
    for position, heard in sounds:
        if heard is None:
            continue
        file = wav(*heard, seconds)
        room -= len(file)
        if room < 0:
            break
        out[position] = file
    return out
