"""Bytes of a sound file -> samples: every format, every flaw that real collections have, limits, resampling."""

import contextlib
import importlib.util
import struct
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stopgrad.contracts import ConfigError
from stopgrad.data.sound import SOUNDS, BadSoundError, SoundSettings, decode, resampled, sniff
from tests.data.sounds import RATE, encoded, float_wav, tone, wav

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("soundfile") is None, reason="no soundfile: pip install 'stopgrad[audio]'"
)
AS_IS = SoundSettings(RATE, 0.02, 10.0)
LOSSY = [("MP3", "MPEG_LAYER_III"), ("OGG", "VORBIS"), ("OGG", "OPUS")]


def reason(data: bytes, how: SoundSettings = AS_IS, extension: bytes = b".wav") -> str:
    with pytest.raises(BadSoundError) as error:
        decode(data, how, extension)
    return str(error.value)


def test_sixteen_bits_at_the_wanted_rate_come_through_to_the_bit() -> None:
    given = np.random.default_rng(0).integers(-32768, 32768, 4000, np.int16)
    given[:2] = -32768, 32767
    samples, notes = decode(wav(given / 32768), AS_IS, b".wav")
    assert samples.dtype == np.int16
    assert (samples == given).all()
    assert notes == ()


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_every_depth_of_whole_numbers_is_the_same_sound(width: int) -> None:
    samples, notes = decode(wav(tone(), width=width), AS_IS)
    step = 2.0 ** (1 - 8 * width)
    assert np.abs(samples / 32768 - tone()).max() <= max(step, 2**-15) / 2 + 1e-9
    assert notes == ()


@pytest.mark.parametrize("dtype", ["<f4", "<f8"])
def test_floats_are_the_same_sound(dtype: str) -> None:
    samples, notes = decode(float_wav(tone().astype(dtype)), AS_IS)
    assert np.abs(samples / 32768 - tone()).max() <= 2**-16 + 1e-7
    assert notes == ()


def test_flac_is_kept_to_the_bit() -> None:
    given = np.random.default_rng(0).integers(-32768, 32768, 4000, np.int16)
    samples, notes = decode(encoded(given / 32768, "FLAC", "PCM_16"), AS_IS, b".flac")
    assert (samples == given).all()
    assert notes == ()


@pytest.mark.parametrize(("kind", "subtype"), LOSSY)
def test_what_was_compressed_is_still_the_tone(kind: str, subtype: str) -> None:
    data = encoded(tone(440, seconds=1.0), kind, subtype)
    assert sniff(data[:32]) == kind
    samples, _ = decode(data, AS_IS)
    assert 0.95 * RATE <= len(samples) <= 1.3 * RATE  # an MP3 may keep its padding
    middle = samples[2000:6000] / 32768
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(4000)))
    assert abs(spectrum.argmax() * RATE / 4000 - 440) <= 2
    assert np.sqrt(2 * np.square(middle).mean()) == pytest.approx(0.5, abs=0.02)


def test_channels_are_averaged() -> None:
    left, right = tone(300), tone(700, peak=0.25)
    samples, notes = decode(wav(np.stack([left, right], axis=1)), AS_IS)
    assert np.abs(samples / 32768 - (left + right) / 2).max() <= 2**-15
    assert notes == ("channels",)
    many = np.stack([tone()] * 7, axis=1)
    assert (decode(wav(many), AS_IS)[0] == decode(wav(tone()), AS_IS)[0]).all()


def test_blocks_leave_no_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    data = wav(np.random.default_rng(0).uniform(-1, 1, (5000, 3)))
    whole, _ = decode(data, AS_IS)
    monkeypatch.setattr("stopgrad.data.sound.BLOCK", 1000)
    assert (decode(data, AS_IS)[0] == whole).all()


def test_beyond_full_scale_the_file_is_scaled_to_its_peak() -> None:
    samples, notes = decode(float_wav((4 * tone(peak=1)).astype("<f4")), AS_IS)
    assert notes == ("over",)
    assert np.abs(samples / 32768 - tone(peak=1) / np.abs(tone(peak=1)).max()).max() <= 2**-15
    assert decode(wav(tone(peak=1)), AS_IS)[1] == ()


def test_silence_is_told_and_kept() -> None:
    samples, notes = decode(wav(np.zeros(800)), AS_IS)
    assert notes == ("silent",)
    assert len(samples) == 800
    assert decode(wav(np.stack([tone(), -tone()], axis=1)), AS_IS)[1] == ("channels", "silent")


def test_a_format_behind_another_extension_is_told() -> None:
    assert decode(encoded(tone(), "FLAC", "PCM_16"), AS_IS, b".wav")[1] == ("extension",)
    assert decode(wav(tone()), AS_IS, b".bin")[1] == ()


# --- what is bad ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "empty file"),
        (b"hello, this is text\n" * 9, "not a WAV, FLAC, MP3 or OGG (looks like text)"),
        (b"<!doctype html><html>", "looks like HTML"),
        (b"version https://git-lfs.github.com/spec/v1\n", "looks like Git LFS pointer"),
        (b"FORM\0\0\0\x20AIFFCOMM\0", "looks like AIFF"),
        (b"NIST_1A\n   1024\n", "looks like NIST SPHERE"),
        (b"\0\0\0\x20ftypM4A \0", "looks like MP4 or M4A"),
        (bytes(100), "looks like zeros only"),
        (b"\x89PNG\r\n\x1a\n" + b"\x01\xff" * 50, "no known signature"),
        (b"RIFF\x24\0\0\0WAVE", "corrupt WAV"),
        (b"fLaC" + b"\xff" * 60, "corrupt FLAC"),
        (b"ID3\x04\0\0\0\0\0\0" + b"\x01" * 200, "corrupt MP3"),
    ],
)
def test_what_is_no_sound_says_why(data: bytes, said: str) -> None:
    assert said in reason(data)


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"RIFF\0\0\0\0WAVEfmt ", "WAV"),
        (b"RF64\xff\xff\xff\xffWAVEds64", "WAV"),
        (b"RIFF\0\0\0\0WEBPVP8 ", None),
        (b"RIFF\0\0\0\0AVI LIST", None),
        (b"fLaC\0\0\0\x22", "FLAC"),
        (b"OggS\0\x02", "OGG"),
        (b"ID3\x03\0", "MP3"),
        (b"\xff\xfb\x90\x64", "MP3"),
        (b"\xff\xf3\x40\xc0", "MP3"),
        (b"\xff\xe3\x40\xc0", "MP3"),  # MPEG 2.5
        (b"\xff\xeb\x40\xc0", None),  # a version that is not there
        (b"\xff\xf1\x50\x80", None),  # AAC
        (b"\xff\xfe\x00\x41", None),  # text in UTF-16
        (b"\xff\xfb\xf0\x64", None),  # no such bit rate
        (b"\xff\xfb\x9c\x64", None),  # no such sample rate
        (b"\xff\xd8\xff\xe0", None),  # JPEG
        (b"\xff\xfb", None),
    ],
)
def test_the_first_bytes_tell_the_format(head: bytes, kind: str | None) -> None:
    assert sniff(head) == kind


def test_a_wav_that_was_cut_is_bad_with_the_share_that_is_there() -> None:
    data = wav(tone())
    assert reason(data[: 44 + (len(data) - 44) // 2]) == "truncated WAV (50% of its samples are there)"
    assert "WAV" in reason(data[:40])
    assert len(decode(data + b"LIST\x04\0\0\0abcd", AS_IS)[0]) == len(tone())  # a chunk behind the samples


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFFFFF])
def test_a_wav_that_was_written_to_a_pipe_is_whole(size: int) -> None:
    data = wav(tone())
    piped = data[:4] + struct.pack("<I", size) + data[8:40] + struct.pack("<I", size) + data[44:]
    assert (decode(piped, AS_IS)[0] == decode(data, AS_IS)[0]).all()


def test_a_chunk_of_odd_length_before_the_samples_is_stepped_over() -> None:
    data = wav(tone())
    odd = data[:36] + b"LIST\x03\0\0\0abc\0" + data[36:]
    assert (decode(odd, AS_IS)[0] == decode(data, AS_IS)[0]).all()
    assert "truncated WAV" in reason(odd[:-100])


def test_what_was_compressed_and_cut_is_bad_where_it_says_how_long_it_is() -> None:
    noise = 0.3 * np.random.default_rng(0).standard_normal(4 * RATE)
    flac = encoded(noise, "FLAC", "PCM_16")
    assert "FLAC" in reason(flac[: len(flac) // 2])
    for subtype in ("VORBIS", "OPUS"):
        ogg = encoded(noise, "OGG", subtype)
        assert reason(ogg[: len(ogg) // 2]) == "truncated OGG (its last page is missing)"
        assert reason(ogg[:-10]) == "truncated OGG (its last page is missing)"
        assert reason(ogg[: ogg.rindex(b"OggS")]) == "truncated OGG (its last page is missing)"
    mp3 = encoded(noise, "MP3", "MPEG_LAYER_III")
    assert "truncated MP3" in reason(mp3[: len(mp3) // 2])
    even = (b"\xff\xfb\x90\xc4" + bytes(413)) * 100  # silent frames of one bit rate, 128 kbit/s at 44.1 kHz
    how = SoundSettings(44_100, 0.02, 10.0)
    assert len(decode(even, how)[0]) == pytest.approx(100 * 1152, abs=1152)
    assert len(decode(even[: len(even) // 2], how)[0]) == pytest.approx(50 * 1152, abs=1152)


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
def test_an_mp3_of_varying_bit_rates_without_its_length_is_not_cut_in_silence(rate: int) -> None:
    noise = 0.3 * np.random.default_rng(0).standard_normal(4 * rate)
    mp3 = encoded(noise, "MP3", "MPEG_LAYER_III", rate)
    how = SoundSettings(rate, 0.02, 10.0)
    assert len(decode(mp3, how)[0]) == len(noise)
    tagged = b"ID3\x04\0\0\0\0\x02\x2c" + bytes(300) + mp3
    assert len(decode(tagged, how)[0]) == len(noise)
    plain = mp3[mp3.index(mp3[:2], 60) :]
    assert "MP3 of varying bit rates that does not say how long it is" in reason(plain, how)
    assert "MP3 of varying bit rates" in reason(tagged[:310] + plain, how)


@pytest.mark.parametrize("rate", [0, 1, 999, 768_001, 1_000_000_000])
def test_a_sample_rate_that_nobody_records_at_is_bad(rate: int) -> None:
    data = wav(tone())
    said = reason(data[:24] + struct.pack("<I", rate) + data[28:])
    assert f"sample rate of {rate:,} Hz" in said or (rate == 0 and "corrupt WAV" in said)


def test_what_is_not_finite_is_bad() -> None:
    for value in (np.nan, np.inf, -np.inf):
        samples = tone().astype("<f4")
        samples[77] = value
        assert "not finite" in reason(float_wav(samples))


def test_no_samples_and_few_samples_are_bad() -> None:
    assert reason(wav(np.zeros(0))) == "no samples"
    assert reason(wav(tone(seconds=0.01))) == "0.01 s, shorter than 0.02 s (data.min_seconds)"
    assert len(decode(wav(tone(seconds=0.02)), AS_IS)[0]) == 160


@pytest.mark.parametrize(("kind", "subtype"), [("FLAC", "PCM_16"), *LOSSY])
def test_a_sound_that_is_too_long_is_known_before_it_is_decoded(
    kind: str, subtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import soundfile

    def forbidden(*values: Any, **more: Any) -> None:
        raise AssertionError("decoded")

    data = encoded(np.zeros(11 * RATE), kind, subtype)
    monkeypatch.setattr(soundfile.SoundFile, "read", forbidden)
    assert "> limit 10 s (data.max_seconds)" in reason(data)
    assert "11." in reason(data)


def test_a_flac_that_was_written_to_a_pipe_is_bad_and_says_what_to_do() -> None:
    flac = bytearray(encoded(tone(), "FLAC", "PCM_16"))
    flac[21] &= 0xF0  # the number of samples: 36 bits of STREAMINFO, 0 is unknown
    flac[22:26] = bytes(4)
    assert reason(bytes(flac)) == "FLAC that does not say how long it is, as one written to a pipe; encode it again"


def test_without_soundfile_it_is_said_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(ConfigError, match=r"pip install 'stopgrad\[audio\]'"):
        decode(wav(tone()), AS_IS)
    assert reason(b"text") == "not a WAV, FLAC, MP3 or OGG (looks like text)"  # nothing is needed to refuse it


WHOLE = [("WAV", "PCM_16"), ("FLAC", "PCM_16"), *LOSSY]


@settings(max_examples=60, deadline=None)
@given(which=st.integers(0, len(WHOLE) - 1), at=st.integers(0, 4000), junk=st.binary(min_size=1, max_size=40))
def test_broken_bytes_are_a_reason_or_a_sound_and_nothing_else(which: int, at: int, junk: bytes) -> None:
    data = FILES[which]
    place = at % len(data)
    broken = data[:place] + junk + data[place + len(junk) :]
    with contextlib.suppress(BadSoundError):
        samples, _ = decode(broken, AS_IS)
        assert samples.dtype == np.int16
        assert 0 < len(samples) <= 10 * RATE


FILES = [encoded(tone(), *one) for one in WHOLE] if importlib.util.find_spec("soundfile") else []


def test_names_and_contents_that_are_wanted() -> None:
    for name in (b"a.wav", b"x/B.FLAC", b"c.mp3", b"d.ogg", b"e.oga", b"f.opus", b"g.wave"):
        assert SOUNDS.named(name)
    for name in (b"a.txt", b"wav", b"x/._a.wav", b"a.jpg"):
        assert not SOUNDS.named(name)


# --- resampling -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rate", "wanted"),
    [(44_100, 16_000), (8_000, 16_000), (11_025, 8_000), (48_000, 44_100), (12_347, 8_000), (96_000, 8_000)],
)
@pytest.mark.parametrize("share", [0.1, 0.8])
def test_a_tone_is_the_same_tone_at_another_rate(rate: int, wanted: int, share: float) -> None:
    hertz = share * min(rate, wanted) / 2
    found = resampled(tone(hertz, rate).astype(np.float32), rate, wanted)
    assert len(found) == -(-len(tone(hertz, rate)) * wanted // rate)
    middle = slice(len(found) // 4, -len(found) // 4)  # the ends see the silence around the sound
    assert np.abs(found[middle] - tone(hertz, wanted, 1.0)[: len(found)][middle]).max() < 1e-3


@pytest.mark.parametrize("hertz", [4_100.0, 4_600.0, 6_000.0, 15_000.0])
def test_what_the_lower_rate_can_not_hold_is_gone_and_not_folded_back(hertz: float) -> None:
    found = resampled(tone(hertz, 44_100).astype(np.float32), 44_100, 8_000)
    assert np.abs(found[200:-200]).max() < 0.5 * 1e-3


def test_a_constant_stays_what_it_is() -> None:
    found = resampled(np.full(4000, 0.25, np.float32), 44_100, 16_000)
    assert np.abs(found[200:-200] - 0.25).max() < 1e-4


def test_rates_without_a_small_ratio_need_no_endless_filter() -> None:
    found = resampled(tone(100, 191_999).astype(np.float32), 191_999, 8_000)
    assert len(found) == pytest.approx(0.25 * 8_000, abs=2)
    assert np.abs(found[500:1500] - tone(100, 8_000)[500:1500]).max() < 1e-3


def test_another_rate_is_told() -> None:
    samples, notes = decode(wav(tone(440, 44_100), 44_100), SoundSettings(16_000, 0.02, 10.0))
    assert notes == ("rate",)
    assert np.abs(samples / 32768 - tone(440, 16_000))[400:-400].max() < 1e-3
