"""A text file of paths as a source: one a line, relative to the folder of the file or absolute.

Blank lines and lines that begin with # are left out. Lines are bytes, so names that are not UTF-8 survive. What a line
names is meant to be wanted: what is missing or of another kind is a bad file, never ignored.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from stopgrad.contracts import DataError, MissingInputError
from stopgrad.data.folder import IMAGES, BadFile, Index, Kind, escape_name, kind_of_special, why
from stopgrad.data.listing import Files, Listing, stamp_of

SUFFIXES = (".txt", ".lst")


def open_list(path: Path, wanted: Kind = IMAGES) -> Listing:
    """The files that the lines of `path` name. Raises MissingInputError where it can't be read or names none."""
    place = escape_name(os.fsencode(path))
    try:
        text = path.read_bytes()
    except OSError as error:
        raise MissingInputError(f"data.source: {place} can't be read ({why(error)})") from error
    if b"\0" in text[: 1 << 16]:
        raise DataError(
            f"data.source: {place} is no list of paths: it holds zero bytes; needed is plain text, one path a line, "
            "in UTF-8 or as the file system has the names"
        )
    lines = [line.rstrip(b"\r") for line in text.removeprefix(b"\xef\xbb\xbf").split(b"\n")]
    names = [line for line in lines if line.strip() and not line.startswith(b"#")]
    if not names:
        raise MissingInputError(
            f"data.source: no path in {place}; needed is a list of {wanted.one} files, one path a line"
        )
    root = os.fsencode(path.parent)
    index = index_paths(root, [_below(root, name) for name in names])
    return Files(index, os.fsencode(path.name), place, (b"list", os.fsencode(path), *stamp_of(index)))


def _below(root: bytes, name: bytes) -> bytes:
    """Relative to the folder of the list where it lies below it, so that labels are read as from that folder."""
    clean = os.path.normpath(os.path.join(root, name))  # noqa: PTH118
    inside = os.path.join(root, b"")  # noqa: PTH118
    return clean.removeprefix(inside)


def index_paths(root: bytes, names: Iterable[bytes]) -> Index:
    """Named files as a walk of a folder would have them, in the order of their names; a missing one is bad."""
    given = list(names)
    distinct = sorted(set(given))
    kept, sizes, mtimes, bad = [], [], [], []
    for name in distinct:
        try:
            status = os.stat(os.path.join(root, name))  # noqa: PTH116, PTH118
        except (OSError, ValueError) as error:
            missing = isinstance(error, FileNotFoundError | ValueError)
            bad.append(BadFile(escape_name(name), "no such file" if missing else why(error)))  # type: ignore[arg-type]
            continue
        if stat.S_ISREG(status.st_mode):
            kept.append(name)
            sizes.append(status.st_size)
            mtimes.append(status.st_mtime_ns)
        else:
            special = "folder" if stat.S_ISDIR(status.st_mode) else kind_of_special(status.st_mode)
            bad.append(BadFile(escape_name(name), f"not a regular file ({special})"))
    twice = len(given) - len(distinct)
    return Index(
        root=root,
        names=b"".join(kept),
        offsets=np.concatenate([np.zeros(1, np.int64), np.cumsum([len(name) for name in kept], dtype=np.int64)]),
        sizes=np.array(sizes, np.int64),
        mtimes=np.array(mtimes, np.int64),
        bad=tuple(bad),
        ignored=0,
        found={},
        notes=(f"lines that name a file which was named before, left out: {twice:,}",) if twice else (),
    )
