"""Windows of sounds: drawn by (seed, epoch, index, view) alone, padded or repeated, and the middle without chance."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from stopgrad.contracts import Batch, ConfigError, DataError
from stopgrad.views.audio import AudioViewMaker, draw, read_audio
from stopgrad.views.audio_config import AudioPreprocess, AudioViewsConfig, audio_preprocess

SMALL = AudioViewsConfig(sample_rate=8000, window=64)
CPU = torch.device("cpu")


def ramp(length: int, begin: int = 1) -> NDArray[np.int16]:
    """begin, begin + 1, ...: a window tells where it was taken."""
    return np.arange(begin, begin + length, dtype=np.int16)


def views(
    config: AudioViewsConfig,
    samples: list[NDArray[Any]],
    index: list[int] | None = None,
    epoch: int = 0,
    seed: int = 0,
) -> list[torch.Tensor]:
    maker = AudioViewMaker(config, seed, CPU)
    found = maker(Batch(samples, np.array(index or range(len(samples)), np.int64), epoch))
    maker.close()
    assert found.index.tolist() == list(index or range(len(samples)))
    return [crop.clone() for crop in found.crops]


def test_a_window_is_a_piece_of_the_sound_with_full_scale_one() -> None:
    sounds = [ramp(500), ramp(64), ramp(65), ramp(1000)]
    (found,) = views(SMALL, sounds)
    assert (found.shape, found.dtype) == ((4, 64), torch.float32)
    for row, sound in zip(found, sounds, strict=True):
        whole = (row * 32768).numpy()
        first = int(whole[0])
        assert (whole == sound[first - 1 : first + 63]).all()
    loud = np.array([-32768, 32767] * 32, np.int16)
    assert views(SMALL, [loud])[0][0, :2].tolist() == [-1.0, 32767 / 32768]


def test_every_place_is_as_likely_as_any_other_and_the_ends_are_reached() -> None:
    index = np.arange(40_000)
    begins, _ = draw(SMALL, np.full(40_000, 68), 0, 0, index, 0)
    counts = np.bincount(begins, minlength=5)
    assert len(counts) == 5
    assert np.abs(counts / 40_000 - 0.2).max() < 0.01
    begins, _ = draw(SMALL, np.full(40_000, 60), 0, 0, index, 0)  # padded: up to four zeros before it
    assert sorted(set(begins.tolist())) == [-4, -3, -2, -1, 0]
    begins, _ = draw(replace(SMALL, short="repeat"), np.full(40_000, 3), 0, 0, index, 0)
    assert sorted(set(begins.tolist())) == [0, 1, 2]


def test_a_short_sound_stands_among_zeros() -> None:
    for seed in range(20):
        row = (views(SMALL, [ramp(40)], seed=seed)[0][0] * 32768).tolist()
        first = row.index(1)
        assert row == [0] * first + list(range(1, 41)) + [0] * (24 - first)


def test_a_short_sound_can_be_repeated() -> None:
    config = replace(SMALL, short="repeat")
    begins = set()
    for seed in range(40):
        row = (views(config, [ramp(5)], seed=seed)[0][0] * 32768).tolist()
        assert row == [(int(row[0]) - 1 + i) % 5 + 1 for i in range(64)]
        begins.add(row[0])
    assert begins == {1, 2, 3, 4, 5}
    whole = views(config, [ramp(500)])[0]  # of long ones the setting says nothing
    assert (whole == views(SMALL, [ramp(500)])[0]).all()


def test_a_view_depends_on_seed_epoch_index_and_view_and_on_nothing_else() -> None:
    config = replace(SMALL, windows=2, gain=6.0)
    sounds = [ramp(500 + 10 * i) for i in range(9)]
    first, second = views(config, sounds)
    assert not torch.equal(first, second)
    other = views(config, [sounds[7], sounds[3]], index=[7, 3])
    assert torch.equal(other[0], first[[7, 3]])
    assert torch.equal(other[1], second[[7, 3]])
    assert not torch.equal(views(config, sounds, epoch=1)[0], first)
    assert not torch.equal(views(config, sounds, seed=1)[0], first)
    assert torch.equal(views(replace(config, windows=1), sounds)[0], first)


def test_gain_is_a_factor_within_its_decibels_and_moves_no_window() -> None:
    sounds = [ramp(500) for _ in range(300)]
    plain, louder = views(SMALL, sounds)[0], views(replace(SMALL, gain=6.0), sounds)[0]
    factors = louder / plain
    assert (factors.amax(1) - factors.amin(1)).max() < 1e-5
    decibels = 20 * factors[:, 0].log10()
    assert -6 <= decibels.min() < -5.8
    assert 5.8 < decibels.max() <= 6


def test_views_that_are_held_are_not_written_over() -> None:
    maker = AudioViewMaker(SMALL, 0, CPU)
    batch = Batch([ramp(500)], np.array([0]), 0)
    first = maker(batch).crops[0]
    kept = first.clone()
    maker(Batch([ramp(500, 9)], np.array([1]), 0))
    assert torch.equal(first, kept)


def test_floats_are_taken_as_they_are() -> None:
    sound = ramp(64) / 32768
    for dtype in (np.float32, np.float64):
        assert torch.equal(views(SMALL, [sound.astype(dtype)])[0], views(SMALL, [ramp(64)])[0])


@pytest.mark.parametrize(
    "wrong", [np.zeros((4, 4), np.int16), np.zeros(0, np.int16), np.zeros(9, np.uint8), np.zeros((8, 8, 3), np.uint8)]
)
def test_what_is_no_sound_is_refused_by_its_place(wrong: NDArray[Any]) -> None:
    with pytest.raises(DataError, match=r"sample 1 of the batch is .* sounds must be int16 or float, \[length\], mono"):
        views(SMALL, [ramp(9), wrong])
    with pytest.raises(DataError, match="sample 0 of the batch"):
        read_audio([wrong], audio_preprocess(SMALL))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"kind": "image"}, r"views\.kind: must be audio"),
        ({"sample_rate": 0}, r"views\.sample_rate must be 1,000 to 192,000 Hz, got 0; speech has 8000 or 16000"),
        ({"sample_rate": 10**9}, "got 1,000,000,000"),
        ({"window": 15}, r"views\.window must be 16 to 16,777,216 samples, got 15; 1\.28 s at 16000 Hz are 20,480"),
        ({"windows": 0}, r"views\.windows must be 1 to 64, got 0"),
        ({"short": "cut"}, r"views\.short must be pad or repeat, got 'cut'"),
        ({"gain": -1.0}, r"views\.gain must be 0 to 60 dB, got -1"),
        ({"gain": float("nan")}, r"views\.gain"),
    ],
)
def test_a_setting_that_can_not_be_is_an_error_with_what_can(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        AudioViewsConfig(**settings)


# --- without chance ---------------------------------------------------------------------------------------------------


def test_without_chance_it_is_the_middle() -> None:
    preprocess = audio_preprocess(SMALL)
    found = (read_audio([ramp(164), ramp(64), ramp(62), ramp(61)], preprocess) * 32768).int().tolist()
    assert found[0] == list(range(51, 115))
    assert found[1] == list(range(1, 65))
    assert found[2] == [0, *range(1, 63), 0]
    assert found[3] == [0, 0, *range(1, 62), 0]


def test_without_chance_a_short_sound_is_repeated_from_its_beginning() -> None:
    preprocess = audio_preprocess(replace(SMALL, short="repeat"))
    found = (read_audio([ramp(7), ramp(164)], preprocess) * 32768).int().tolist()
    assert found[0] == [i % 7 + 1 for i in range(64)]
    assert found[1] == list(range(51, 115))


def test_one_sound_reads_the_same_in_any_batch() -> None:
    preprocess = audio_preprocess(SMALL)
    together = read_audio([ramp(30), ramp(400), ramp(90)], preprocess)
    assert torch.equal(read_audio([ramp(400)], preprocess)[0], together[1])
    assert read_audio([], preprocess).shape == (0, 64)


@pytest.mark.parametrize("short", ["pad", "repeat"])
def test_what_is_kept_with_the_weights_is_read_back(short: Any) -> None:
    preprocess = AudioPreprocess(sample_rate=8000, window=4096, short=short)
    said = preprocess.as_dict()
    assert said == {"kind": "audio", "sample_rate": 8000, "window": 4096, "short": short}
    assert AudioPreprocess.from_dict(said) == preprocess
    del said["kind"]
    assert AudioPreprocess.from_dict(said) == preprocess


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kind": "image"}, "kind must be audio, got 'image'"),
        ({"sample_rate": 0}, "sample_rate must be 1000 to 192000, got 0"),
        ({"sample_rate": 8000.0}, "sample_rate must be"),
        ({"sample_rate": True}, "sample_rate must be"),
        ({"window": 1 << 30}, "window must be 16 to 16777216"),
        ({"window": None}, "window must be"),
        ({"short": "cut"}, "short must be pad or repeat, got 'cut'"),
        ({"short": ["pad"]}, "short must be pad or repeat"),
        ({"windwo": 4}, "'windwo' is unknown; did you mean 'window'"),
    ],
)
def test_a_stranger_s_values_are_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        AudioPreprocess.from_dict({"sample_rate": 8000, "window": 4096, **change})
