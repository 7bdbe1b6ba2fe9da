"""The packed store: every image, or sound, of a source, decoded once, in one memory-mapped file.

A store is a folder in the cache, named by a key over all that its content depends on. It can be deleted at any time;
the next run builds it again. It appears whole (built under another name, fsynced, renamed), one builder at a time holds
the lock while others wait for it, and one whose files do not fit its header is built again. Opening reads a few arrays
and maps the pixels: nothing grows with the number of images but those arrays.

    header.json   format, dtype, channels, count, bytes of every file, checksums of the arrays, facts of the source
    pixels.bin    uint8 or uint16, [H, W, C] of image 0, then of image 1, ...; where channels is 0: int16, [T] of
                  sound 0, then of sound 1, ...
    sizes.npy     [N, 2] height, width; [N, 1] length where channels is 0
    hashes.npy    [N] content of the source file
    labels.npy    [N], -1: none             split.npy    [N] 0 train, 1 test
    names.bin     what the source calls each image, UTF-8, one after the other; with names.npy [N + 1], where each
                  begins. Both are left out where the source names nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import DTypeLike, NDArray

from stopgrad.contracts import StorageError
from stopgrad.rundir import as_size, failpoint, free_bytes, sync_folder

FORMAT = 1  # of the files below; part of every key, so an older store is left alone
ARRAYS = ("sizes", "hashes", "labels", "split")
HEADER, PIXELS, NAMES = "header.json", "pixels.bin", "names.bin"
DTYPES = ("uint8", "uint16", "int16")
FIX = "free some space, or choose another: STOPGRAD_CACHE=/folder/with/space"
COPIED = (
    1 << 16
)  # bytes of an image up to which a batch is one array; to copy a larger one takes longer than to find it
ROOM_EVERY = 256  # images read between two looks at what is free
TOO_MUCH = 1.25  # times what is free gives a store up; a little less may fit, if the rest is not like the first images


class DamagedPackError(Exception):
    """A store whose files do not fit its header; the message says how."""


def cache_root() -> Path:
    """Where stores live: STOPGRAD_CACHE, else XDG_CACHE_HOME/stopgrad, else ~/.cache/stopgrad."""
    if own := os.environ.get("STOPGRAD_CACHE"):
        return Path(own).expanduser().absolute()
    if xdg := os.environ.get("XDG_CACHE_HOME"):
        return Path(xdg) / "stopgrad"
    return Path("~/.cache/stopgrad").expanduser()


def digest(*parts: bytes) -> str:
    """32 hex digits over the parts and where each ends."""
    state = hashlib.blake2b(digest_size=16)
    for part in parts:
        state.update(len(part).to_bytes(8, "little"))
        state.update(part)
    return state.hexdigest()


class Pack:
    """An open store. Raises FileNotFoundError where there is none, DamagedPackError where it is not whole."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.header = _read_header(folder)
        for name, expected in self.header["bytes"].items():
            path = folder / name
            found = path.stat().st_size if path.exists() else 0
            if found != expected:
                raise DamagedPackError(f"{name} has {found:,} bytes, its header says {expected:,}")
        arrays = {name: self._array(name) for name in ARRAYS}
        self.sizes: NDArray[np.int64] = arrays["sizes"]  # [N, 2], of sounds [N, 1]
        self.hashes: NDArray[np.uint64] = arrays["hashes"]  # [N]
        self.labels: NDArray[np.int64] = arrays["labels"]  # [N]
        self.split: NDArray[np.uint8] = arrays["split"]  # [N]
        self.channels: int = self.header["channels"]  # 0: rows are sounds, [T]
        self.facts: dict[str, Any] = self.header["facts"]
        lengths = self.sizes.prod(axis=1) * max(1, self.channels)
        self.offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])  # [N + 1]
        self.dtype: np.dtype[Any] = np.dtype(self.header["dtype"])
        mapped = np.memmap(folder / PIXELS, dtype=self.dtype, mode="r")
        self.pixels: NDArray[Any] = np.asarray(mapped)  # a plain view: slicing a memmap is slower
        self._named: tuple[NDArray[np.int64], NDArray[np.uint8]] | None = None  # where each begins, the bytes
        if NAMES in self.header["bytes"]:
            self._named = self._array("names"), np.memmap(folder / NAMES, dtype=np.uint8, mode="r")

    def __len__(self) -> int:
        return len(self.sizes)

    def row(self, row: int) -> NDArray[Any]:
        """[H, W, C] or [T], where it lies: it can't be written to."""
        flat = self.pixels[self.offsets[row] : self.offsets[row + 1]]
        return flat.reshape(*self.sizes[row], *last_axis(self.channels))

    def name(self, row: int) -> str:
        """What the source calls the image at `row`, escaped; `image 17` where it said nothing."""
        if self._named is not None:
            begins, letters = self._named
            if text := bytes(letters[begins[row] : begins[row + 1]]):
                return text.decode("utf-8")
        return f"image {row}"

    def _array(self, name: str) -> NDArray[Any]:
        data = (self.folder / f"{name}.npy").read_bytes()
        if digest(data) != self.header["checksums"][name]:
            raise DamagedPackError(f"{name}.npy is not what was written")
        with (self.folder / f"{name}.npy").open("rb") as file:
            return np.asarray(np.load(file, allow_pickle=False))


def last_axis(channels: int) -> tuple[int, ...]:
    """What the shape of every row ends in."""
    return (channels,) if channels else ()


def _read_header(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise FileNotFoundError(folder)
    try:
        sealed = json.loads((folder / HEADER).read_bytes())
        header = sealed["header"]
        whole = digest(_canonical(header)) == sealed["checksum"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedPackError(f"{HEADER} can't be read") from error
    if not whole:
        raise DamagedPackError(f"{HEADER} is not what was written")
    return dict(header)


def _canonical(header: Mapping[str, Any]) -> bytes:
    return json.dumps(header, sort_keys=True, allow_nan=False).encode()


class PackedImages:
    """Part of a store as a split: what lies at `rows` [N], and its labels. A pickled copy maps the store again.

    Images are copied when they are read; sounds, of which only a part is used, are read where they lie.
    """

    def __init__(self, pack: Pack, rows: NDArray[np.int64], labelled: bool) -> None:
        self.pack = pack
        self.rows = rows
        self.labels: NDArray[np.int64] | None = pack.labels[rows] if labelled else None
        sizes = pack.sizes[rows]
        self._uniform = len(rows) > 0 and bool((sizes == sizes[0]).all())
        everywhere = self._uniform and bool((pack.sizes == sizes[0]).all())
        self._stack: NDArray[Any] | None = None  # [N of the store, H, W, C]
        if everywhere and pack.channels:
            self._stack = pack.pixels.reshape(len(pack), *pack.sizes[0], pack.channels)

    def __reduce__(self) -> tuple[Any, ...]:
        return _mapped_again, (self.pack.folder, self.rows, self.labels is not None)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> NDArray[Any]:
        found = self.pack.row(int(self.rows[index]))
        return found.copy() if self.pack.channels else found  # a copy: the map can't be written to

    def name(self, index: int) -> str:
        """What the source calls an image, escaped; `image 17`, by its place in the store, where it has no name."""
        return self.pack.name(int(self.rows[index]))

    def take(self, index: NDArray[np.int64]) -> Sequence[NDArray[Any]]:
        """[B, H, W, C] where all images of the split have one size and are small, else B arrays [H, W, C]; or [T]."""
        if self._stack is not None:
            return together(self._stack, self.rows[index])
        images = [self[int(i)] for i in index]
        small = self.pack.channels and self._uniform and images and images[0].nbytes <= COPIED
        return np.stack(images) if small else images  # type: ignore[return-value]


def together(stack: NDArray[Any], rows: NDArray[np.int64]) -> Sequence[NDArray[Any]]:
    """The images at `rows` of [N, H, W, C]: copied into one array where they are small, else each where it lies."""
    if len(stack) and stack[0].nbytes > COPIED:
        return [stack[row] for row in rows.tolist()]
    return stack[rows]  # type: ignore[return-value]  # an array is a sequence of its rows


def _mapped_again(folder: Path, rows: NDArray[np.int64], labelled: bool) -> PackedImages:
    return PackedImages(Pack(folder), rows, labelled)


class PackWriter:
    """Fills the folder of a store that is being built: images or sounds one after the other, then `finish`.

    channels: of every image; 0 for sounds, [T].  dtype: of every one, of DTYPES.
    """

    def __init__(self, folder: Path, channels: int, dtype: DTypeLike = np.uint8) -> None:
        self.folder = folder
        self.channels = channels
        self.axes = 2 if channels else 1  # of a row, that differ between rows
        self.dtype = np.dtype(dtype)
        assert self.dtype.name in DTYPES
        self.sizes, self.hashes = array("q"), array("Q")
        self._begins = array("q", [0])  # of the names
        self._pixels: BinaryIO = (folder / PIXELS).open("wb", buffering=1 << 20)
        self._names: BinaryIO = (folder / NAMES).open("wb", buffering=1 << 16)

    def __len__(self) -> int:
        return len(self.hashes)

    def add(self, pixels: NDArray[Any], content: int, name: str = "") -> None:
        """pixels: [H, W, C] or [T], contiguous, of the store's dtype.  content: 64 bits over the source file.

        name: what the source calls it, escaped (`folder.escape_name`).
        """
        free = pixels.shape[: self.axes]
        if pixels.dtype != self.dtype or pixels.shape != (*free, *last_axis(self.channels)) or len(free) != self.axes:
            shape = f"[H, W, {self.channels}]" if self.channels else "[T]"
            raise ValueError(f"the store holds {self.dtype}, {shape}; got {pixels.dtype}, {pixels.shape}")
        self._pixels.write(pixels.data)
        self.sizes.extend(free)
        self.hashes.append(content)
        self._begins.append(self._begins[-1] + self._names.write(name.encode("utf-8")))

    def check_room(self, done: int, total: int) -> None:
        """To be called after each of `total` images that are read, whether or not it was added.

        Raises StorageError where those to come will not fit, long before the disk is full.
        """
        if done % ROOM_EVERY == 0 and (free := free_bytes(self.folder)) is not None:
            left = self._pixels.tell() / done * (total - done)
            if left > TOO_MUCH * free:
                what = "images" if self.channels else "sounds"
                raise StorageError(
                    f"cache folder {self.folder.parent}: {total:,} decoded {what} need about {as_size(left)} more, "
                    f"by the first {done:,}, and {as_size(free)} are free; {FIX}"
                )

    def content(self) -> NDArray[np.uint64]:
        """[N], what was added, by content."""
        return np.array(self.hashes, np.uint64)

    def finish(self, labels: NDArray[np.int64], split: NDArray[np.uint8], facts: Mapping[str, Any]) -> None:
        """labels, split: [N].  facts: what the source wants to know when the store is opened; JSON."""
        _sync(self._pixels)
        _sync(self._names)
        arrays: dict[str, NDArray[Any]] = {
            "sizes": np.array(self.sizes, np.int64).reshape(-1, self.axes),
            "hashes": self.content(),
            "labels": labels.astype(np.int64),
            "split": split.astype(np.uint8),
        }
        files = [PIXELS]
        if self._begins[-1]:
            arrays["names"] = np.array(self._begins, np.int64)
            files.append(NAMES)
        else:
            (self.folder / NAMES).unlink()
        for name, values in arrays.items():
            with (self.folder / f"{name}.npy").open("wb") as file:
                np.save(file, values, allow_pickle=False)
                _sync(file)
        files += [f"{name}.npy" for name in arrays]
        header = {
            "format": FORMAT,
            "dtype": self.dtype.name,
            "channels": self.channels,
            "count": len(self),
            "bytes": {name: (self.folder / name).stat().st_size for name in files},
            "checksums": {name: digest((self.folder / f"{name}.npy").read_bytes()) for name in arrays},
            "facts": dict(facts),
        }
        sealed = {"checksum": digest(_canonical(header)), "header": header}
        with (self.folder / HEADER).open("wb") as file:
            file.write(json.dumps(sealed, indent=1).encode())
            _sync(file)
        sync_folder(self.folder)

    def close(self) -> None:
        with contextlib.closing(self._names):  # also where the disk is full, and the last pixels can't be flushed
            self._pixels.close()


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def open_or_build(
    key: str, channels: int, build: Callable[[PackWriter], None], dtype: DTypeLike = np.uint8
) -> tuple[Pack, tuple[str, ...]]:
    """The store of `key`, built by `build` where there is none; and notes on a damaged one that was replaced.

    channels, dtype: of a store that is built, as `PackWriter` has them; the key must tell them apart.

    Of several callers at once, in any number of processes, one builds and the others wait for it. What `build` raises
    leaves nothing behind. Raises StorageError where the cache can't be written.
    """
    root = cache_root()
    try:
        with contextlib.suppress(FileNotFoundError, DamagedPackError):
            return Pack(root / key), ()  # nothing is written for this: a finished store can be read-only
        root.mkdir(parents=True, exist_ok=True)
        with _locked(root / f"{key}.lock") as alone:
            notes: tuple[str, ...] = ()
            try:
                return Pack(root / key), ()  # another run finished it while this one waited
            except FileNotFoundError:
                pass
            except DamagedPackError as damage:
                notes = (f"the store {root / key} was damaged ({damage}) and was built again",)
                _remove(root / key)
            if alone:
                for leftover in [
                    *root.glob(f"{key}.tmp-*"),
                    *root.glob(f"{key}.old-*"),
                ]:  # of a builder that was killed
                    shutil.rmtree(leftover, ignore_errors=True)
            _build(root, key, channels, build, dtype)
            return Pack(root / key), notes
    except OSError as error:
        raise storage_error(root, error) from error


def _build(root: Path, key: str, channels: int, build: Callable[[PackWriter], None], dtype: DTypeLike) -> None:
    temporary = Path(tempfile.mkdtemp(prefix=f"{key}.tmp-", dir=root))
    try:
        writer = PackWriter(temporary, channels, dtype)
        with contextlib.closing(writer):
            build(writer)
        failpoint("before_pack_replace")
        with contextlib.suppress(FileExistsError):  # no locks on this file system, and another builder was first
            _rename(temporary, root / key)
        sync_folder(root)
    except OSError as error:  # told before what was written is removed: later, more is free than there was
        raise storage_error(root, error, sum(file.stat().st_size for file in temporary.glob("*"))) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _rename(source: Path, target: Path) -> None:
    try:
        source.replace(target)
    except OSError as error:
        if not target.is_dir():
            raise
        raise FileExistsError(target) from error


def _remove(folder: Path) -> None:
    """Out of sight first, so that nobody opens half a store."""
    aside = folder.with_name(f"{folder.name}.old-{os.getpid()}")
    folder.replace(aside)
    shutil.rmtree(aside, ignore_errors=True)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[bool]:
    """Holds the lock, which the kernel lets go when its holder dies. Yields False where the file system has none."""
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:
            yield False
        else:
            yield True


def storage_error(root: Path, error: OSError, begun: int = 0) -> StorageError:
    """The one sentence for a cache that can't be written.  begun: bytes of a store that is given up."""
    given_up = f" with {as_size(begun)} of a store written, which are removed" if begun else ""
    free = ""
    with contextlib.suppress(OSError):
        free = f", {shutil.disk_usage(root).free / 1e6:,.0f} MB free"
    return StorageError(f"cache folder {root}: can't be written ({error.strerror or error}{free}{given_up}); {FIX}")
