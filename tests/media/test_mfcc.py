"""MFCC: against the definition written out in loops, and closed forms of each step."""

import cmath
import math

import pytest
import torch

from stopgrad.media.mfcc import COEFFICIENTS, FLOOR, MELS, cut, dct, deltas, mel_filters, mfcc, mfcc_features

RATE = 8000


def noise(length: int, seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(length, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_definition(wave: list[float], rate: int) -> list[list[float]]:
    """[F][13]: every sum of the chain as the books write it."""
    length, hop = round(0.025 * rate), round(0.010 * rate)
    size = 1
    while size < length:
        size *= 2
    out = []
    for start in range(0, len(wave) - length + 1, hop):
        windowed = [wave[start + n] * (0.5 - 0.5 * math.cos(2 * math.pi * n / (length - 1))) for n in range(length)]
        power = []
        for k in range(size // 2 + 1):
            total = sum(x * cmath.exp(-2j * math.pi * k * n / size) for n, x in enumerate(windowed))
            power.append(abs(total) ** 2 / size)
        top = 2595 * math.log10(1 + rate / 2 / 700)
        edges = [700 * (10 ** (top * m / (MELS + 1) / 2595) - 1) for m in range(MELS + 2)]
        logs = []
        for m in range(1, MELS + 1):
            band = 0.0
            for k, p in enumerate(power):
                hertz = k * rate / size
                if edges[m - 1] < hertz <= edges[m]:
                    band += p * (hertz - edges[m - 1]) / (edges[m] - edges[m - 1])
                elif edges[m] < hertz < edges[m + 1]:
                    band += p * (edges[m + 1] - hertz) / (edges[m + 1] - edges[m])
            logs.append(math.log(max(band, FLOOR)))
        frame = []
        for k in range(COEFFICIENTS):
            total = sum(v * math.cos(math.pi * k * (n + 0.5) / MELS) for n, v in enumerate(logs))
            frame.append(total * math.sqrt((1 if k == 0 else 2) / MELS))
        out.append(frame)
    return out


def test_it_is_the_definition() -> None:
    wave = noise(300)
    expected = torch.tensor(by_definition(wave.tolist(), 4000), dtype=torch.float64)
    found = mfcc(wave, 4000)
    assert found.shape == expected.shape == (6, 13)
    assert torch.allclose(found, expected, atol=1e-8)


def test_deltas_are_the_slope_of_a_line_through_five_frames() -> None:
    frames = noise(21).reshape(7, 3)
    expected = torch.zeros(7, 3, dtype=torch.float64)
    for t in range(7):
        for d in range(3):
            around = [float(frames[min(max(t + n, 0), 6), d]) for n in range(-2, 3)]
            expected[t, d] = sum(n * value for n, value in zip(range(-2, 3), around)) / 10
    assert torch.allclose(deltas(frames), expected)
    line = torch.arange(20, dtype=torch.float64)[:, None] * 3 + 1
    assert torch.allclose(deltas(line)[2:-2], torch.full((16, 1), 3.0, dtype=torch.float64))
    assert (deltas(noise(4).reshape(1, 4)) == 0).all()


def test_the_cosine_transform_turns_and_does_not_stretch() -> None:
    assert torch.allclose(dct(40) @ dct(40).T, torch.eye(40, dtype=torch.float64), atol=1e-12)
    flat = dct(40) @ torch.ones(40, dtype=torch.float64)
    assert flat[0] == pytest.approx(math.sqrt(40))
    assert flat[1:].abs().max() < 1e-12


@pytest.mark.parametrize(("rate", "size"), [(8000, 256), (16_000, 512), (44_100, 2048)])
def test_triangles_share_each_frequency_between_two_and_no_band_is_empty(rate: int, size: int) -> None:
    filters = mel_filters(rate, size)
    assert filters.shape == (40, size // 2 + 1)
    assert filters.min() == 0
    assert filters.max() <= 1
    assert (filters.sum(dim=1) > 0).all()
    bins = torch.arange(size // 2 + 1) * rate / size
    edges = [700 * (10 ** (i / 41 * math.log10(1 + rate / 1400)) - 1) for i in range(42)]
    inside = (bins >= edges[1]) & (bins <= edges[40])
    assert torch.allclose(filters.sum(dim=0)[inside], torch.ones(int(inside.sum()), dtype=torch.float64))


def test_a_tone_lights_the_band_it_lies_in() -> None:
    wave = torch.sin(2 * math.pi * 1000 * torch.arange(2000, dtype=torch.float64) / RATE)
    logs = mfcc(wave, RATE)[3] @ dct(40)[:13]  # smoothed, but its top stays
    top = 2595 * math.log10(1 + 4000 / 700)
    nearest = 2595 * math.log10(1 + 1000 / 700) / top * 41 - 1
    assert abs(int(logs.argmax()) - nearest) <= 1.5


def test_louder_moves_the_first_coefficient_alone() -> None:
    wave = noise(2000)
    quiet, loud = mfcc(wave, RATE), mfcc(10 * wave, RATE)
    assert torch.allclose(loud[:, 1:], quiet[:, 1:], atol=1e-9)
    assert torch.allclose(loud[:, 0] - quiet[:, 0], torch.tensor(math.log(100) * math.sqrt(40), dtype=torch.float64))


def test_features_are_mean_and_std_over_frames() -> None:
    waves = torch.stack([noise(3000, seed) for seed in range(3)]).float()
    found = mfcc_features(waves, RATE)
    assert (found.shape, found.dtype) == ((3, 52), torch.float32)
    for row, wave in zip(found, waves, strict=True):
        frames = mfcc(wave, RATE)
        both = torch.cat([frames, deltas(frames)], dim=1)
        spread = (both - both.mean(dim=0)).square().mean(dim=0).sqrt()
        assert torch.allclose(row, torch.cat([both.mean(dim=0), spread]).float(), atol=1e-5)
    assert mfcc_features(waves[:0], RATE).shape == (0, 52)


def test_padding_is_cut_and_changes_nothing() -> None:
    wave = noise(1500)
    padded = torch.zeros(3, 4000, dtype=torch.float64)
    padded[0, :1500], padded[1, 700:2200], padded[2, 2500:] = wave, wave, wave
    found = mfcc_features(padded, RATE)
    assert torch.allclose(found, mfcc_features(wave[None], RATE).expand(3, -1))
    assert cut(torch.tensor([0.0, 0.0, 1.0, 0.0, 2.0, 0.0])).tolist() == [1.0, 0.0, 2.0]


@pytest.mark.parametrize("wave", [torch.zeros(4000), torch.zeros(3), torch.tensor([0.5]), torch.ones(150) * 0.1])
def test_silence_and_scraps_have_finite_features(wave: torch.Tensor) -> None:
    found = mfcc_features(wave[None], RATE)
    assert found.shape == (1, 52)
    assert found.isfinite().all()
