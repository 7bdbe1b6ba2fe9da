"""What every kind of source offers: names, what is left out and why, and its members in order, ready to be read.

A folder, a list of paths, an archive, a set by name and a set of the hub are each a `Listing`; `from_listing` decodes
any of them into the store. A member is read by the thread that decodes it, where the source can be read in any order;
a compressed tar can't, so its members are read one after the other as they come, and its names are known at the end.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from stopgrad.data.folder import BadFile, Index, escape_name, read_regular
from stopgrad.data.layout import Layout, read_layout

PIECE = 16  # members a thread decodes at a time
PIECE_BYTES = 32_000_000  # or fewer, once they hold this much


class UnreadableError(Exception):
    """A member that can't be read although its source can; the message is the reason for bad_files.csv."""


@dataclass(frozen=True, slots=True)
class Member:
    """One file of a source, not yet decoded."""

    name: bytes  # below the source, components divided by /
    size: int  # bytes, as the source declares it
    # The first bytes of it (-1: all), from any thread. Raises OSError, UnreadableError.
    read: Callable[[int], bytes]


@dataclass(frozen=True, slots=True)
class LeftOut:
    """What a source holds besides files that are wanted and can be read."""

    bad: tuple[BadFile, ...] = ()  # wanted, and never opened
    ignored: int = 0  # files that are not wanted
    found: dict[str, int] = field(default_factory=dict)  # what the ignored files are, by extension
    notes: tuple[str, ...] = ()  # sentences for the user


class Listing(Protocol):
    """A source as a list of files, whatever holds them. `close` it after use."""

    label: bytes  # short name, unescaped: of the folder, the archive, the set
    place: str  # where it is, escaped, for messages
    stamp: tuple[bytes, ...]  # all that the content depends on, known without reading it; in the key of the store
    left_out: LeftOut | None  # None until it is known; then the store remembers it

    def count(self) -> int | None:
        """M, its members; None where only reading all of it tells (tar.gz)."""
        ...

    def members(self, wanted: Iterable[int] | None = None, most: int = -1) -> Iterator[Member]:
        """Those at the positions `wanted`, in that order; without, or where `count` is None, all as they come.

        most: bytes of each that will be asked for at most (-1: all), since some sources must hold them.
        `left_out` is known after the last. Raises DataError where the source itself is damaged.
        """
        ...

    def layout(self, kept: NDArray[np.int64]) -> Layout:
        """Split and label of the members at positions `kept` [N]; of a tar.gz, positions count as members came."""
        ...

    def share_read(self) -> float:
        """How much of it `members` has read, 0 to 1; for progress where the number of members isn't known."""
        ...

    def close(self) -> None: ...


class Files:
    """Files on the disk, by an index: a folder, a list of paths, or a set that is kept as files."""

    left_out: LeftOut | None

    def __init__(self, index: Index, label: bytes, place: str, stamp: tuple[bytes, ...], told: Told | None = None):
        self.index, self.label, self.place, self.stamp, self.told = index, label, place, stamp, told
        self.left_out = LeftOut(index.bad, index.ignored, index.found, index.notes)

    @classmethod
    def of_folder(cls, index: Index) -> Files:
        place = escape_name(index.root)
        return cls(index, os.path.basename(index.root), place, stamp_of(index))  # noqa: PTH119

    def count(self) -> int | None:
        return len(self.index)

    def members(self, wanted: Iterable[int] | None = None, most: int = -1) -> Iterator[Member]:
        index = self.index
        for i in range(len(index)) if wanted is None else wanted:
            path = index.path(int(i))
            yield Member(index.name(int(i)), int(index.sizes[i]), partial(read_twice, path))

    def layout(self, kept: NDArray[np.int64]) -> Layout:
        if self.told is not None:
            return self.told.layout(self.index.name(int(i)) for i in kept)
        return read_layout(self.index.name(int(i)) for i in kept)

    def share_read(self) -> float:
        return 1.0

    def close(self) -> None:
        pass


@dataclass(frozen=True, slots=True)
class Told:
    """Split and label by name, where the source says them itself and not by folders."""

    of: dict[bytes, tuple[int, int]]  # name -> split (layout.TRAIN, TEST), label (-1: none)
    classes: tuple[str, ...]  # escaped; () without labels
    rule: str  # "" where the source has no test part

    def layout(self, names: Iterable[bytes]) -> Layout:
        pairs = np.array([self.of[name] for name in names], np.int64).reshape(-1, 2)  # [N, 2]
        return Layout(pairs[:, 0].astype(np.uint8), pairs[:, 1], self.classes, self.rule, ())


def stamp_of(index: Index) -> tuple[bytes, ...]:
    """What the content of files on the disk depends on: their place, and the name, size and time of each."""
    arrays = (index.offsets, index.sizes, index.mtimes)
    return (index.root, index.names, *(values.tobytes() for values in arrays))


def read_twice(path: bytes, limit: int = -1) -> bytes:
    """A file, with a second try: it may be written again at this moment."""
    try:
        return read_regular(path, limit)
    except OSError:
        return read_regular(path, limit)


def is_hidden(name: bytes) -> bool:
    """Whether a folder above it is one that a walk leaves alone: `.git`, `__MACOSX`."""
    folders = [part for part in name.split(b"/")[:-1] if part != b".."]
    return any(part.startswith(b".") or part == b"__MACOSX" for part in folders)


def extension_of(name: bytes) -> bytes:
    return os.path.splitext(name)[1].lower()  # noqa: PTH122  (bytes: names need not be UTF-8)


def sample(listing: Listing, count: int, limit: int) -> tuple[int, list[tuple[bytes, int, bytes]]]:
    """How many members there are, and (name, bytes, first `limit` bytes) of `count` of them, evenly spread.

    One that can't be read is left out of the sample. A tar.gz is read through once, for its number.
    """
    known = listing.count()
    if known is not None:
        wanted = np.unique(np.linspace(0, known - 1, min(count, known)).round().astype(int))
        members: Iterable[Member] = listing.members(wanted.tolist())
        return known, [(m.name, m.size, head) for m in members if (head := _head(m, limit)) is not None]
    kept: list[tuple[bytes, int, bytes]] = []
    total, every = 0, 1  # each `every`th is kept; twice as far apart once there are twice too many
    for member in listing.members(most=limit):
        if total % every == 0 and (head := _head(member, limit)) is not None:
            kept.append((member.name, member.size, head))
        total += 1
        if len(kept) >= 2 * count:
            kept, every = kept[::2], every * 2
    return total, kept[:: max(1, -(-len(kept) // count))]


def _head(member: Member, limit: int) -> bytes | None:
    try:
        return member.read(limit)
    except (OSError, UnreadableError):
        return None


def pieces(members: Iterable[Member]) -> Iterator[list[Member]]:
    """Members in groups for one thread each: few enough that what they hold stays bounded."""
    piece: list[Member] = []
    held = 0
    for member in members:
        piece.append(member)
        held += member.size
        if len(piece) == PIECE or held >= PIECE_BYTES:
            yield piece
            piece, held = [], 0
    if piece:
        yield piece
