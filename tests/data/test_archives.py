"""Zip, tar and tar.gz: the same data as the folder they were made of, and nothing in them is believed."""

import gzip
import io
import os
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stopgrad.contracts import DataError, MissingInputError
from stopgrad.data import BadFilesError, Data, DataConfig, from_listing, open_data
from stopgrad.data.listing import UnreadableError, sample
from stopgrad.data.sources import list_source


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STOPGRAD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def png(value: int, size: tuple[int, int] = (16, 12)) -> bytes:
    pixels = np.random.default_rng(value).integers(0, 256, (size[1], size[0], 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


Members = dict[str, bytes]


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


KINDS = [as_zip, as_tar, as_tar_gz]
every_kind = pytest.mark.parametrize("make", KINDS)
Make = Callable[[Members, Path], Path]


def opened(source: Path, **settings: Any) -> Data:
    return open_data(DataConfig(source=str(source), **settings), image_size=16)


def everything(data: Data) -> list[Any]:
    parts = [data.train, data.test]
    return [
        data.classes,
        data.split_rule,
        data.bad,
        data.ignored,
        data.notes,
        data.fingerprint,
        *([None if part.labels is None else part.labels.tolist() for part in parts]),
        *([[part.name(i) for i in range(len(part))] for part in parts]),
        *([[part[i].tobytes() for i in range(len(part))] for part in parts]),
    ]


LAYOUTS: dict[str, Members] = {
    "flat": {f"{i}.png": png(i) for i in range(20)},
    "class folders": {f"{'ba'[i % 2]}/{i}.png": png(i) for i in range(20)},
    "train, test and more": {
        f"set/{part}/{'dog' if i % 2 else 'cat'}/{i}.png": png(100 * n + i)
        for n, part in enumerate(("train", "val", "extra"))
        for i in (7, 3, 5, 0, 2)
    }
    | {
        "set/extra/bad.jpg": b"",
        "set/train/cat/bad.jpg": b"<html>",
        "set/README.md": b"text",
        "set/MORE.md": b"text",
        "set/.hidden.png": b"x",
    }
    | {"__MACOSX/set/train/cat/._7.png": b"x", "set/train/dog/no-extension": png(300)},
}


@every_kind
@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_an_archive_is_the_same_data_as_its_folder(make: Make, layout: str, tmp_path: Path) -> None:
    members = LAYOUTS[layout]
    folder = opened(as_folder(members, tmp_path / "set"), max_bad_fraction=0.2)
    archive = opened(make(members, tmp_path / "images"), max_bad_fraction=0.2)
    assert everything(archive) == everything(folder)
    assert archive.name.startswith("images.")


@every_kind
def test_a_second_time_the_archive_is_not_read_and_says_the_same(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make(LAYOUTS["train, test and more"], tmp_path / "images")
    first = opened(path, max_bad_fraction=0.2)
    monkeypatch.setattr(from_listing, "_fill", None)
    assert everything(opened(path, max_bad_fraction=0.2)) == everything(first)
    status = path.stat()
    os.utime(path, ns=(1, 1))  # another time: it may be another archive
    with pytest.raises(TypeError):
        opened(path, max_bad_fraction=0.2)
    assert path.stat().st_size == status.st_size


@every_kind
def test_nothing_is_written_beside_the_archive(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "read").mkdir()
    path = make(LAYOUTS["flat"], tmp_path / "read" / "images")
    monkeypatch.chdir(tmp_path / "read")
    opened(path)
    assert list((tmp_path / "read").iterdir()) == [path]
    assert not list((tmp_path / "cache").rglob("*.png"))


@every_kind
def test_a_limit_and_a_sample_are_those_of_the_folder(make: Make, tmp_path: Path) -> None:
    members = LAYOUTS["flat"]
    folder, archive = as_folder(members, tmp_path / "set"), make(members, tmp_path / "images")
    assert opened(archive, limit=5).fingerprint == opened(folder, limit=5).fingerprint
    listing = list_source(str(archive))
    total, heads = sample(listing, 5, 24)
    listing.close()
    assert total == 20
    assert 4 <= len(heads) <= 5
    assert all(
        head == members[name.decode()][:24] and size == len(members[name.decode()]) for name, size, head in heads
    )


@every_kind
def test_names_that_lead_out_or_are_no_text_are_only_names(make: Make, tmp_path: Path) -> None:
    members = {"a/../../../evil.png": png(1), "/etc/evil.png": png(2), "../notes.txt": b"x"}
    members |= {f"{i}.png": png(10 + i) for i in range(5)} | {"<img src=x onerror=alert(1)>\n.png": png(9)}
    data = opened(make(members, tmp_path / "images"), max_bad_fraction=0.5)
    reason = "its name leads out of the archive"
    assert [(item.path, item.reason) for item in data.bad] == [
        ("/etc/evil.png", reason),
        ("a/../../../evil.png", reason),
    ]
    assert data.ignored == 1
    names = {part.name(i) for part in (data.train, data.test) for i in range(len(part))}
    assert "<img src=x onerror=alert(1)>\\x0a.png" in names
    assert not list(tmp_path.rglob("evil.png"))


@pytest.mark.parametrize("make", [as_tar, as_tar_gz])
def test_bytes_that_are_not_utf_8_survive_in_names_of_a_tar(make: Make, tmp_path: Path) -> None:
    members = {f"{i}.png": png(i) for i in range(3)} | {b"caf\xe9.png".decode("utf-8", "surrogateescape"): png(9)}
    data = opened(make(members, tmp_path / "images"))
    names = {part.name(i) for part in (data.train, data.test) for i in range(len(part))}
    assert "caf\\xe9.png" in names


@pytest.mark.parametrize(("mode", "suffix"), [("w", ".tar"), ("w:gz", ".tgz")])
def test_links_and_devices_in_a_tar_are_named_and_not_followed(mode: str, suffix: str, tmp_path: Path) -> None:
    path = as_tar({f"{i}.png": png(i) for i in range(5)}, tmp_path / "plain")
    with tarfile.open(path) as plain, tarfile.open(tmp_path / f"links{suffix}", mode) as file:  # type: ignore[call-overload]
        kinds = {"sym.png": tarfile.SYMTYPE, "hard.png": tarfile.LNKTYPE, "null.png": tarfile.CHRTYPE}
        for name, kind in {**kinds, "pipe.png": tarfile.FIFOTYPE, "link": tarfile.SYMTYPE}.items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            file.addfile(info)
        for info in plain:
            file.addfile(info, plain.extractfile(info))
    data = opened(tmp_path / f"links{suffix}", max_bad_fraction=0.5)
    special, link = "not a regular file (device or FIFO)", "link: members that are links aren't followed"
    assert {item.path: item.reason for item in data.bad} == {
        "sym.png": link,
        "hard.png": link,
        "null.png": special,
        "pipe.png": special,
    }
    assert (data.ignored, len(data.train) + len(data.test)) == (1, 5)


def test_encrypted_and_linked_members_of_a_zip_are_bad(tmp_path: Path) -> None:
    path = as_zip({f"{i}.png": png(i) for i in range(6)}, tmp_path / "images")
    with zipfile.ZipFile(path, "a") as file:
        link = zipfile.ZipInfo("link.png")
        link.create_system, link.external_attr = 3, 0o120777 << 16
        file.writestr(link, "/etc/passwd")
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\1\2") + 8] |= 1  # the flag of the first member in the directory
    path.write_bytes(data)
    found = opened(path, max_bad_fraction=0.5)
    assert {item.path: item.reason for item in found.bad} == {
        "0.png": "encrypted",
        "link.png": "not a regular file (link or device)",
    }


@every_kind
def test_a_member_larger_than_any_image_is_not_read(make: Make, tmp_path: Path) -> None:
    members = {f"{i}.png": png(i) for i in range(5)} | {"zeros.png": bytes(3_000_000)}
    data = opened(make(members, tmp_path / "bomb"), max_bad_fraction=0.5, max_megapixels=0.1)
    assert [(item.path, item.reason) for item in data.bad] == [("zeros.png", "3 MB, more than any image of 0.1 Mpx")]


def test_a_zip_that_lies_about_a_size_is_read_up_to_that_size(tmp_path: Path) -> None:
    path = as_zip({"zeros.png": bytes(50_000_000)} | {f"{i}.png": png(i) for i in range(5)}, tmp_path / "bomb")
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\1\2") + 24
    assert struct.unpack_from("<I", data, at)[0] == 50_000_000
    struct.pack_into("<I", data, at, 1000)
    path.write_bytes(data)
    found = opened(path, max_bad_fraction=0.5)
    assert [item.path for item in found.bad] == ["zeros.png"]
    assert "damaged in the archive" in found.bad[0].reason


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_member_that_can_unpack_to_gigabytes_at_once_is_not_opened(method: int, tmp_path: Path) -> None:
    """zipfile unpacks all of it, however few bytes are asked for."""
    path = as_zip({f"{i}.png": png(i) for i in range(5)}, tmp_path / "images")
    with zipfile.ZipFile(path, "a", method) as file:
        file.writestr("zeros.png", bytes(5_000_000))
    found = opened(path, max_bad_fraction=0.5)
    name = {zipfile.ZIP_BZIP2: "bzip2", zipfile.ZIP_LZMA: "lzma"}[method]
    assert [(item.path, item.reason) for item in found.bad] == [
        ("zeros.png", f"compressed by {name}, which isn't read; pack it again with deflate")
    ]


def test_a_zip_member_whose_bytes_changed_is_bad_and_the_others_are_read(tmp_path: Path) -> None:
    members = {f"{i}.png": png(i) for i in range(6)}
    path = as_zip(members, tmp_path / "images")
    data = bytearray(path.read_bytes())
    at = data.index(b"3.png") + 200
    data[at] ^= 255
    path.write_bytes(data)
    found = opened(path, max_bad_fraction=0.5)
    assert [item.path for item in found.bad] == ["3.png"]
    assert found.bad[0].reason.startswith("damaged in the archive (")


@every_kind
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.97])
def test_an_archive_that_is_cut_is_an_error_that_says_so(make: Make, share: float, tmp_path: Path) -> None:
    path = make({f"{i}.png": png(i, (64, 64)) for i in range(8)}, tmp_path / "images")
    whole = path.read_bytes()
    # tar pads its end with zeros: what is cut there is no part of the archive
    end = len(whole) if path.suffix != ".tar" else len(whole.rstrip(b"\0"))
    path.write_bytes(whole[: int(end * share)])
    with pytest.raises(DataError, match=r"images\..* can't be read as a .*damaged or was cut short; get it again"):
        opened(path)


def test_a_tar_that_ends_between_two_members_is_cut_too(tmp_path: Path) -> None:
    path = as_tar({f"{i}.png": png(i) for i in range(4)}, tmp_path / "images")
    with tarfile.open(path) as file:
        last = file.getmembers()[-1]
    path.write_bytes(path.read_bytes()[: last.offset])
    with pytest.raises(DataError, match="unexpected end of data"):
        opened(path)


@pytest.mark.parametrize("garbage", [b"\x1f\x8b garbage", gzip.compress(b"one file, no tar"), b"PK\3\4 garbage"])
def test_garbage_with_the_signature_of_an_archive_is_damaged(garbage: bytes, tmp_path: Path) -> None:
    (tmp_path / "images.zip").write_bytes(garbage)
    with pytest.raises(DataError, match="it is damaged or was cut short"):
        opened(tmp_path / "images.zip")


def test_a_header_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 1 << 33
    with gzip.open(tmp_path / "bomb.tar.gz", "wb") as file:
        file.write(info.tobuf(tarfile.GNU_FORMAT) + bytes(4096))
    with pytest.raises(DataError, match=r"a header of 8,589,9.* bytes"):
        opened(tmp_path / "bomb.tar.gz")


@every_kind
def test_an_archive_without_an_image_says_what_is_in_it(make: Make, tmp_path: Path) -> None:
    path = make({"a.txt": b"x", "b/c.csv": b"y"}, tmp_path / "images")
    with pytest.raises(MissingInputError, match=r"no image in .*images.*; found 1 .txt, 1 .csv"):
        opened(path)


@every_kind
def test_an_archive_of_bad_images_is_an_error_that_names_them(make: Make, tmp_path: Path) -> None:
    path = make({"a.jpg": b"", "b.png": b"<html>"}, tmp_path / "images")
    with pytest.raises(BadFilesError, match="2 of 2 image files are bad") as error:
        opened(path)
    assert [item.reason for item in error.value.bad] == ["empty file", "not an image (looks like HTML)"]


@pytest.mark.filterwarnings("ignore:Duplicate name")
@every_kind
def test_a_name_that_comes_twice_counts_as_it_came_last(make: Make, tmp_path: Path) -> None:
    first, second = make({"a.png": png(1), "b.png": png(2)}, tmp_path / "x"), tmp_path / "y"
    mode = {".zip": "zip", ".tar": "w", ".gz": "w:gz"}[first.suffix]
    twice = [("a.png", png(7)), ("b.png", png(2)), ("a.png", png(1))]
    if mode == "zip":
        with zipfile.ZipFile(second, "w") as zipped:
            for name, data in twice:
                zipped.writestr(name, data)
    else:
        with tarfile.open(second, mode) as file:  # type: ignore[call-overload]
            for name, data in twice:
                info = tarfile.TarInfo(name)
                info.size = len(data)
                file.addfile(info, io.BytesIO(data))
    data = opened(second)
    assert data.fingerprint == opened(first).fingerprint
    assert "members that are in the archive more than once, of which the last counts: 1" in data.notes


def test_progress_ends_at_the_number_of_images(tmp_path: Path) -> None:
    path = as_tar_gz({f"{i}.png": png(i) for i in range(40)}, tmp_path / "images")
    told: list[tuple[int, int]] = []
    open_data(DataConfig(source=str(path)), 16, progress=lambda done, total: told.append((done, total)))
    assert [done for done, _ in told] == list(range(1, 41))
    assert all(total >= done for done, total in told)
    assert told[-1][1] == 40


def test_a_member_that_was_cut_off_after_it_was_listed_is_no_image(tmp_path: Path) -> None:
    path = as_tar({"a.png": png(1), "b.png": png(2)}, tmp_path / "shots")
    listing = list_source(str(path))
    assert listing is not None
    first, second = listing.members()
    os.truncate(path, 3 * 512 + len(png(1)) + 100)
    assert first.read(-1) == png(1)
    with pytest.raises(UnreadableError, match="cut in the archive"):
        second.read(-1)
    listing.close()
