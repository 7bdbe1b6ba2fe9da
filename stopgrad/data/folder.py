"""Which files of a folder are wanted, images or another `Kind`: their names, and the list of bad ones.

Names are kept in one buffer with offsets, not as objects: a million of them cost about their own length. A file is
wanted by its extension or by its first bytes; everything else is ignored and counted. Only regular files are opened (a
FIFO named a.jpg blocks `open` for ever), links to folders are followed once (a loop is cut by device and inode), and
hidden files are left alone (`._a.jpg` is macOS bookkeeping, `.ipynb_checkpoints` holds copies).
"""

from __future__ import annotations

import csv
import errno
import io
import os
import re
import stat
import unicodedata
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stopgrad import rundir
from stopgrad.contracts import DataError

EXTENSIONS = {
    "JPEG": (b".jpg", b".jpeg", b".jpe", b".jfif"),
    "PNG": (b".png",),
    "WEBP": (b".webp",),
    "BMP": (b".bmp", b".dib"),
    "TIFF": (b".tif", b".tiff"),
    "GIF": (b".gif",),
    "NPY": (b".npy",),
}
FORMAT_OF = {extension: kind for kind, extensions in EXTENSIONS.items() for extension in extensions}
# Camera raws and microscope stacks begin like a TIFF but are not one picture: not taken for images by their signature.
ONLY_LIKE_TIFF = frozenset(
    (b".dng", b".nef", b".cr2", b".arw", b".orf", b".rw2", b".pef", b".srw", b".nrw", b".raf", b".lsm", b".svs")
)
HEAD = 32  # bytes that decide what a file is


@dataclass(frozen=True, slots=True)
class BadFile:
    """A wanted file that can't be used: its path below the source, escaped, and why."""

    path: str
    reason: str


class BadFilesError(DataError):
    """More files are bad than the settings allow; `.bad` names them all, for bad_files.csv."""

    def __init__(self, message: str, bad: tuple[BadFile, ...]) -> None:
        super().__init__(message)
        self.bad = bad


def escape_name(raw: bytes) -> str:
    """A file name as text that is safe in a terminal, a CSV cell and JSON, and can be turned back.

    UTF-8 stays as it is; bytes that are not, control and direction characters, and a first character that a spreadsheet
    would take for a formula become \\xNN of their bytes; a backslash is doubled.
    """
    out = []
    for position, char in enumerate(raw.decode("utf-8", "surrogateescape")):
        if char == "\\":
            out.append("\\\\")
        elif _unsafe(char) or (position == 0 and char in "=+-@'"):
            out.append("".join(f"\\x{byte:02x}" for byte in char.encode("utf-8", "surrogateescape")))
        else:
            out.append(char)
    return "".join(out)


def _unsafe(char: str) -> bool:
    """Control, direction, surrogate and separator characters, except the plain space."""
    return char != " " and unicodedata.category(char)[0] in "CZ"


def unescape_name(text: str) -> bytes:
    """The file name that `escape_name` was given."""
    encoded = text.encode("utf-8")
    return re.sub(rb"\\(\\|x[0-9a-f]{2})", lambda m: b"\\" if m[1] == b"\\" else bytes([int(m[1][1:], 16)]), encoded)


def write_bad_files(bad: Iterable[BadFile], path: Path) -> None:
    """bad_files.csv: one line a file, path below the source (escaped) and reason. Written whole or not at all."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", "reason"])
    writer.writerows((item.path, item.reason) for item in bad)
    rundir.write_bytes(path, text.getvalue().encode("utf-8"))


def sniff(head: bytes) -> str | None:
    """The format the first bytes speak for: a key of EXTENSIONS, or None."""
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head[:6] in (b"GIF87a", b"GIF89a"):
        return "GIF"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "TIFF"
    if head[:6] == b"\x93NUMPY":
        return "NPY"
    # "BM" alone begins many a text: the two reserved words and the length of the header that follows decide.
    if head[:2] == b"BM" and head[6:10] == b"\0\0\0\0" and head[14:18] in _BMP_HEADERS:
        return "BMP"
    return None


_BMP_HEADERS = frozenset(size.to_bytes(4, "little") for size in (12, 16, 40, 52, 56, 64, 108, 124))


@dataclass(frozen=True, slots=True)
class Kind:
    """What a source is looked through for: how such a file is told from others, and what it is called."""

    one: str  # in messages
    many: str
    format_of: Mapping[bytes, str]  # extension -> format
    sniff: Callable[[bytes], str | None]  # the format that HEAD first bytes speak for
    never: frozenset[bytes] = frozenset()  # extensions of files that only begin like one
    unit: str = "files"  # what holds one

    def named(self, name: bytes) -> bool:
        """Whether the extension speaks for one; hidden files are none (`._a.jpg` is macOS bookkeeping)."""
        return _extension(name) in self.format_of and not _is_hidden_file(name)

    def may_begin(self, name: bytes) -> bool:
        """Whether the first bytes may speak for a file whose extension does not."""
        return _extension(name) not in self.never and not _is_hidden_file(name)


def _extension(name: bytes) -> bytes:
    return os.path.splitext(name)[1].lower()  # noqa: PTH122


def _is_hidden_file(name: bytes) -> bool:
    return name.rpartition(b"/")[2].startswith(b".")


IMAGES = Kind("image", "images", FORMAT_OF, sniff, ONLY_LIKE_TIFF)


def expanded(text: str) -> Path:
    """With the home folder for ~; where there is no such user, as it was typed."""
    return Path(os.path.expanduser(text))  # noqa: PTH111  (pathlib raises)


def read_regular(path: bytes, limit: int = -1) -> bytes:
    """The first `limit` bytes of a file (all: -1). OSError for all but regular files; a FIFO is not waited for."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(handle, "rb") as file:  # noqa: PTH123  (a descriptor, not a path)
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        return file.read(limit)


def why(error: OSError) -> str:
    """The reason a file can't be read, as bad_files.csv says it."""
    known = {errno.ENOENT: "link to a file that is not there", errno.ELOOP: "link that leads back to itself"}
    return known.get(error.errno or 0) or (error.strerror or str(error)).lower()


def count_ignored(found: Counter[str], extension: bytes) -> None:
    """One file more that is not wanted. `found` stays small whatever the files are called."""
    known = escape_name(extension[:12]) or "without extension"
    found[known if known in found or len(found) < 1000 else "other"] += 1


def kind_of_special(mode: int) -> str:
    kinds = ((stat.S_ISFIFO, "FIFO"), (stat.S_ISSOCK, "socket"), (stat.S_ISCHR, "device"), (stat.S_ISBLK, "device"))
    return next((name for test, name in kinds if test(mode)), "special file")


@dataclass(frozen=True, slots=True)
class Index:
    """The wanted files of a folder, in the order of their names, and what else was met."""

    root: bytes
    names: bytes  # all relative names, one after the other
    offsets: NDArray[np.int64]  # [M + 1], where each begins
    sizes: NDArray[np.int64]  # [M], bytes
    mtimes: NDArray[np.int64]  # [M], nanoseconds
    bad: tuple[BadFile, ...]  # never to be opened
    ignored: int
    found: dict[str, int]  # what the ignored files are, by extension
    notes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.sizes)

    def name(self, i: int) -> bytes:
        return self.names[self.offsets[i] : self.offsets[i + 1]]

    def path(self, i: int) -> bytes:
        return os.path.join(self.root, self.name(i))  # noqa: PTH118  (bytes: names need not be UTF-8)


def index_folder(root: Path, wanted: Kind = IMAGES) -> Index:
    """Walks `root` and everything below it. Opens only files whose extension does not speak for them.

    Raises OSError where `root` itself can't be read; folders below it that can't are noted.
    """
    walk = _Walk(os.fsencode(root), wanted)
    walk.run()
    order = sorted(range(len(walk.names)), key=walk.names.__getitem__)
    lengths = np.fromiter((len(walk.names[i]) for i in order), np.int64, len(order))
    return Index(
        root=walk.root,
        names=b"".join(walk.names[i] for i in order),
        offsets=np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)]),
        sizes=np.array(walk.sizes, np.int64)[order],
        mtimes=np.array(walk.mtimes, np.int64)[order],
        bad=tuple(sorted(walk.bad, key=lambda item: item.path)),
        ignored=walk.found.total(),
        found=dict(walk.found.most_common()),
        notes=walk.notes(),
    )


@dataclass(slots=True)
class _Walk:
    """The state of one walk. Real folders come before links, so that a folder is known by its real name."""

    root: bytes
    wanted: Kind
    names: list[bytes] = field(default_factory=list)
    sizes: array[int] = field(default_factory=lambda: array("q"))
    mtimes: array[int] = field(default_factory=lambda: array("q"))
    bad: list[BadFile] = field(default_factory=list)
    found: Counter[str] = field(default_factory=Counter)  # what is ignored, by extension
    seen: set[tuple[int, int]] = field(default_factory=set)  # folders that were read: device, inode
    links: list[bytes] = field(default_factory=list)  # links to folders, not yet followed
    twice: list[bytes] = field(default_factory=list)  # links to folders that were read already
    closed: list[str] = field(default_factory=list)  # folders that can't be read

    def run(self) -> None:
        self.folder(b"")
        while self.links:
            self.links.sort(reverse=True)
            self.folder(self.links.pop())

    def folder(self, start: bytes) -> None:
        """Reads the folder `start` and the real folders below it."""
        waiting = [start]
        while waiting:
            here = waiting.pop()
            path = os.path.join(self.root, here)  # noqa: PTH118
            try:
                status = os.stat(path)  # noqa: PTH116
                if (status.st_dev, status.st_ino) in self.seen:
                    self.twice.append(here)
                    continue
                self.seen.add((status.st_dev, status.st_ino))
                with os.scandir(path) as entries:
                    for entry in entries:
                        name = here + b"/" + entry.name if here else entry.name
                        if not entry.is_dir(follow_symlinks=False):
                            self.file(name, entry)
                        elif not entry.name.startswith(b".") and entry.name != b"__MACOSX":
                            waiting.append(name)
            except OSError as error:
                if not here:
                    raise
                self.closed.append(f"{escape_name(here)} ({why(error)})")

    def file(self, name: bytes, entry: os.DirEntry[bytes]) -> None:
        looks_like_one = self.wanted.named(entry.name)
        try:
            status = entry.stat()
        except OSError as error:
            self.refuse(name, why(error), looks_like_one)
            return
        if stat.S_ISDIR(status.st_mode):
            if not entry.name.startswith(b"."):
                self.links.append(name)
        elif not stat.S_ISREG(status.st_mode):
            self.refuse(name, f"not a regular file ({kind_of_special(status.st_mode)})", looks_like_one)
        elif looks_like_one or self.begins_like_one(name):
            self.names.append(name)
            self.sizes.append(status.st_size)
            self.mtimes.append(status.st_mtime_ns)
        else:
            self.refuse(name, "", False)

    def begins_like_one(self, name: bytes) -> bool:
        if not self.wanted.may_begin(name):
            return False
        try:
            return self.wanted.sniff(read_regular(os.path.join(self.root, name), HEAD)) is not None  # noqa: PTH118
        except OSError:
            return False

    def refuse(self, name: bytes, reason: str, is_wanted: bool) -> None:
        if is_wanted:
            self.bad.append(BadFile(escape_name(name), reason))
        else:
            count_ignored(self.found, _extension(name))

    def notes(self) -> tuple[str, ...]:
        said = []
        if self.twice:
            said.append(
                f"links not followed, since they lead to folders that were read already: {len(self.twice)} "
                f"(first: {escape_name(min(self.twice))})"
            )
        if self.closed:
            said.append(f"folders that could not be read: {len(self.closed)} (first: {min(self.closed)})")
        return tuple(said)
