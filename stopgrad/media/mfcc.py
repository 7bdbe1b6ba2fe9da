"""MFCC features of sounds: what one gets without a network, the baseline beside a random encoder.

The usual chain (Davis and Mermelstein 1980; filters and deltas as in the HTK book): frames of 25 ms every 10 ms, a
Hann window, power spectrum, 40 triangles on the mel scale up to the Nyquist frequency, logarithm, orthonormal DCT-II,
the first 13 coefficients, and their deltas, the slope over five frames. A sound is the mean and the standard deviation
of these 26 over its frames: 52 numbers.

Zeros before and after a sound are padding and cut away: else how long a sound is would drown how it sounds. No
pre-emphasis and no liftering: a linear probe, or kNN on standardised features, undoes both.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

FRAME, HOP = 0.025, 0.010  # seconds
MELS, COEFFICIENTS = 40, 13
WIDTH = 2  # frames on each side that a delta looks at
FLOOR = 1e-10  # of a mel band's power, before the logarithm: 16-bit silence stays finite


def mfcc_features(waves: Tensor, sample_rate: int) -> Tensor:
    """[B, T], full scale 1, at sample_rate Hz -> [B, 52], float32, on the CPU: mean, then std, over frames."""
    rows = []
    for wave in waves.cpu():
        frames = mfcc(cut(wave), sample_rate)  # [F, 13]
        both = torch.cat([frames, deltas(frames)], dim=1)  # [F, 26]
        rows.append(torch.cat([both.mean(dim=0), both.std(dim=0, correction=0)]))
    return torch.stack(rows).float() if rows else waves.new_empty(0, 4 * COEFFICIENTS, dtype=torch.float32)


def cut(wave: Tensor) -> Tensor:
    """[T] -> [T'], without the zeros before and after; of silence, one sample."""
    sounding = wave.nonzero()
    if not len(sounding):
        return wave[:1]
    return wave[int(sounding[0]) : int(sounding[-1]) + 1]


def mfcc(wave: Tensor, sample_rate: int) -> Tensor:
    """[T] -> [F, 13], float64. A sound shorter than one frame is one frame, with zeros behind it."""
    return log_mel(wave, sample_rate) @ dct(MELS)[:COEFFICIENTS].T


def log_mel(wave: Tensor, sample_rate: int) -> Tensor:
    """[T] -> [F, MELS], float64: log of the power in each mel band of each frame."""
    length, hop = round(FRAME * sample_rate), round(HOP * sample_rate)
    size = 1 << (length - 1).bit_length()  # of the transform
    wave = wave.double()
    if len(wave) < length:
        wave = torch.nn.functional.pad(wave, (0, length - len(wave)))
    window = torch.hann_window(length, periodic=False, dtype=torch.float64)
    frames = wave.unfold(0, length, hop) * window  # [F, length]
    power = torch.fft.rfft(frames, size).abs().square() / size  # [F, size / 2 + 1]
    bands: Tensor = power @ mel_filters(sample_rate, size).T
    return bands.clamp(min=FLOOR).log()


def mel_filters(sample_rate: int, size: int) -> Tensor:
    """[MELS, size / 2 + 1]: triangles of height 1, each from the middle of the one before to that of the next."""
    top = 2595 * math.log10(1 + sample_rate / 2 / 700)
    mels = torch.linspace(0, top, MELS + 2, dtype=torch.float64)
    edges = 700 * (10 ** (mels / 2595) - 1)  # Hz
    bins = torch.arange(size // 2 + 1, dtype=torch.float64) * sample_rate / size  # Hz
    low, middle, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising, falling = (bins - low) / (middle - low), (high - bins) / (high - middle)
    return torch.minimum(rising, falling).clamp(min=0)


def dct(count: int) -> Tensor:
    """[count, count]: the orthonormal DCT-II, a row a coefficient."""
    k = torch.arange(count, dtype=torch.float64)[:, None]
    n = torch.arange(count, dtype=torch.float64)[None, :]
    rows = torch.cos(math.pi / count * (n + 0.5) * k) * math.sqrt(2 / count)
    rows[0] /= math.sqrt(2)
    return rows


def deltas(frames: Tensor) -> Tensor:
    """[F, D] -> [F, D]: the slope of a line through five frames; the first and the last frame go on for ever."""
    padded = torch.cat([frames[:1].expand(WIDTH, -1), frames, frames[-1:].expand(WIDTH, -1)])
    count = len(frames)
    slope = torch.zeros_like(frames)
    for n in range(1, WIDTH + 1):
        slope += n * (padded[WIDTH + n : WIDTH + n + count] - padded[WIDTH - n : WIDTH - n + count])
    return slope / (2 * sum(n * n for n in range(1, WIDTH + 1)))
