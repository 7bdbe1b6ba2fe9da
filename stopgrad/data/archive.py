"""A .zip, .tar or .tar.gz as a source: members are read in memory, nothing is ever extracted to the disk.

An archive comes from anywhere, so nothing in it is believed: a member is read up to the size it declares and that only
where a wanted file may be so large; names are used as names, never as paths; links, devices and encrypted members are
refused one by one, and named in bad_files.csv where they would be wanted. A damaged archive is a DataError: what is
missing at its end can't be known.

Zip and plain tar are read in the order of names, like a folder. A .tar.gz can only be read forwards: one pass, names
known at the end; `from_listing` gives it the order of the folder afterwards.
"""

from __future__ import annotations

import gzip
import os
import tarfile
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from stopgrad.contracts import DataError
from stopgrad.data.folder import IMAGES, BadFile, Kind, count_ignored, escape_name, why
from stopgrad.data.layout import Layout, read_layout
from stopgrad.data.listing import LeftOut, Member, UnreadableError, extension_of

# What reading raises where the bytes of an archive are not what they should be.
BROKEN = (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, ValueError, gzip.BadGzipFile)


class Sorter:
    """Decides for each member what it is, as the walk of a folder does for a file."""

    def __init__(self, wanted: Kind) -> None:
        self.wanted = wanted
        self.bad: list[BadFile] = []
        self.found: Counter[str] = Counter()  # what is ignored, by extension
        self.twice = 0

    def reason(self, name: bytes, reason: str) -> str:
        """Why a member is refused, "" where nothing speaks against it; what its name says comes first."""
        return "its name leads out of the archive" if name.startswith(b"/") or b".." in name.split(b"/") else reason

    def refuse(self, name: bytes, reason: str) -> None:
        """Bad where the name is that of a wanted file, else ignored."""
        if reason and self.wanted.named(name):
            self.bad.append(BadFile(escape_name(name), reason))
        else:
            count_ignored(self.found, extension_of(name))

    def left_out(self) -> LeftOut:
        notes = [f"members that are in the archive more than once, of which the last counts: {self.twice:,}"]
        return LeftOut(
            tuple(sorted(self.bad, key=lambda item: item.path)),
            self.found.total(),
            dict(self.found.most_common()),
            tuple(notes if self.twice else ()),
        )


def clean_name(name: bytes) -> bytes:
    """Without the `./` that tar puts before every name."""
    while name.startswith(b"./"):
        name = name[2:].lstrip(b"/")
    return name


class Archive:
    """What the three have in common."""

    kind = ""

    def __init__(self, path: Path, stamp: tuple[bytes, ...], wanted: Kind = IMAGES) -> None:
        self.path, self.stamp, self.wanted = path, stamp, wanted
        self.place, self.label = escape_name(os.fsencode(path)), os.fsencode(path.name)
        self.left_out: LeftOut | None = None
        self.sorter = Sorter(wanted)

    def broken(self, error: Exception) -> NoReturn:
        """OSErrors are said here too: the store would take them for its own."""
        words = why(error) if isinstance(error, OSError) and error.errno else first_line(error)
        raise DataError(
            f"data.source: {self.place} can't be read as {self.kind} ({words}): it is damaged or was cut short; get "
            "it again, or unpack what can be unpacked and give that folder"
        ) from error


def whole(data: bytes, wanted: int) -> bytes:
    """What was read of a member. Raises UnreadableError where the archive ends before it."""
    if len(data) < wanted:
        raise UnreadableError(f"cut in the archive ({len(data):,} of {wanted:,} bytes)")
    return data


class SortedArchive(Archive, ABC):
    """An archive whose members can be read in any order."""

    def __init__(self, path: Path, stamp: tuple[bytes, ...], wanted: Kind = IMAGES) -> None:
        super().__init__(path, stamp, wanted)
        self.entries: list[tuple[bytes, Any]] | None = None  # (name, where), in the order of names

    def listed(self) -> list[tuple[bytes, Any]]:
        if self.entries is None:
            try:
                found = dict(self.scan())
            except (*BROKEN, OSError, NotImplementedError) as error:
                self.broken(error)
            self.entries = sorted(found.items(), key=lambda item: item[0])
            self.left_out = self.sorter.left_out()
        return self.entries

    @abstractmethod
    def scan(self) -> Iterator[tuple[bytes, Any]]:
        """Names of the members that are wanted, with what `member` needs to read them, in any order."""

    @abstractmethod
    def member(self, name: bytes, where: Any) -> Member:
        """One that `scan` found."""

    def count(self) -> int | None:
        return len(self.listed())

    def members(self, wanted: Iterable[int] | None = None, most: int = -1) -> Iterator[Member]:
        entries = self.listed()
        for i in range(len(entries)) if wanted is None else wanted:
            yield self.member(*entries[i])

    def layout(self, kept: NDArray[np.int64]) -> Layout:
        entries = self.listed()
        return read_layout(entries[int(i)][0] for i in kept)

    def share_read(self) -> float:
        return 1.0


def first_line(error: Exception) -> str:
    text = (str(error) or type(error).__name__).splitlines()[0]
    return escape_name(text.encode("utf-8", "surrogateescape"))
