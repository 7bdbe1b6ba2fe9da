"""reliability.md, section 5: an image file is judged the same, wherever it comes from."""

import io
import struct
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stopgrad.data import BadFilesError, Data, DataConfig, open_data

Members = dict[str, bytes]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STOPGRAD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def picture(
    value: int, kind: str = "PNG", mode: str = "RGB", size: tuple[int, int] = (48, 40), **more: object
) -> bytes:
    pixels = np.random.default_rng(value).integers(0, 256, (size[1], size[0], 4), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode if mode == "RGBA" else "RGB").convert(mode).save(file, kind, **more)
    return file.getvalue()


def upright_six() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return picture(80, "JPEG", exif=exif)


def sixteen_bits() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.arange(48 * 40, dtype=np.uint16).reshape(40, 48) * 34).save(file, "PNG")
    return file.getvalue()


def bomb() -> bytes:
    """A PNG whose header asks for 20,000 x 20,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


JPEG = picture(1, "JPEG")
BAD: Members = {
    "cut.jpg": JPEG[: len(JPEG) * 6 // 10],
    "empty.png": b"",
    "page.jpg": b"<!doctype html><html></html>",
    "bomb.png": bomb(),
    "thin.png": picture(70, size=(400, 3)),
    "=odd\n,\"'<script>.jpg": b"text",
}
GOOD: Members = {f"{i:02}.png": picture(i) for i in range(20)} | {
    "no-end-marker.jpg": picture(60, "JPEG")[:-2],
    "cmyk.jpg": picture(61, "JPEG", "CMYK"),
    "deep.png": sixteen_bits(),
    "alpha.png": picture(62, mode="RGBA"),
    "turned.jpg": upright_six(),
    "moving.gif": picture(63, "GIF", "L", save_all=True, append_images=[Image.new("L", (48, 40))]),
    "really-a-png.jpg": picture(64),
    "copy.png": picture(3),
}


def as_folder(members: Members, path: Path) -> str:
    path.mkdir()
    for name, data in members.items():
        (path / name).write_bytes(data)
    return str(path)


def as_list(members: Members, path: Path) -> str:
    """Relative paths: a name with a line break can't be said in it."""
    as_folder(members, path)
    (path / "all.txt").write_bytes(b"\n".join(name.encode() for name in members))
    return str(path / "all.txt")


def as_zip(members: Members, path: Path) -> str:
    with zipfile.ZipFile(f"{path}.zip", "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return f"{path}.zip"


def as_tar(members: Members, path: Path, mode: str = "w") -> str:
    with tarfile.open(f"{path}.tar{mode[2:] and '.gz'}", mode) as file:  # type: ignore[call-overload]
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return f"{path}.tar{mode[2:] and '.gz'}"


def as_tar_gz(members: Members, path: Path) -> str:
    return as_tar(members, path, "w:gz")


def as_hub(members: Members, path: Path) -> str:
    datasets = pytest.importorskip("datasets", reason="the extra hf is not installed")
    datasets.disable_progress_bars()
    rows = [{"bytes": members[name], "path": None} for name in sorted(members)]
    features = datasets.Features(image=datasets.Image(), n=datasets.Value("int64"))
    table = datasets.Dataset.from_dict({"image": rows, "n": list(range(len(rows)))}, features)
    table.save_to_disk(path)
    return f"hf:{path}"


KINDS: list[Callable[[Members, Path], str]] = [as_folder, as_list, as_zip, as_tar, as_tar_gz, as_hub]


def opened(source: str, allowed: float) -> Data:
    return open_data(DataConfig(source=source, max_side=64, max_bad_fraction=allowed), image_size=32)


@pytest.mark.skipif(sys.platform == "win32", reason="names that Windows does not have")
@pytest.mark.parametrize("make", KINDS[1:])
def test_bad_and_odd_images_are_judged_as_in_a_folder(make: Callable[[Members, Path], str], tmp_path: Path) -> None:
    members = GOOD | BAD
    if make is as_list:
        members = {name.replace("\n", "-"): data for name, data in members.items()}
    folder = opened(as_folder(members, tmp_path / "folder"), 0.5)
    assert len(folder.bad) == len(BAD)
    other = make(members, tmp_path / "other")
    data = opened(other, 0.5)
    assert data.fingerprint == folder.fingerprint
    if make is as_hub:  # rows have numbers: no names, no extensions
        assert set(data.notes) == {note for note in folder.notes if "extension" not in note}
        assert sorted(item.reason for item in data.bad) == sorted(item.reason for item in folder.bad)
    else:
        assert (data.bad, data.notes) == (folder.bad, folder.notes)
    with pytest.raises(BadFilesError, match=r"6 of 34 image files are bad, 17\.6 % where .* allows 5 %") as error:
        opened(other, 0.05)
    assert error.value.bad == data.bad
    assert not any(set(item.path) & set("\n\r\0") for item in data.bad)
