"""A .tar or .tar.gz as a source; see `archive`. A tar has no directory: its headers are read one after the other."""

from __future__ import annotations

import gzip
import os
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from stopgrad.data.archive import BROKEN, Archive, SortedArchive, Sorter, clean_name, whole
from stopgrad.data.folder import HEAD, IMAGES, Kind
from stopgrad.data.layout import UNUSED, Layout, read_layout
from stopgrad.data.listing import Member, is_hidden

HEADER_BYTES = 1 << 20  # of one tar header with its long names; more is refused, since it is held in memory


class _Guarded:
    """A file below tarfile that reads a header's worth at a time: tarfile holds long names in memory, of any size."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.last = b""  # what was read last

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {size:,} bytes")
        self.last = self.file.read(size)
        return self.last

    def seek(self, offset: int, whence: int = 0) -> int:
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        return self.file.tell()


def _headers(file: IO[bytes]) -> Iterator[tarfile.TarInfo]:
    """The members of a tar, one after the other, only ever forwards. Raises tarfile.ReadError where it is cut."""
    guarded = _Guarded(file)
    tar = tarfile.open(  # noqa: SIM115  (closing it would do nothing: the file isn't its own)
        fileobj=guarded,  # type: ignore[call-overload]
        mode="r:",
        encoding="utf-8",
        errors="surrogateescape",
    )
    while (info := tar.next()) is not None:
        tar.members.clear()  # it would keep a million of them
        yield info
    # tarfile stops without a word at a header it can't read; a whole archive ends in blocks of zeros.
    if guarded.last != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError("unexpected end of data")


def _tar_name(info: tarfile.TarInfo) -> bytes:
    return clean_name(info.name.encode("utf-8", "surrogateescape"))


def _refused(info: tarfile.TarInfo) -> str:
    if info.issym() or info.islnk():
        return "link: members that are links aren't followed"
    if not info.isreg():
        return "not a regular file (device or FIFO)"
    return "sparse member, which isn't read" if info.issparse() else ""


class Tar(SortedArchive):
    """A plain tar: headers are read once, members by their place."""

    kind = "a tar archive"
    file: IO[bytes] | None = None

    def scan(self) -> Iterator[tuple[bytes, tuple[int, int]]]:
        self.file = self.path.open("rb")
        seen = set()
        for info in _headers(self.file):
            name = _tar_name(info)
            if info.isdir() or is_hidden(name):
                continue
            if reason := self.sorter.reason(name, _refused(info)):
                self.sorter.refuse(name, reason)
            elif self.wanted.named(name) or (self.wanted.may_begin(name) and self._sniffed(info)):
                self.sorter.twice += name in seen
                seen.add(name)
                yield name, (info.offset_data, info.size)
            else:
                self.sorter.refuse(name, "")

    def _sniffed(self, info: tarfile.TarInfo) -> bool:
        assert self.file is not None
        return self.wanted.sniff(os.pread(self.file.fileno(), min(HEAD, info.size), info.offset_data)) is not None

    def member(self, name: bytes, where: tuple[int, int]) -> Member:
        return Member(name, where[1], lambda limit: self._read(*where, limit))

    def _read(self, offset: int, size: int, limit: int) -> bytes:
        assert self.file is not None
        wanted = size if limit < 0 else min(limit, size)
        # pread has no position, so threads don't disturb each other
        return whole(os.pread(self.file.fileno(), wanted, offset), wanted)

    def close(self) -> None:
        if self.file is not None:
            self.file.close()


class GzippedTar(Archive):
    """A .tar.gz, read forwards. A name that comes again replaces the earlier one, as unpacking would have it."""

    kind = "a tar.gz archive"

    def __init__(self, path: Path, stamp: tuple[bytes, ...], wanted: Kind = IMAGES) -> None:
        super().__init__(path, stamp, wanted)
        self.came: list[bytes] = []  # names, by position
        self.read_to = 0.0

    def count(self) -> int | None:
        return None

    def members(self, wanted: Iterable[int] | None = None, most: int = -1) -> Iterator[Member]:
        assert wanted is None
        self.came, self.sorter = [], Sorter(self.wanted)
        try:
            with self.path.open("rb") as raw, gzip.GzipFile(fileobj=raw) as unzipped:
                size = max(1, os.fstat(raw.fileno()).st_size)
                for info in _headers(unzipped):  # type: ignore[arg-type]
                    self.read_to = raw.tell() / size
                    if (member := self._member(info, unzipped, most)) is not None:
                        self.came.append(member.name)
                        yield member
        except (*BROKEN, OSError) as error:
            self.broken(error)
        self.sorter.twice = len(self.came) - len(set(self.came))
        self.left_out = self.sorter.left_out()

    def _member(self, info: tarfile.TarInfo, unzipped: gzip.GzipFile, most: int) -> Member | None:
        name = _tar_name(info)
        if info.isdir() or is_hidden(name):
            return None
        if reason := self.sorter.reason(name, _refused(info)):
            self.sorter.refuse(name, reason)
            return None
        head = b""
        if not self.wanted.named(name):
            head = unzipped.read(min(HEAD, info.size)) if self.wanted.may_begin(name) else b""
            if self.wanted.sniff(head) is None:
                self.sorter.refuse(name, "")
                return None
        # A member that is larger than any wanted file isn't held: its size alone makes it bad.
        held = min(most, HEADER_BYTES) if 0 <= most < info.size else info.size
        data = head + unzipped.read(max(0, held - len(head)))
        if len(data) < held:
            raise EOFError("unexpected end of data")
        return Member(name, info.size, lambda limit: data if limit < 0 else data[:limit])

    def layout(self, kept: NDArray[np.int64]) -> Layout:
        layout = read_layout(self.came[int(i)] for i in kept)
        last = {name: i for i, name in enumerate(self.came)}
        replaced = np.array([last[self.came[int(i)]] != int(i) for i in kept], bool)
        split = np.where(replaced, UNUSED, layout.split).astype(np.uint8)
        return Layout(split, layout.labels, layout.classes, layout.rule, layout.notes)

    def share_read(self) -> float:
        return self.read_to

    def close(self) -> None:
        pass
