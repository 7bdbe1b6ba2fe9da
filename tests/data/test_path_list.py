"""A text file of paths: what its lines mean, and that it is the same data as the folder it lists."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stopgrad.contracts import DataError, MissingInputError
from stopgrad.data import BadFilesError, Data, DataConfig, open_data


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STOPGRAD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """cat/ and dog/, twelve images."""
    for i in range(12):
        image(tmp_path / "photos" / ("dog" if i % 2 else "cat") / f"{i}.png", i)
    return tmp_path / "photos"


def image(path: Path, value: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(value).integers(0, 256, (12, 16, 3), np.uint8)).save(path)


def opened(path: Path, **settings: Any) -> Data:
    return open_data(DataConfig(source=str(path), **settings), image_size=16)


def names(data: Data) -> set[str]:
    return {part.name(i) for part in (data.train, data.test) for i in range(len(part))}


def written(path: Path, *lines: bytes, end: bytes = b"\n") -> Path:
    path.write_bytes(end.join(lines) + end)
    return path


@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_a_list_of_a_whole_folder_is_the_same_data(source: Path, absolute: bool, end: bytes) -> None:
    folder = opened(source)
    found = sorted(source.rglob("*.png"), reverse=True)
    lines = [os.fsencode(path if absolute else path.relative_to(source)) for path in found]
    data = opened(written(source / "all.txt", b"\xef\xbb\xbf# a comment", b"", *lines, b"   ", end=end))
    assert (data.fingerprint, data.classes, data.split_rule) == (folder.fingerprint, ("cat", "dog"), folder.split_rule)
    assert data.train.labels is not None
    assert folder.train.labels is not None
    assert data.train.labels.tolist() == folder.train.labels.tolist()
    assert (data.name, data.bad, data.ignored, data.notes) == ("all.txt", (), 0, ())
    assert names(data) == names(folder)


def test_a_list_elsewhere_with_absolute_paths_finds_files_and_classes(source: Path, tmp_path: Path) -> None:
    (tmp_path / "lists").mkdir()
    lines = [os.fsencode(path) for path in source.rglob("*.png")]
    data = opened(written(tmp_path / "lists" / "all.lst", *lines))
    assert data.classes == ("cat", "dog")
    assert data.fingerprint == opened(source).fingerprint
    lines = [b"../photos/" + os.fsencode(path.relative_to(source)) for path in source.rglob("*.png")]
    assert opened(written(tmp_path / "lists" / "up.lst", *lines)).fingerprint == data.fingerprint


def test_what_a_line_names_and_is_no_image_is_bad_with_the_reason(source: Path) -> None:
    (source / "labels.csv").write_text("a,b\n")
    os.mkfifo(source / "pipe.png")
    (source / "loop.png").symlink_to("loop.png")
    lines = [os.fsencode(path.relative_to(source)) for path in source.rglob("*/*.png")]
    bad = [b"gone.png", b"labels.csv", b"cat", b"pipe.png", b"loop.png", b"cat/0.png/x.png"]
    data = opened(written(source / "all.txt", *lines, *bad), max_bad_fraction=0.5)
    assert {item.path: item.reason for item in data.bad} == {
        "gone.png": "no such file",
        "labels.csv": "not an image (looks like text)",
        "cat": "not a regular file (folder)",
        "pipe.png": "not a regular file (FIFO)",
        "loop.png": "link that leads back to itself",
        "cat/0.png/x.png": "not a directory",
    }
    with pytest.raises(BadFilesError, match="6 of 18 image files are bad"):
        opened(source / "all.txt")


def test_names_survive_whatever_they_are(source: Path) -> None:
    raw = [b"caf\xe9.png", b"two  spaces .png", b"./#1.png", b"=1+1.png"]
    for i, name in enumerate(raw):
        image(Path(os.fsdecode(os.path.join(os.fsencode(source), name))), 100 + i)  # noqa: PTH118
    data = opened(written(source / "all.txt", *raw))
    assert names(data) == {"caf\\xe9.png", "two  spaces .png", "#1.png", "\\x3d1+1.png"}


def test_a_path_that_comes_twice_is_read_once(source: Path) -> None:
    data = opened(written(source / "all.txt", b"cat/0.png", b"dog/1.png", b"./cat/0.png", b"cat/../cat/2.png"))
    assert len(names(data)) == 3
    assert "lines that name a file which was named before, left out: 1" in data.notes


def test_a_changed_file_or_list_gets_a_store_of_its_own(source: Path, cache: Path) -> None:
    path = written(source / "all.txt", b"cat/0.png", b"dog/1.png", b"cat/2.png")
    first = opened(path).fingerprint
    image(source / "cat" / "0.png", 77)
    assert opened(path).fingerprint != first
    written(path, b"cat/0.png", b"dog/1.png")
    opened(path)
    assert len([entry for entry in cache.iterdir() if entry.is_dir()]) == 3


def test_a_file_that_is_no_list_is_an_error(source: Path) -> None:
    with pytest.raises(MissingInputError, match=r"no path in .*empty.txt; needed is a list of image files"):
        opened(written(source / "empty.txt", b"# nothing", b""))
    (source / "wide.txt").write_text("cat/0.png\n", encoding="utf-16")
    with pytest.raises(DataError, match=r"wide.txt is no list of paths: it holds zero bytes"):
        opened(source / "wide.txt")
    written(source / "all.txt", b"cat/0.png")
    with pytest.raises(MissingInputError, match=r"no such file: .*al.txt; did you mean .*all.txt\?"):
        opened(source / "al.txt")
    with pytest.raises(BadFilesError, match="1 of 1 image files are bad"):
        opened(written(source / "all.txt", b"x" * 5000))
