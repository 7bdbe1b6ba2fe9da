"""A cache without room: told early where that can be known, in one line, and no half store is left."""

import errno
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stopgrad.contracts import StorageError
from stopgrad.data import DataConfig, open_data, pack
from stopgrad.data.pack import PackWriter, open_or_build
from tests.data.test_archives import as_folder, as_tar_gz, png

BYTES = 16 * 12 * 3  # of a stored image


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STOPGRAD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(pack, "ROOM_EVERY", 4)
    return tmp_path / "cache"


def free_is(monkeypatch: pytest.MonkeyPatch, count: float | None) -> list[Path]:
    asked: list[Path] = []
    monkeypatch.setattr(pack, "free_bytes", lambda path: (asked.append(path), count)[1])
    return asked


def left_in(cache: Path) -> list[str]:
    return [path.name for path in cache.iterdir() if path.suffix != ".lock"]


@pytest.mark.parametrize("make", [as_folder, as_tar_gz])
def test_a_store_that_will_not_fit_is_given_up_after_the_first_images(
    make: Any, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make({f"{i:03d}.png": png(i, (64, 48)) for i in range(200)}, tmp_path / "photos")
    done: list[int] = []
    asked = free_is(monkeypatch, 3 * 64 * 48 * 3)
    with pytest.raises(StorageError, match=r"cache folder .*/cache: .* by the first 4, .*STOPGRAD_CACHE=/") as caught:
        open_data(DataConfig(source=str(source)), 16, progress=lambda at, total: done.append(at))
    assert len(done) == 3
    assert caught.value.exit_code == 74
    assert "\n" not in str(caught.value)
    assert asked[0].parent == cache
    assert left_in(cache) == []


def test_a_store_that_fits_is_built_and_what_is_left_to_write_is_what_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = as_folder({f"{i:02d}.png": png(i) for i in range(40)}, tmp_path / "photos")
    asked = free_is(monkeypatch, 36 * BYTES / pack.TOO_MUCH)
    assert len(open_data(DataConfig(source=str(source)), 16).train) > 0
    assert len(asked) == 10


def test_files_that_are_no_images_are_not_expected_to_need_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = {f"{i:02d}.png": png(i) if i % 4 == 0 else b"<html>" for i in range(40)}
    free_is(monkeypatch, 9 * BYTES / pack.TOO_MUCH)
    data = open_data(DataConfig(source=str(as_folder(members, tmp_path / "p")), max_bad_fraction=1.0), 16)
    assert len(data.bad) == 30


def test_a_file_system_that_tells_no_size_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free_is(monkeypatch, None)
    source = as_folder({f"{i:02d}.png": png(i) for i in range(8)}, tmp_path / "photos")
    assert len(open_data(DataConfig(source=str(source)), 16).train) > 0


def test_scenes_that_will_not_fit_are_given_up_too(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free_is(monkeypatch, 32 * 32 * 3 * 56 / pack.TOO_MUCH - 1)
    with pytest.raises(StorageError, match=r"60 decoded images need about 0\.2 MB more, by the first 4"):
        open_data(DataConfig(source="scenes", limit=50), 32)
    assert left_in(cache) == []


class Full(io.FileIO):
    """A file on a disk that has room for 1,000 bytes more."""

    def write(self, data: Any) -> int:
        if self.tell() + len(data) > 1_000:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(data) or 0


@pytest.mark.parametrize("images", [1, 500])  # found out at the end, found out on the way
@pytest.mark.parametrize("name", ["pixels.bin", "names.bin"])
def test_a_disk_that_fills_up_leaves_no_half_store_and_says_how_far_it_came(
    images: int, name: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, files = Path.open, []

    def open_full(self: Path, mode: str = "r", *rest: Any, **more: Any) -> Any:
        if self.name != name or "w" not in mode:
            return opened(self, mode, *rest, **more)
        files.append(io.BufferedWriter(Full(self, "w"), 4_000))
        return files[-1]

    def fill(writer: PackWriter) -> None:
        for i in range(images):
            writer.add(np.zeros((20, 20, 3), np.uint8), i, "n" * 1_100)
        writer.finish(np.zeros(images), np.zeros(images), {})

    monkeypatch.setattr(Path, "open", open_full)
    with pytest.raises(StorageError, match=r"No space left on device, [\d,]+ MB free.*STOPGRAD_CACHE=/") as caught:
        open_or_build("key", 3, fill)
    assert caught.value.exit_code == 74
    assert left_in(cache) == []
    assert all(file.closed for file in files)
    if images > 1:
        assert "MB of a store written, which are removed" in str(caught.value)
