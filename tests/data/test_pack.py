"""The packed store: whole or absent, built once, safe to delete, opened without a thing per image."""

import multiprocessing
import os
import pickle
import shutil
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from stopgrad.contracts import DataError, StorageError
from stopgrad.data.pack import (
    Pack,
    PackedImages,
    PackWriter,
    cache_root,
    digest,
    open_or_build,
)

SIZES = [(8, 9), (10, 8), (8, 9)]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STOPGRAD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def pictures(sizes: list[tuple[int, int]], channels: int = 3) -> list[NDArray[np.uint8]]:
    draw = np.random.default_rng(0)
    return [draw.integers(0, 256, (*size, channels), np.uint8) for size in sizes]


def filler(sizes: list[tuple[int, int]], channels: int = 3) -> Callable[[PackWriter], None]:
    def fill(writer: PackWriter) -> None:
        for i, pixels in enumerate(pictures(sizes, channels)):
            writer.add(pixels, 2**64 - 1 - i)
        count = len(sizes)
        writer.finish(np.arange(count) % 2, np.zeros(count, np.uint8), {"said": "so"})

    return fill


def forbidden(writer: PackWriter) -> None:
    raise AssertionError("built again")


def all_of(pack: Pack, labelled: bool = True) -> PackedImages:
    return PackedImages(pack, np.arange(len(pack)), labelled)


@pytest.mark.parametrize("channels", [1, 3])
def test_what_was_added_is_what_is_read(channels: int) -> None:
    pack, notes = open_or_build("key", channels, filler(SIZES, channels))
    images = all_of(pack)
    assert notes == ()
    assert len(images) == 3
    for i, expected in enumerate(pictures(SIZES, channels)):
        assert (images[i] == expected).all()
        assert images[i].shape == expected.shape
    assert images.labels is not None
    assert images.labels.tolist() == [0, 1, 0]
    assert pack.hashes.tolist() == [2**64 - 1 - i for i in range(3)]
    assert pack.facts == {"said": "so"}
    assert (pack.header["dtype"], pack.header["channels"], pack.header["count"]) == ("uint8", channels, 3)


def test_sixteen_bits_are_kept(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    images = [draw.integers(0, 65536, (*size, 5), np.uint16) for size in SIZES]

    def fill(writer: PackWriter) -> None:
        for pixels in images:
            writer.add(pixels, 1)
        writer.finish(np.zeros(3), np.zeros(3), {})

    pack, _ = open_or_build("wide", 5, fill, np.uint16)
    assert (pack.header["dtype"], pack.dtype) == ("uint16", np.uint16)
    for i, expected in enumerate(images):
        found = all_of(pack)[i]
        assert found.dtype == np.uint16
        assert (found == expected).all()
    part = PackedImages(pack, np.array([0, 2]), True).take(np.array([1, 0]))
    assert isinstance(part, np.ndarray)
    assert (part == np.stack([images[2], images[0]])).all()
    writer = PackWriter(tmp_path, 5, np.uint16)
    for wrong in (np.zeros((4, 4, 5), np.uint8), np.zeros((4, 4, 3), np.uint16), np.zeros((4, 4), np.uint16)):
        with pytest.raises(ValueError, match="the store holds uint16"):
            writer.add(wrong, 0)
    writer.close()


def test_sounds_are_rows_of_one_axis(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    sounds = [draw.integers(-32768, 32768, length, np.int16) for length in (5, 300, 5)]

    def fill(writer: PackWriter) -> None:
        for samples in sounds:
            writer.add(samples, 1)
        writer.finish(np.zeros(3), np.zeros(3), {})

    pack, _ = open_or_build("sounds", 0, fill, np.int16)
    assert (pack.header["dtype"], pack.channels, pack.sizes.tolist()) == ("int16", 0, [[5], [300], [5]])
    for i, expected in enumerate(sounds):
        assert (all_of(pack)[i] == expected).all()
    part = PackedImages(pack, np.array([2, 0]), True).take(np.array([1, 0, 1]))
    assert isinstance(part, list)
    assert [samples.tolist() for samples in part] == [sounds[0].tolist(), sounds[2].tolist(), sounds[0].tolist()]
    (tmp_path / "other").mkdir()
    writer = PackWriter(tmp_path / "other", 0, np.int16)
    for wrong in (np.zeros(4, np.uint8), np.zeros((4, 4), np.int16), np.zeros((), np.int16)):
        with pytest.raises(ValueError, match=r"the store holds int16, \[T\]"):
            writer.add(wrong, 0)
    writer.close()


def test_names_are_kept_and_a_store_without_them_opens(cache: Path) -> None:
    names = ["a/\u00fc b.png", "", "c/d.png"]

    def fill(writer: PackWriter) -> None:
        for pixels, name in zip(pictures(SIZES), names, strict=True):
            writer.add(pixels, 1, name)
        writer.finish(np.zeros(3), np.zeros(3), {})

    pack, _ = open_or_build("named", 3, fill)
    assert [all_of(pack).name(i) for i in range(3)] == ["a/\u00fc b.png", "image 1", "c/d.png"]
    assert pickle.loads(pickle.dumps(PackedImages(pack, np.array([2, 0]), True))).name(0) == "c/d.png"
    plain, _ = open_or_build("plain", 3, filler(SIZES))
    assert [PackedImages(plain, np.array([2, 0]), True).name(i) for i in range(2)] == ["image 2", "image 0"]
    # the files of the former format, which old caches hold
    assert sorted(path.name for path in (cache / "plain").iterdir()) == [
        "hashes.npy",
        "header.json",
        "labels.npy",
        "pixels.bin",
        "sizes.npy",
        "split.npy",
    ]
    assert sorted(plain.header) == ["bytes", "channels", "checksums", "count", "dtype", "facts", "format"]


@pytest.mark.parametrize("name", ["names.bin", "names.npy"])
def test_damaged_names_are_noticed(cache: Path, name: str) -> None:
    def fill(writer: PackWriter) -> None:
        for pixels in pictures(SIZES):
            writer.add(pixels, 1, "some/name.png")
        writer.finish(np.zeros(3), np.zeros(3), {})

    open_or_build("key", 3, fill)
    path = cache / "key" / name
    path.write_bytes(path.read_bytes()[:-1])
    _, notes = open_or_build("key", 3, fill)
    assert "was damaged" in notes[0]


def test_images_of_one_size_come_stacked_and_others_as_a_list() -> None:
    same = all_of(open_or_build("same", 3, filler([(8, 9)] * 4))[0])
    mixed = all_of(open_or_build("mixed", 3, filler(SIZES))[0])
    index = np.array([3, 0, 3])
    stacked = same.take(index)
    assert isinstance(stacked, np.ndarray)
    assert stacked.shape == (3, 8, 9, 3)
    assert (stacked == np.stack([pictures([(8, 9)] * 4)[i] for i in index])).all()
    listed = mixed.take(np.array([2, 0]))
    assert isinstance(listed, list)
    assert [image.shape for image in listed] == [(8, 9, 3), (8, 9, 3)]
    part = PackedImages(mixed.pack, np.array([2, 0]), labelled=False)  # all of one size in a store of several
    assert isinstance(part.take(np.array([1])), np.ndarray)
    assert (part.take(np.array([1]))[0] == pictures(SIZES)[0]).all()
    assert part.labels is None


def test_what_is_read_can_be_written_to_without_touching_the_store() -> None:
    for sizes in ([(8, 9)] * 3, SIZES):
        images = all_of(open_or_build(f"key{len(set(sizes))}", 3, filler(sizes))[0])
        images[0][:] = 0
        images.take(np.array([0]))[0][:] = 0
        assert (images[0] == pictures(sizes)[0]).all()


def test_a_store_is_built_once_and_then_opened(cache: Path) -> None:
    open_or_build("key", 3, filler(SIZES))
    before = {path: path.stat().st_mtime_ns for path in (cache / "key").iterdir()}
    open_or_build("key", 3, forbidden)
    assert {path: path.stat().st_mtime_ns for path in (cache / "key").iterdir()} == before


def test_a_deleted_store_is_built_again_and_an_open_one_stays_readable(cache: Path) -> None:
    images = all_of(open_or_build("key", 3, filler(SIZES))[0])
    shutil.rmtree(cache / "key")
    assert (images[1] == pictures(SIZES)[1]).all()
    again, notes = open_or_build("key", 3, filler(SIZES))
    assert (all_of(again)[1] == images[1]).all()
    assert notes == ()


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))


def flip_count(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'"count": 3', b'"count": 2'))


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize(
    ("name", "damage", "said"),
    [
        ("pixels.bin", cut, "pixels.bin has 671 bytes, its header says 672"),
        ("pixels.bin", Path.unlink, "pixels.bin has 0 bytes"),
        ("sizes.npy", cut, "sizes.npy has"),
        ("labels.npy", flip, "labels.npy is not what was written"),
        ("header.json", cut, "header.json can't be read"),
        ("header.json", empty, "header.json can't be read"),
        ("header.json", Path.unlink, "header.json can't be read"),
        ("header.json", flip_count, "header.json is not what was written"),
    ],
)
def test_a_damaged_store_is_built_again_and_says_so(
    cache: Path, name: str, damage: Callable[[Path], None], said: str
) -> None:
    open_or_build("key", 3, filler(SIZES))
    damage(cache / "key" / name)
    pack, notes = open_or_build("key", 3, filler(SIZES))
    assert (all_of(pack)[2] == pictures(SIZES)[2]).all()
    assert said in notes[0]
    assert "was built again" in notes[0]
    assert sorted(path.name for path in cache.iterdir()) == ["key", "key.lock"]
    open_or_build("key", 3, forbidden)


def test_a_builder_that_fails_leaves_nothing_behind(cache: Path) -> None:
    def fail(writer: PackWriter) -> None:
        writer.add(pictures(SIZES)[0], 1)
        raise DataError("no")

    with pytest.raises(DataError, match="no"):
        open_or_build("key", 3, fail)
    assert [path.name for path in cache.iterdir()] == ["key.lock"]


def build_and_die(point: str) -> None:
    os.environ["STOPGRAD_FAILPOINT"] = point

    def fill(writer: PackWriter) -> None:
        filler(SIZES)(writer)
        if point == "in the middle":
            os._exit(137)

    open_or_build("key", 3, fill)


@pytest.mark.parametrize("point", ["in the middle", "before_pack_replace"])
def test_a_killed_builder_leaves_no_store_and_its_remains_are_cleared(cache: Path, point: str) -> None:
    child = multiprocessing.get_context("spawn").Process(target=build_and_die, args=(point,))
    child.start()
    child.join()
    assert child.exitcode == 137
    assert not (cache / "key").exists()
    assert list(cache.glob("key.tmp-*"))
    open_or_build("key", 3, filler(SIZES))
    assert sorted(path.name for path in cache.iterdir()) == ["key", "key.lock"]


def build_slowly(barrier: Any, built: Any, answers: Any) -> None:
    def fill(writer: PackWriter) -> None:
        with built.get_lock():
            built.value += 1
        filler(SIZES)(writer)

    barrier.wait()
    pack, _ = open_or_build("key", 3, fill)
    answers.put(digest(pack.pixels.tobytes()))


def test_of_processes_that_build_at_once_one_builds_and_all_read_the_same() -> None:
    context = multiprocessing.get_context("spawn")
    barrier, built, answers = context.Barrier(3), context.Value("i", 0), context.Queue()
    children = [context.Process(target=build_slowly, args=(barrier, built, answers)) for _ in range(3)]
    for child in children:
        child.start()
    found = {answers.get(timeout=120) for _ in children}
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0, 0, 0]
    assert built.value == 1
    assert len(found) == 1


def test_of_threads_that_build_at_once_one_builds_too() -> None:
    barrier, built = threading.Barrier(4), []

    def fill(writer: PackWriter) -> None:
        built.append(1)
        filler(SIZES)(writer)

    def work() -> None:
        barrier.wait()
        open_or_build("key", 3, fill)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert built == [1]


def test_without_locks_the_second_builder_takes_the_store_of_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("stopgrad.data.pack.fcntl.flock", no_locks)

    def overtaken(writer: PackWriter) -> None:
        open_or_build("key", 3, filler(SIZES))  # another process, faster
        filler(SIZES)(writer)

    pack, _ = open_or_build("key", 3, overtaken)
    assert (all_of(pack)[0] == pictures(SIZES)[0]).all()
    assert sorted(path.name for path in cache_root().iterdir()) == ["key", "key.lock"]


def test_a_pickled_split_maps_the_store_again_and_carries_no_pixels() -> None:
    images = all_of(open_or_build("key", 3, filler([(200, 200)] * 4))[0])
    data = pickle.dumps(images)
    assert len(data) < 2_000
    assert (pickle.loads(data)[3] == images[3]).all()


@pytest.mark.parametrize("name", ["STOPGRAD_CACHE", "XDG_CACHE_HOME", "HOME"])
def test_the_cache_is_where_the_environment_says(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for other in ("STOPGRAD_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(name, str(tmp_path))
    below = {"STOPGRAD_CACHE": "", "XDG_CACHE_HOME": "stopgrad", "HOME": ".cache/stopgrad"}
    assert cache_root() == tmp_path / below[name]


def test_a_cache_that_can_not_be_written_is_an_error_that_says_what_to_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("STOPGRAD_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(StorageError, match=r"cache folder .*can't be written.*STOPGRAD_CACHE=/"):
        open_or_build("key", 3, filler(SIZES))


def test_a_full_disk_is_an_error_that_says_so_and_leaves_nothing(cache: Path) -> None:
    def full(writer: PackWriter) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(StorageError, match=r"No space left on device, [\d,]+ MB free.*STOPGRAD_CACHE="):
        open_or_build("key", 3, full)
    assert [path.name for path in cache.iterdir()] == ["key.lock"]


def test_a_finished_store_opens_from_a_cache_that_is_read_only(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_or_build("key", 3, filler(SIZES))

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    monkeypatch.setattr("stopgrad.data.pack.fcntl.flock", refuse)
    open_or_build("key", 3, forbidden)


def test_opening_makes_no_object_per_image() -> None:
    count = 20_000

    def fill(writer: PackWriter) -> None:
        pixels = np.zeros((1, 1, 1), np.uint8)
        for i in range(count):
            writer.add(pixels, i)
        writer.finish(np.zeros(count), np.zeros(count), {})

    open_or_build("key", 1, fill)
    tracemalloc.start()
    images = all_of(open_or_build("key", 1, forbidden)[0])
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(images) == count
    assert kept < 60 * count + 200_000  # seven numbers an image
