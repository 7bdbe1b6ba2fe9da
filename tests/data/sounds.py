"""Sound files made in tests: tones of a known frequency, in every container that is read."""

import io
import struct
import wave

import numpy as np
from numpy.typing import NDArray

RATE = 8000


def tone(hertz: float = 440.0, rate: int = RATE, seconds: float = 0.25, peak: float = 0.5) -> NDArray[np.float64]:
    """[T], full scale 1."""
    return peak * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


def wav(samples: NDArray[np.float64], rate: int = RATE, width: int = 2) -> bytes:
    """[T] or [T, channels], full scale 1, as PCM of `width` bytes; 8 bits are unsigned."""
    whole = np.clip(np.rint(samples * 2 ** (8 * width - 1)), -(2 ** (8 * width - 1)), 2 ** (8 * width - 1) - 1)
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1 if samples.ndim == 1 else samples.shape[1])
        file.setsampwidth(width)
        file.setframerate(rate)
        if width == 1:
            file.writeframes((whole + 128).astype(np.uint8).tobytes())
        elif width == 3:
            file.writeframes(whole.astype("<i4").reshape(-1, 1).view(np.uint8)[:, :3].tobytes())
        else:
            file.writeframes(whole.astype(f"<i{width}").tobytes())
    return out.getvalue()


def float_wav(samples: NDArray[np.floating], rate: int = RATE, channels: int = 1) -> bytes:
    """[T] of float32 or float64 as they are, NaN and what is beyond full scale included."""
    data, size = samples.tobytes(), samples.dtype.itemsize
    head = struct.pack("<HHIIHH", 3, channels, rate, rate * size * channels, size * channels, 8 * size)
    body = b"WAVE" + b"fmt " + struct.pack("<I", len(head)) + head + b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


def encoded(samples: NDArray[np.float64], kind: str, subtype: str, rate: int = RATE) -> bytes:
    """By soundfile: FLAC, MP3, OGG."""
    import soundfile

    out = io.BytesIO()
    soundfile.write(out, samples, rate, format=kind, subtype=subtype)
    return out.getvalue()
