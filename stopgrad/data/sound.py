"""Bytes of one sound file -> its samples: mono, at the wanted rate, 16 bits; or the reason why not.

WAV, FLAC, MP3 and OGG (Vorbis, Opus) are told by their first bytes and decoded by libsndfile (package soundfile), which
is given nothing else: its readers of rarer formats are where its security holes were. Rate and length are checked from
the header before anything is decoded.

Channels are averaged. Another rate is changed by a polyphase filter (scipy, which scikit-learn brings: no further
package), flat within 0.1 % up to 0.8 of the lower Nyquist frequency, 60 dB down from 1.025 times that frequency on.
16-bit mono at the wanted rate comes through to the bit. Samples beyond full scale, as floats and MP3s have, scale the
whole file to its peak; nothing else is normalised.

A file that ends early is bad where it says so: a WAV by its data chunk, FLAC by its number of samples, OGG by its last
page, MP3 by its Xing header. An MP3 of one bit rate without such a header does not say how long it should be: what is
there is used. With varying bit rates libsndfile would guess its length and leave out the rest: it is bad.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stopgrad.contracts import ConfigError
from stopgrad.data.folder import Kind
from stopgrad.data.listing import UnreadableError

FORMAT_OF = {
    b".wav": "WAV",
    b".wave": "WAV",
    b".flac": "FLAC",
    b".mp3": "MP3",
    b".ogg": "OGG",
    b".oga": "OGG",
    b".opus": "OGG",
}
NEEDS = "data: sounds are decoded by the package soundfile; type: pip install 'stopgrad[audio]'"
LOWEST_RATE, HIGHEST_RATE = 1_000, 768_000  # Hz, of a file
FULL_SCALE = 32768  # a stored sample of this would be 1.0
UNKNOWN = 0x7FFF0000  # bytes of a WAV's samples, from where on the number only says that it was written to a pipe
BLOCK = 1 << 20  # numbers decoded at a time
MP3_SLACK = 4 * 1152  # samples: an MP3's header leaves out, or counts, frames its coder only filled up with

# What is told once per source, with the number of sounds: key -> sentence after the count.
NOTES = {
    "channels": "had several channels, averaged",
    "extension": "have an extension of another format; read by content",
    "over": "went beyond full scale, scaled to their peak",
    "rate": "had another sample rate, resampled",
    "silent": "are silent",
}

Wave = NDArray[np.float32]  # [T], full scale is 1


class BadSoundError(UnreadableError):
    """A sound that can't be used; the message is the reason for bad_files.csv."""


@dataclass(frozen=True, slots=True)
class SoundSettings:
    """What every sound is brought to. As text it is part of the name of a store."""

    sample_rate: int  # Hz
    min_seconds: float
    max_seconds: float


def sniff(head: bytes) -> str | None:
    """The format the first bytes speak for: a value of FORMAT_OF, or None."""
    if head[:4] in (b"RIFF", b"RF64") and head[8:12] == b"WAVE":
        return "WAV"
    if head.startswith(b"fLaC"):
        return "FLAC"
    if head.startswith(b"OggS"):
        return "OGG"
    if head.startswith(b"ID3") or _is_mp3_frame(head[:3]):
        return "MP3"
    return None


def _is_mp3_frame(head: bytes) -> bool:
    """Eleven bits of one, then a version, layer III, a bit rate and a sample rate that exist."""
    if len(head) < 3 or head[0] != 0xFF or head[1] & 0xE6 != 0xE2 or head[1] & 0x18 == 0x08:
        return False
    return head[2] >> 4 not in (0, 15) and head[2] & 0x0C != 0x0C


SOUNDS = Kind("sound", "sounds", FORMAT_OF, sniff)


def library() -> Any:
    """The module soundfile. Raises ConfigError where it, or the libsndfile it brings, is not there."""
    try:
        import soundfile
    except (ModuleNotFoundError, OSError) as error:
        raise ConfigError(NEEDS) from error
    return soundfile


def decode(data: bytes, settings: SoundSettings, extension: bytes = b"") -> tuple[NDArray[np.int16], tuple[str, ...]]:
    """The whole of a file -> its samples [T] and keys of NOTES.

    Raises BadSoundError with the reason, never anything else for bad bytes; ConfigError without soundfile.
    """
    kind = sniff(data)
    if kind is None:
        raise BadSoundError(_what_else(data))
    notes = ["extension"] if FORMAT_OF.get(extension, kind) != kind else []
    if reason := _cut(data, kind):
        raise BadSoundError(reason)
    reader = library()
    try:
        with reader.SoundFile(io.BytesIO(data)) as file:
            rate = file.samplerate
            if kind == "MP3" and file.frames + MP3_SLACK < _mp3_samples(data):
                raise BadSoundError("MP3 of varying bit rates that does not say how long it is; encode it again")
            wave = _mono(file, kind, settings, notes)
    except BadSoundError:
        raise
    except MemoryError:
        raise BadSoundError("too large for the memory of this machine") from None
    except Exception as error:  # soundfile raises its own, and whatever the bytes lead it into
        raise BadSoundError(f"corrupt {kind} ({_first_line(error)})") from error
    if not np.isfinite(wave).all():
        raise BadSoundError("holds samples that are not finite (NaN or infinite)")
    peak = float(np.abs(wave).max())
    if peak > 1:
        notes.append("over")
        wave /= np.float32(peak)
    if rate != settings.sample_rate:
        notes.append("rate")
        wave = resampled(wave, rate, settings.sample_rate)
    samples = np.clip(np.rint(wave * FULL_SCALE), -FULL_SCALE, FULL_SCALE - 1).astype(np.int16)
    if samples.min() == samples.max():
        notes.append("silent")
    return samples, tuple(notes)


def _what_else(data: bytes) -> str:
    from stopgrad.data.decode import looks_like  # brings OpenCV and Pillow, which settings do without

    if not data:
        return "empty file"
    looks = (
        ("AIFF", data[:4] == b"FORM" and data[8:11] == b"AIF"),
        ("NIST SPHERE", data[:7] == b"NIST_1A"),
        ("MP4 or M4A", data[4:8] == b"ftyp"),
        ("WMA", data[:4] == b"\x30\x26\xb2\x75"),
        ("AMR", data[:5] == b"#!AMR"),
        ("MIDI", data[:4] == b"MThd"),
    )
    found = next((name for name, fits in looks if fits), "") or looks_like(data)
    return f"not a WAV, FLAC, MP3 or OGG ({f'looks like {found}' if found else 'no known signature'})"


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


# --- a file that ends early -------------------------------------------------------------------------------------------


def _cut(data: bytes, kind: str) -> str:
    """Why a file is not whole, as far as its container tells without decoding; "" where nothing is missing."""
    if kind == "WAV" and (share := _wav_share(data)) < 1:
        return f"truncated WAV ({100 * share:.0f}% of its samples are there)"
    if kind == "OGG" and not _ogg_is_ended(data):
        return "truncated OGG (its last page is missing)"
    return ""


def _wav_share(data: bytes) -> float:
    """How much of its declared samples a WAV holds; 1 where it declares none, as one written to a pipe."""
    at = 12
    while at + 8 <= len(data):
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        if data[at : at + 4] == b"data":
            return 1.0 if size == 0 or size >= UNKNOWN else min(1.0, (len(data) - at - 8) / size)
        at += 8 + size + size % 2  # chunks begin at even places
    return 1.0  # no samples at all: libsndfile says so


def _ogg_is_ended(data: bytes) -> bool:
    at = data.rfind(b"OggS")
    page = data[at : at + 27 + 255]
    if len(page) < 27 or not page[5] & 4:  # not the last of its stream
        return False
    return len(data) >= at + 27 + page[26] + sum(page[27 : 27 + page[26]])


def _mp3_samples(data: bytes) -> int:
    """Samples of the MP3 frames that follow one another from the first, by their headers."""
    at = 0
    if data.startswith(b"ID3"):
        at = 10 + sum((byte & 127) << (21 - 7 * i) for i, byte in enumerate(data[6:10]))
    samples = 0
    while _is_mp3_frame(head := data[at : at + 3]):
        version = head[1] >> 3 & 3  # 3: MPEG 1, else its half and quarter rates
        rate = _MP3_RATES[head[2] >> 2 & 3] >> (3 - version if version else 2)
        bits = (_MP3_BITS if version == 3 else _MP3_HALF_BITS)[head[2] >> 4]
        at += (144_000 if version == 3 else 72_000) * bits // rate + (head[2] >> 1 & 1)
        samples += 1152 if version == 3 else 576
    return samples


_MP3_RATES = (44_100, 48_000, 32_000)
_MP3_BITS = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)  # thousands a second
_MP3_HALF_BITS = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)


# --- samples ----------------------------------------------------------------------------------------------------------


def _mono(file: Any, kind: str, settings: SoundSettings, notes: list[str]) -> Wave:
    """All of an open file, channels averaged, [T]."""
    rate, declared = int(file.samplerate), int(file.frames)
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise BadSoundError(f"sample rate of {rate:,} Hz; read are {LOWEST_RATE:,} to {HIGHEST_RATE:,} Hz")
    if declared >= 1 << 62:  # libsndfile can't be read to such an end
        raise BadSoundError(f"{kind} that does not say how long it is, as one written to a pipe; encode it again")
    if declared > settings.max_seconds * rate:
        raise BadSoundError(f"{declared / rate:,.1f} s > limit {settings.max_seconds:g} s (data.max_seconds)")
    if file.channels > 1:
        notes.append("channels")
    parts: list[Wave] = []
    found = 0
    while len(block := file.read(BLOCK // file.channels, dtype="float32", always_2d=True)):  # [n, channels]
        parts.append(block[:, 0] if file.channels == 1 else block.mean(axis=1))
        found += len(block)
    if found < declared - (MP3_SLACK if kind == "MP3" else 0):
        raise BadSoundError(f"truncated {kind} ({100 * found / declared:.0f}% of its samples are there)")
    if not found:
        raise BadSoundError("no samples")
    if found < settings.min_seconds * rate:
        raise BadSoundError(f"{found / rate:.3g} s, shorter than {settings.min_seconds:g} s (data.min_seconds)")
    return np.concatenate(parts)


def resampled(wave: Wave, rate: int, wanted: int) -> Wave:
    """[T] at `rate` -> [ceil(T * wanted / rate)] at `wanted`, both Hz."""
    from scipy.signal import resample_poly

    up, down = _ratio(rate, wanted)
    return np.asarray(resample_poly(wave, up, down, window=_filter(max(up, down))), np.float32)


def _ratio(rate: int, wanted: int) -> tuple[int, int]:
    """wanted / rate in whole numbers up to 5,000, which a filter is long: exact for all rates in use, else to 1e-4."""
    if wanted > rate:
        down, up = _ratio(wanted, rate)
        return up, down
    ratio = Fraction(wanted, rate).limit_denominator(5_000)
    return ratio.numerator, ratio.denominator


@lru_cache(maxsize=16)
def _filter(most: int) -> NDArray[np.float32]:
    """[48 * most + 1], low-pass at 0.92 of the lower Nyquist frequency, by a Kaiser window."""
    from scipy.signal import firwin

    return np.asarray(firwin(48 * most + 1, 0.92 / most, window=("kaiser", 7.0)), np.float32)
