"""Several pictures of each scene, in folders beside each other: which belong together, and a source that is none.

A scene is known by its path without the folder of the sensor and without the extension: `train/rgb/0007.jpg` and
`train/depth/0007.png` are `train/0007`. Its files become one `Member`, read together: `framed` says how their bytes
stand one after the other.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from stopgrad.contracts import ConfigError, DataError, MissingInputError
from stopgrad.data.folder import BadFile, escape_name
from stopgrad.data.layout import UNUSED, Layout, read_layout
from stopgrad.data.listing import LeftOut, Listing, Member, extension_of
from stopgrad.views.sensors import KNOWN, stem

NEARLY = 0.9  # of the names of the smaller of two folders that the other has too, for them to be of the same scenes


@dataclass(frozen=True, slots=True)
class _Scene:
    """The files of one scene, by sensor: positions in the listing below."""

    name: bytes
    files: tuple[int, ...]


class Beside:
    """A listing of files as a listing of scenes. Files of other folders are ignored; a scene that lacks a file is bad.

    listing: of all files; closed with this.  names: of the folders, in the order the files are read in.
    """

    def __init__(self, listing: Listing, names: Sequence[str], setting: str = "data.sensors") -> None:
        self.listing, self.names = listing, tuple(names)
        self.label, self.place = listing.label, listing.place
        self.stamp = (*listing.stamp, b"beside", *(name.encode("utf-8", "surrogateescape") for name in names))
        if listing.count() is None:
            raise ConfigError(
                f"{setting}: the files of {self.place} come one after the other, so those of a scene can't be read "
                "together; unpack it, or make a .zip or a .tar of it"
            )
        self.files = list(listing.members())
        self.left_out: LeftOut | None = None
        self.scenes = self._found(setting)

    def _found(self, setting: str) -> list[_Scene]:
        wanted = {name.encode("utf-8", "surrogateescape"): at for at, name in enumerate(self.names)}
        scenes: dict[bytes, list[list[int]]] = {}
        elsewhere = 0
        for position, member in enumerate(self.files):
            *folders, base = member.name.split(b"/")
            place = next((i for i, folder in enumerate(folders) if folder in wanted), None)
            if place is None:
                elsewhere += 1
                continue
            name = b"/".join([*folders[:place], *folders[place + 1 :], os.path.splitext(base)[0]])  # noqa: PTH122
            scenes.setdefault(name, [[] for _ in wanted])[wanted[folders[place]]].append(position)
        self._check_there(setting, scenes)
        order = sorted(scenes)
        used = read_layout(order).split != UNUSED
        bad = [
            BadFile(escape_name(name), reason)
            for name, kept in zip(order, used)
            if kept and (reason := self._wrong(scenes[name]))
        ]
        below = self.listing.left_out or LeftOut()
        notes = [f"images in folders that {setting} does not name, not read: {elsewhere:,}"] if elsewhere else []
        self.left_out = replace(below, bad=(*below.bad, *bad), notes=(*notes, *below.notes))
        whole = [name for name in order if not self._wrong(scenes[name])]
        return [_Scene(name, tuple(files[0] for files in scenes[name])) for name in whole]

    def _check_there(self, setting: str, scenes: dict[bytes, list[list[int]]]) -> None:
        for at, name in enumerate(self.names):
            if not any(files[at] for files in scenes.values()):
                there = {folder for member in self.files for folder in member.name.split(b"/")[:-1]}
                listed = ", ".join(sorted(map(escape_name, there))[:12]) or "none"
                raise MissingInputError(
                    f"{setting}: no image in a folder {name} of {self.place}; folders with images: {listed}; needed is "
                    f"{name}/ID.png for each scene, or train/{name}/ID.png beside test/{name}/ID.png"
                )

    def _wrong(self, files: list[list[int]]) -> str:
        """Why a scene can't be used, "" where it can."""
        missing = [name for name, found in zip(self.names, files) if not found]
        if missing:
            return f"no {', no '.join(missing)}"
        twice = next((found for found in files if len(found) > 1), None)
        if twice is None:
            return ""
        return f"{' and '.join(escape_name(self.files[i].name) for i in twice[:3])} are of one scene; keep one"

    def count(self) -> int | None:
        return len(self.scenes)

    def members(self, wanted: Iterable[int] | None = None, most: int = -1) -> Iterator[Member]:
        for i in range(len(self.scenes)) if wanted is None else wanted:
            scene = self.scenes[int(i)]
            parts = [self.files[position] for position in scene.files]
            yield Member(scene.name, sum(part.size for part in parts), partial(_read, parts))

    def layout(self, kept: NDArray[np.int64]) -> Layout:
        return read_layout(self.scenes[int(i)].name for i in kept)

    def share_read(self) -> float:
        return 1.0

    def close(self) -> None:
        self.listing.close()


def _read(parts: Sequence[Member], limit: int = -1) -> bytes:
    """All files of a scene, framed; the first bytes of the first one where only some are asked for."""
    return framed([(part.read(-1), extension_of(part.name)) for part in parts]) if limit < 0 else parts[0].read(limit)


def framed(files: Sequence[tuple[bytes, bytes]]) -> bytes:
    """(content, extension) of each file, one after the other, each behind its two lengths."""
    return b"".join(struct.pack("<QB", len(data), len(end[:255])) + end[:255] + data for data, end in files)


def unframed(data: bytes) -> list[tuple[bytes, bytes]]:
    """What `framed` was given."""
    files, at = [], 0
    while at < len(data):
        length, end = struct.unpack_from("<QB", data, at)
        at += struct.calcsize("<QB") + end
        files.append((data[at : at + length], data[at - end : at]))
        at += length
    return files


# --- a source that holds more than one kind of picture ----------------------------------------------------------------


def check_one_kind(names: Iterable[bytes], place: str) -> None:
    """Raises DataError where folders beside each other hold pictures of the same scenes, such as images and masks.

    They are told by what they are called (`KNOWN`) and by the names of their files together: classes have files of the
    same names too, and a folder of images may be called anything.
    """
    below: dict[tuple[bytes, ...], dict[bytes, set[bytes]]] = {}  # folder -> folder in it -> names without extension
    for name in names:
        *folders, base = name.split(b"/")
        for depth, folder in enumerate(folders):
            if stem(folder.decode("utf-8", "replace")) in KNOWN:
                rest = b"/".join([*folders[depth + 1 :], os.path.splitext(base)[0]])  # noqa: PTH122
                below.setdefault(tuple(folders[:depth]), {}).setdefault(folder, set()).add(rest)
                break
    for above, found in sorted(below.items()):
        alike = {
            folder
            for folder, stems in found.items()
            for other, others in found.items()
            if folder != other and len(stems & others) >= NEARLY * min(len(stems), len(others))
        }
        if alike:
            raise DataError(_mixed(sorted(map(escape_name, alike)), b"/".join(above), place))


def _mixed(folders: list[str], above: bytes, place: str) -> str:
    first = next((name for name in folders if KNOWN[stem(name)] == "rgb"), folders[0])
    folders = [first, *(name for name in folders if name != first)]  # what is seen first stands first
    said = {name: name if KNOWN[stem(name)] else f"{name}:classes=N" for name in folders}
    inside = f"{escape_name(above)}/" if above else ""
    return (
        f"data.source: {place} holds several pictures of each scene, in {', '.join(f'{inside}{f}' for f in folders)}; "
        f"say which are to be read: --set data.sensors=[{said[first]}], several as channels of one image: "
        f"--set data.sensors=[{','.join(said.values())}], or give one of the folders by itself"
    )
