"""A folder, archive or list of sounds -> two splits: layout, labels, bad files, attributes, the store."""

import io
import pickle
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stopgrad.contracts import ConfigError, MissingInputError
from stopgrad.data import BadFilesError, Data, Loader
from stopgrad.data.audio import AudioDataConfig, open_audio
from stopgrad.data.pack import Pack, PackedImages
from tests.conftest import REAL_DATA
from tests.data.sounds import RATE, encoded, float_wav, tone, wav

pytest.importorskip("soundfile", reason="no soundfile: pip install 'stopgrad[audio]'")
SPEECH = r"(?P<digit>\d)_(?P<speaker>\w+)_"
Members = dict[str, bytes]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STOPGRAD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def speech(parts: tuple[str, ...] = ("train", "test"), each: int = 2) -> Members:
    """Digits 0 to 2 by two speakers, each recording another length."""
    out = {}
    for part in parts:
        for digit in range(3):
            for speaker, hertz in (("theo", 200), ("jackson", 500)):
                for i in range(each):
                    name = f"{part}/{digit}/{digit}_{speaker}_{i + 10 * len(part)}.wav"
                    out[name] = wav(tone(hertz + 100 * digit + i, seconds=0.1 + 0.01 * (len(out) % 7)))
    return out


def as_folder(members: Members, path: Path) -> Path:
    for name, data in members.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def as_zip(members: Members, path: Path) -> Path:
    with zipfile.ZipFile(path.with_suffix(".zip"), "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return path.with_suffix(".zip")


def as_tar(members: Members, path: Path, mode: str = "w", suffix: str = ".tar") -> Path:
    with tarfile.open(path.with_suffix(suffix), mode) as file:  # type: ignore[call-overload]
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return path.with_suffix(suffix)


def as_tar_gz(members: Members, path: Path) -> Path:
    return as_tar(members, path, "w:gz", ".tar.gz")


def opened(source: Path | str, rate: int = RATE, **settings: Any) -> Data:
    return open_audio(AudioDataConfig(source=str(source), **settings), rate)


def everything(data: Data) -> list[Any]:
    return [
        data.classes,
        data.split_rule,
        data.bad,
        data.ignored,
        data.notes,
        data.fingerprint,
        {name: (one.classes, one.train.tolist(), one.test.tolist()) for name, one in data.attributes.items()},
        *([None if part.labels is None else part.labels.tolist() for part in (data.train, data.test)]),
        *([[part.name(i) for i in range(len(part))] for part in (data.train, data.test)]),
        *([[part[i].tobytes() for i in range(len(part))] for part in (data.train, data.test)]),
    ]


def test_class_folders_of_sounds_are_two_splits_with_labels_and_attributes(tmp_path: Path) -> None:
    members = speech()
    data = opened(as_folder(members, tmp_path / "speech"), pattern=SPEECH)
    assert (data.name, data.classes, data.split_rule) == ("speech", ("0", "1", "2"), "folders train/ and test/")
    assert (data.bad, data.ignored, data.notes, data.synthetic) == ((), 0, (), False)
    assert (len(data.train), len(data.test)) == (12, 12)
    names = [data.train.name(i) for i in range(12)]
    assert names == sorted(name for name in members if name.startswith("train"))
    for i, name in enumerate(names):
        assert data.train[i].dtype == np.int16
        assert data.train[i].tobytes() == members[name][44:]  # 16 bits at the wanted rate, as they are in the file
    assert data.train.labels is not None
    assert data.train.labels.tolist() == [int(name.split("/")[1]) for name in names]
    speaker = data.attributes["speaker"]
    assert speaker.classes == ("jackson", "theo")
    assert [speaker.classes[i] for i in speaker.train] == [name.split("_")[1] for name in names]
    assert data.attributes["digit"].train.tolist() == data.train.labels.tolist()


@pytest.mark.parametrize("make", [as_zip, as_tar, as_tar_gz])
def test_an_archive_is_the_same_data_as_its_folder(make: Callable[[Members, Path], Path], tmp_path: Path) -> None:
    members = speech() | {
        "train/1/cut.wav": wav(tone())[:900],
        "train/2/no-extension": encoded(tone(333), "FLAC", "PCM_16"),
        "train/0/._0_theo_1.wav": b"x",
        **{f"{name}.txt": b"text" for name in "abc"},
        "cover.jpg": b"\xff\xd8\xff",
        "test/9/.hidden.wav": b"",
    }
    folder = opened(as_folder(members, tmp_path / "set"), max_bad_fraction=0.2)
    archive = opened(make(members, tmp_path / "sounds"), max_bad_fraction=0.2)
    assert everything(archive) == everything(folder)
    assert len(folder.train) == 13
    assert [item.path for item in folder.bad] == ["train/1/cut.wav"]
    assert folder.ignored == 6


def test_a_list_of_paths_and_sounds_without_labels(tmp_path: Path) -> None:
    for i in range(30):
        as_folder({f"{i:02}.wav": wav(tone(100 + i))}, tmp_path / "flat")
    (tmp_path / "flat" / "list.txt").write_text("\n".join(f"{i:02}.wav" for i in range(20)) + "\nnothing.wav\n")
    data = opened(tmp_path / "flat" / "list.txt", max_bad_fraction=0.1)
    assert (data.classes, data.train.labels, data.split_rule) == ((), None, "80/20 by content hash")
    assert len(data.train) + len(data.test) == 20
    assert [(item.path, item.reason) for item in data.bad] == [("nothing.wav", "no such file")]


def test_bad_sounds_are_named_and_skipped(tmp_path: Path) -> None:
    nan = tone().astype("<f4")
    nan[5] = np.nan
    bad = {
        "text.wav": (b"just some text\n", "looks like text"),
        "empty.wav": (b"", "empty file"),
        "zero.wav": (wav(np.zeros(0)), "no samples"),
        "nan.wav": (float_wav(nan), "not finite"),
        "cut.wav": (wav(tone())[:1000], "truncated WAV"),
        "long.flac": (encoded(np.zeros(3 * RATE), "FLAC", "PCM_16"), "> limit 2 s (data.max_seconds)"),
        "large.wav": (wav(np.zeros(20_000)), "more than 0.03 MB (data.max_megabytes)"),
        "rate.wav": (wav(tone())[:24] + (10**9).to_bytes(4, "little") + wav(tone())[28:], "sample rate"),
    }
    good = {f"{i:02}.wav": wav(tone(100 + i)) for i in range(24)}
    source = as_folder(good | {name: data for name, (data, _) in bad.items()}, tmp_path / "set")
    limits = {"max_seconds": 2.0, "max_megabytes": 0.03}
    data = opened(source, max_bad_fraction=0.3, **limits)
    assert {item.path for item in data.bad} == set(bad)
    for item in data.bad:
        assert bad[item.path][1] in item.reason
    assert len(data.train) + len(data.test) == 24
    with pytest.raises(BadFilesError, match=r"8 of 32 sound files are bad, 25\.0 % .*max_bad_fraction=0\.25"):
        opened(source, **limits)


def test_only_bad_sounds_is_an_error_and_nothing_to_read_too(tmp_path: Path) -> None:
    with pytest.raises(BadFilesError, match=r"1 of 1 sound files are bad .*needed are sounds that can be read"):
        opened(as_folder({"a.wav": b"text"}, tmp_path / "bad"))
    with pytest.raises(MissingInputError, match=r"no sound in .*: looked for \.wav .*\.flac .*; found 1 \.jpg"):
        opened(as_folder({"a.jpg": b"\xff\xd8\xff"}, tmp_path / "images"))


def test_what_was_done_to_them_is_told_once(tmp_path: Path) -> None:
    stereo = np.stack([tone(), tone(700)], axis=1)
    members = {f"{i}.wav": wav(tone(100 + i)) for i in range(5)}
    members |= {"s.wav": wav(stereo), "r.wav": wav(tone(440, 16_000), 16_000), "q.wav": wav(np.zeros(800))}
    notes = opened(as_folder(members, tmp_path / "set")).notes
    assert notes == (
        "1 of 8 sounds had several channels, averaged",
        "1 of 8 sounds had another sample rate, resampled",
        "1 of 8 sounds are silent",
    )
    silent = {f"{i}.wav": wav(np.zeros(800 + i)) for i in range(4)}
    notes = opened(as_folder(silent, tmp_path / "silent")).notes
    assert notes == ("4 of 4 sounds are silent: there is nothing to learn from the data",)


def test_a_second_time_nothing_is_decoded(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = as_folder(speech(), tmp_path / "speech")
    first = opened(source, pattern=SPEECH)
    monkeypatch.setitem(sys.modules, "soundfile", None)
    assert everything(opened(source, pattern=SPEECH)) == everything(first)
    with pytest.raises(ConfigError, match=r"pip install 'stopgrad\[audio\]'"):
        opened(source, rate=16_000)  # another store
    assert sum(path.is_dir() for path in cache.iterdir()) == 1


def test_the_rate_is_that_of_every_sound_and_part_of_what_the_data_are(tmp_path: Path) -> None:
    members = {"a.wav": wav(tone(440, 16_000), 16_000), "b.wav": wav(tone(440, 8_000), 8_000)}
    source = as_folder(members, tmp_path / "set")
    slow, fast = opened(source, 8_000), opened(source, 16_000)
    assert {len(part[i]) for part in (slow.train, slow.test) for i in range(len(part))} == {2000}
    assert {len(part[i]) for part in (fast.train, fast.test) for i in range(len(part))} == {4000}
    assert slow.fingerprint != fast.fingerprint


def test_sounds_are_read_where_they_lie_and_batches_are_lists(tmp_path: Path) -> None:
    data = opened(as_folder(speech(), tmp_path / "speech"))
    assert isinstance(data.train, PackedImages)
    assert np.shares_memory(data.train[0], data.train.pack.pixels)  # an hour of sound is not copied for one window
    with pytest.raises(ValueError, match="read-only"):
        data.train[0][0] = 1
    batch = Loader(data.train, batch_size=4, seed=0).batch(0)
    assert isinstance(batch.samples, list)
    for sample, i in zip(batch.samples, batch.index, strict=True):
        assert np.shares_memory(sample, data.train.pack.pixels)
        assert (sample == data.train[int(i)]).all()
    again = pickle.loads(pickle.dumps(data.train))
    assert all((again[i] == data.train[i]).all() for i in range(len(again)))


def test_sounds_of_one_length_are_a_list_too(tmp_path: Path) -> None:
    data = opened(as_folder({f"{i}.wav": wav(tone(100 + i)) for i in range(6)}, tmp_path / "set"))
    taken = data.train.take(np.array([1, 0]))
    assert isinstance(taken, list)
    assert [sample.shape for sample in taken] == [(2000,), (2000,)]


def test_a_limit_takes_the_same_sounds_and_their_attributes(tmp_path: Path) -> None:
    data = opened(as_folder(speech(), tmp_path / "speech"), limit=5, pattern=SPEECH)
    assert len(data.train) == len(data.attributes["speaker"].train) == 5
    for i in range(5):
        said = data.attributes["speaker"].classes[data.attributes["speaker"].train[i]]
        assert said in data.train.name(i)


def test_what_is_to_be_said_of_attributes_is_said_with_the_data(tmp_path: Path) -> None:
    members = {f"{part}/{i}_theo_{i}.wav": wav(tone(200 + i)) for part, i in (("train", 1), ("train", 2), ("test", 3))}
    data = opened(as_folder(members, tmp_path / "speech"), pattern=SPEECH)
    assert list(data.attributes) == ["digit"]
    assert "speaker is left out: all samples have the same, theo" in data.notes
    assert any(note.startswith("digit: 1 of 3 are only in the test part") for note in data.notes)


def test_a_table_beside_the_sounds_gives_attributes_and_is_ignored_as_a_sound(tmp_path: Path) -> None:
    members = speech()
    source = as_folder(members, tmp_path / "speech")
    rows = [f"{name},{'low' if 'theo' in name else 'high'}" for name in members]
    (source / "voices.csv").write_text("\n".join(["file,voice", *rows]))
    data = opened(source, table=str(source / "voices.csv"))
    assert data.attributes["voice"].classes == ("high", "low")
    assert data.notes == ("files that are no sounds, ignored: 1 (1 .csv)",)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("cifar10", "data.source: cifar10 is a set of images; needed is a folder of sounds"),
        ("scenes", "scenes is a set of images"),
        ("hf:owner/set", "is a set of images"),
    ],
)
def test_sets_of_images_are_refused(source: str, said: str) -> None:
    with pytest.raises(MissingInputError, match=said):
        opened(source)


def test_a_source_that_is_not_there_offers_no_set_of_images(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="no such folder") as error:
        opened(tmp_path / "cifar")
    assert "cifar10" not in str(error.value)
    (tmp_path / "a.wav").write_bytes(wav(tone()))
    with pytest.raises(MissingInputError, match="a file of another kind; needed is a folder of sounds"):
        opened(tmp_path / "a.wav")
    (tmp_path / "a.txt").write_text("# nothing\n")
    with pytest.raises(MissingInputError, match="needed is a list of sound files"):
        opened(tmp_path / "a.txt")


def test_an_empty_source_and_a_rate_of_nothing_are_settings(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.source: empty; needed is a folder of sounds: type --data FOLDER"):
        open_audio(AudioDataConfig(), RATE)
    with pytest.raises(ConfigError, match=r"views\.sample_rate must be 1,000 to 192,000 Hz, got 0"):
        open_audio(AudioDataConfig(source=str(tmp_path)), 0)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"kind": "image"}, r"data\.kind: must be audio"),
        ({"limit": -1}, r"data\.limit: must be 0 .* got -1"),
        ({"min_seconds": 0.0}, r"data\.min_seconds and data\.max_seconds: .* got 0\.0 and 1800"),
        ({"min_seconds": 3.0, "max_seconds": 2.0}, r"got 3\.0 and 2\.0"),
        ({"max_seconds": float("inf")}, "got 0.02 and inf"),
        ({"max_megabytes": 0.0}, r"data\.max_megabytes: .* got 0\.0; the default is 400"),
        ({"max_bad_fraction": 2.0}, r"data\.max_bad_fraction: .* got 2\.0"),
        ({"pattern": "(?P<x"}, r"data\.pattern: .* is no regular expression"),
    ],
)
def test_a_setting_that_can_not_be_is_an_error_with_what_can(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        AudioDataConfig(**settings)


def test_settings_bring_nothing_that_decodes() -> None:
    heavy = "{'cv2', 'PIL', 'torch', 'soundfile', 'scipy'}"
    code = f"import sys, stopgrad.data.audio; found = {heavy} & set(sys.modules); assert not found, found"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_progress_is_told_for_every_sound_once(tmp_path: Path) -> None:
    source = as_folder(speech(), tmp_path / "speech")
    told: list[tuple[int, int]] = []
    open_audio(AudioDataConfig(source=str(source)), RATE, progress=lambda done, total: told.append((done, total)))
    assert told == [(i + 1, 24) for i in range(24)]


def test_the_store_says_what_it_holds(tmp_path: Path, cache: Path) -> None:
    opened(as_folder({"a.wav": wav(tone()), "b.wav": wav(tone(700))}, tmp_path / "two"))
    pack = Pack(next(path for path in cache.iterdir() if path.is_dir()))
    assert (pack.header["dtype"], pack.header["channels"], pack.header["format"]) == ("int16", 0, 1)
    assert pack.sizes.tolist() == [[2000], [2000]]


@pytest.mark.real_data
def test_real_speech_opens_whole() -> None:
    archive = REAL_DATA / "fsdd.zip"
    if not archive.is_file():
        pytest.skip(f"no {archive}")
    data = opened(archive, pattern=SPEECH)
    assert (len(data.train), len(data.test), data.bad) == (2700, 300, ())
    assert data.classes == tuple("0123456789")
    assert data.attributes["digit"].train.tolist() == data.train.labels.tolist()  # type: ignore[union-attr]
    speaker = data.attributes["speaker"]
    assert len(speaker.classes) == 6
    assert np.bincount(speaker.train).tolist() == [450] * 6
    lengths = [len(part[i]) / RATE for part in (data.train, data.test) for i in range(len(part))]
    assert (round(min(lengths), 2), round(max(lengths), 2), round(sum(lengths) / 60, 1)) == (0.14, 2.28, 21.9)
