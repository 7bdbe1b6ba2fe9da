"""The list of a folder's files: what counts as an image, what is never opened, how names are kept."""

import csv
import os
import socket
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from stopgrad.contracts import StorageError
from stopgrad.data import folder as module
from stopgrad.data.folder import (
    BadFile,
    count_ignored,
    escape_name,
    index_folder,
    read_regular,
    sniff,
    unescape_name,
    write_bad_files,
)

AWKWARD = [
    b"caf\xe9.jpg",
    b"line\nbreak.jpg",
    b'quo"te.jpg',
    b"com,ma.jpg",
    b"<script>.jpg",
    b"=SUM(A1).jpg",
    b"back\\slash",
]


def image(path: Path, colour: str = "red", size: tuple[int, int] = (16, 16)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path, {".jpg": "JPEG"}.get(path.suffix, "PNG"))


def listed(root: Path) -> list[bytes]:
    index = index_folder(root)
    return [index.name(i) for i in range(len(index))]


def test_files_are_listed_in_the_order_of_their_names_whatever_order_they_were_made_in(tmp_path: Path) -> None:
    for name in ("b/2.png", "a.png", "b/1.png", "B.png", "b/c/0.png"):
        image(tmp_path / name)
    index = index_folder(tmp_path)
    assert listed(tmp_path) == [b"B.png", b"a.png", b"b/1.png", b"b/2.png", b"b/c/0.png"]
    assert [index.sizes[i] for i in range(5)] == [os.stat(index.path(i)).st_size for i in range(5)]  # noqa: PTH116
    assert [index.mtimes[i] for i in range(5)] == [os.stat(index.path(i)).st_mtime_ns for i in range(5)]  # noqa: PTH116


def test_what_has_neither_extension_nor_signature_of_an_image_is_ignored_and_counted(tmp_path: Path) -> None:
    image(tmp_path / "a.JPG")
    (tmp_path / "empty.jpeg").touch()  # an extension is enough to be looked at
    image(tmp_path / "no-extension")
    image(tmp_path / "other.data")
    (tmp_path / "notes.txt").write_text("BM is how a bitmap begins, but this is a text about it")
    (tmp_path / "labels.csv").write_text("a,b")
    (tmp_path / "more.txt").touch()
    Image.new("RGB", (9, 9)).save(tmp_path / "camera.nef", "TIFF")  # a raw file begins like a TIFF
    image(tmp_path / "._a.jpg")
    image(tmp_path / ".cache" / "copy.jpg")
    image(tmp_path / "__MACOSX" / "a.jpg")
    (tmp_path / ".link").symlink_to(".cache")
    index = index_folder(tmp_path)
    assert listed(tmp_path) == [b"a.JPG", b"empty.jpeg", b"no-extension", b"other.data"]
    assert index.ignored == 5
    assert index.found == {".txt": 2, ".csv": 1, ".nef": 1, ".jpg": 1}
    assert index.bad == ()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"])
def test_every_format_is_known_by_its_first_bytes(kind: str, tmp_path: Path) -> None:
    Image.new("RGB", (16, 16)).save(tmp_path / "a", kind)
    assert sniff(read_regular(os.fsencode(tmp_path / "a"), module.HEAD)) == kind


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Every path that is opened."""
    paths: list[bytes] = []
    real = os.open

    def spy(path: Any, *args: Any, **kwargs: Any) -> int:
        paths.append(os.fsencode(path))
        return real(path, *args, **kwargs)

    monkeypatch.setattr(module.os, "open", spy)
    return paths


@pytest.fixture
def unix_socket() -> Iterator[Callable[[Path], None]]:
    made = []

    def bind(path: Path) -> None:
        made.append(socket.socket(socket.AF_UNIX))
        here = Path.cwd()
        os.chdir(path.parent)  # a socket's path has at most 108 bytes
        made[-1].bind(path.name)
        os.chdir(here)

    yield bind
    for item in made:
        item.close()


def test_only_regular_files_are_opened_and_the_rest_says_why(
    tmp_path: Path, opened: list[bytes], unix_socket: Callable[[Path], None]
) -> None:
    os.mkfifo(tmp_path / "fifo.jpg")
    os.mkfifo(tmp_path / "fifo")
    unix_socket(tmp_path / "socket.png")
    (tmp_path / "dangling.jpg").symlink_to("nowhere")
    (tmp_path / "itself.jpg").symlink_to("itself.jpg")
    (tmp_path / "dangling").symlink_to("nowhere")
    image(tmp_path / "good.jpg")
    (tmp_path / "link.jpg").symlink_to("good.jpg")
    index = index_folder(tmp_path)
    assert listed(tmp_path) == [b"good.jpg", b"link.jpg"]
    assert opened == []
    assert index.ignored == 2
    assert {item.path: item.reason for item in index.bad} == {
        "fifo.jpg": "not a regular file (FIFO)",
        "socket.png": "not a regular file (socket)",
        "dangling.jpg": "link to a file that is not there",
        "itself.jpg": "link that leads back to itself",
    }


def test_a_fifo_that_takes_a_files_place_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jpg")
    with pytest.raises(OSError, match="not a regular file"):
        read_regular(os.fsencode(tmp_path / "a.jpg"))


def test_links_to_folders_are_followed_once_and_loops_are_cut(tmp_path: Path) -> None:
    source, elsewhere = tmp_path / "source", tmp_path / "elsewhere"
    image(source / "real" / "a.png")
    image(elsewhere / "b.png")
    (source / "real" / "up").symlink_to("..")
    (source / "also-real").symlink_to("real")  # sorts before it: the real name still wins
    (source / "other").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(source)
    index = index_folder(source)
    assert listed(source) == [b"other/b.png", b"real/a.png"]
    assert index.notes == (
        "links not followed, since they lead to folders that were read already: 3 (first: also-real)",
    )


def test_a_folder_that_can_not_be_read_is_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image(tmp_path / "open" / "a.png")
    image(tmp_path / "shut" / "b.png")
    real = os.scandir

    def refuse(path: Any) -> Any:  # root reads everything, so the refusal is played
        if path.endswith(b"shut"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(module.os, "scandir", refuse)
    index = index_folder(tmp_path)
    assert listed(tmp_path) == [b"open/a.png"]
    assert index.notes == ("folders that could not be read: 1 (first: shut (permission denied))",)


@pytest.mark.parametrize("name", AWKWARD)
def test_an_awkward_name_is_listed_escaped_and_comes_back_from_bad_files(name: bytes, tmp_path: Path) -> None:
    if name.endswith(b".jpg"):
        (tmp_path / os.fsdecode(name)).touch()
        assert listed(tmp_path) == [name]
    write_bad_files([BadFile(escape_name(name), 'because, "so"')], tmp_path / "out" / "bad_files.csv")
    with (tmp_path / "out" / "bad_files.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["path", "reason"]
    assert unescape_name(rows[1][0]) == name
    assert rows[1][0][0] not in "=+-@\t\r"
    assert len((tmp_path / "out" / "bad_files.csv").read_text().splitlines()) == 2


@given(st.binary(max_size=40))
def test_any_name_survives_escaping(raw: bytes) -> None:
    text = escape_name(raw)
    assert unescape_name(text) == raw
    assert text.isprintable()
    text.encode("utf-8")


def test_direction_marks_can_not_disguise_a_name() -> None:
    assert escape_name("a\u202egpj.exe".encode()) == "a\\xe2\\x80\\xaegpj.exe"
    assert escape_name("Æpfel und 梨.jpg".encode()) == "Æpfel und 梨.jpg"


def test_bad_files_that_can_not_be_written_are_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="can't be written"):
        write_bad_files([], tmp_path / "file" / "bad_files.csv")


class _Entry:
    """As os.scandir gives it, without a file behind it."""

    def __init__(self, name: bytes) -> None:
        self.name = name

    def is_dir(self, follow_symlinks: bool) -> bool:
        return False

    def stat(self) -> os.stat_result:
        return os.stat(__file__)  # noqa: PTH116


class _Scan:
    def __init__(self, count: int) -> None:
        self.count = count

    def __enter__(self) -> Iterator[_Entry]:
        return (_Entry(b"a-name-of-about-forty-characters-%08d.jpg" % i) for i in range(self.count))

    def __exit__(self, *_: object) -> None: ...


def test_a_million_names_take_far_less_than_a_gigabyte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count = 50_000
    monkeypatch.setattr(module.os, "scandir", lambda path: _Scan(count))
    tracemalloc.start()
    index = index_folder(tmp_path)
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(index) == count
    assert index.name(count - 1) == b"a-name-of-about-forty-characters-%08d.jpg" % (count - 1)
    assert peak / count * 1e6 < 0.5e9
    assert kept / count * 1e6 < 0.1e9  # names, offsets, sizes and times: no objects
    assert isinstance(index.offsets, np.ndarray)


def test_extensions_without_end_are_counted_without_end_but_not_remembered() -> None:
    found: Counter[str] = Counter()
    for i in range(3_000):
        count_ignored(found, b".%d" % i)
    for extension in (b".0", b"", b".\x1b"):
        count_ignored(found, extension)
    assert found.total() == 3_003
    assert len(found) == 1_001
    assert (found[".0"], found["other"]) == (2, 2_002)
