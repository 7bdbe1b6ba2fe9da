"""Shards of images with captions, as webdataset writes them: tars whose members belong together by their names.

KEY.jpg (any image) with KEY.txt, its caption, or KEY.json, whose `caption` (or `text`) is; KEY.cls, a number or a name,
is its class. A key is the name up to the first dot behind the last slash. Members without the other half are named and
left out. A folder of tars, or train/ beside test/ with tars, is one source; only plain tars can be read in any order.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stopgrad.contracts import DataError
from stopgrad.data.captioned import LONGEST, Found
from stopgrad.data.folder import FORMAT_OF, BadFile, Kind, escape_name, expanded
from stopgrad.data.layout import TEST, TEST_NAMES, TRAIN, TRAIN_NAMES, UNUSED, Layout
from stopgrad.data.listing import LeftOut, Member, UnreadableError, extension_of
from stopgrad.data.tar_archive import Tar
from stopgrad.data.text_tables import DELIMITED, LINES

TEXT, JSON, CLASS = b".txt", b".json", b".cls"
CAPTIONS = ("caption", "text")  # names in a .json; the first that is there
MEMBERS = Kind(
    "image with a caption",
    "images with captions",
    {**FORMAT_OF, TEXT: "TEXT", JSON: "JSON", CLASS: "CLASS"},
    lambda head: None,
)
LARGEST_TEXT = 1 << 20  # bytes of a member that is no image
ZIPPED = (".tar.gz", ".tgz", ".tar.zst", ".tar.bz2", ".tar.xz")


def find_shards(source: str) -> list[Path]:
    """The tars of a source, in the order of their names; [] where it holds none, or a table beside them."""
    path = expanded(source)
    if path.is_file() and (path.suffix == ".tar" or path.name.endswith(ZIPPED)):
        return [path.resolve()]
    if not path.is_dir():
        return []
    files = [file for file in path.resolve().rglob("*") if file.is_file() and not file.name.startswith(".")]
    if any(file.suffix.lower().encode() in (*DELIMITED, *LINES) for file in files):
        return []
    return sorted(file for file in files if file.name.endswith((".tar", *ZIPPED)))


def read_shards(source: str, shards: list[Path]) -> Found:
    """Raises DataError for a tar that can't be read, or where no image has a caption."""
    root = expanded(source).resolve()
    root = root if root.is_dir() else root.parent
    listing = Shards(root, shards)
    pairs = list(listing.captions.items())
    if not pairs:
        first = f" (first: {listing.bad[0].path}: {listing.bad[0].reason})" if listing.bad else ""
        listing.close()
        raise DataError(
            f"data.source: no image with a caption in {listing.place}{first}; needed are members KEY.jpg and KEY.txt, "
            "or KEY.json with a caption"
        )
    return Found(listing=listing, pairs=pairs, bad=listing.bad)


class Shards:
    """The images of several tars that have a caption. Their names begin with the tar's, below the source."""

    def __init__(self, root: Path, shards: list[Path]) -> None:
        zipped = next((path for path in shards if path.suffix != ".tar"), None)
        if zipped is not None:
            raise DataError(
                f"data.source: {_shown(zipped)} is compressed, and captions are looked up in any order; unpack it to a "
                f"plain tar: gunzip or unzstd {_shown(zipped)}"
            )
        self.label, self.place = os.fsencode(root.name), _shown(root)
        self.tars = {os.fsencode(path.relative_to(root)): Tar(path, (), MEMBERS) for path in shards}
        part, self.rule = _parts(self.tars)
        self.captions: dict[bytes, str] = {}
        self.split: dict[bytes, int] = {}
        self.bad: list[BadFile] = []
        self._classes: dict[bytes, str] = {}
        self._where: dict[bytes, tuple[Tar, bytes, tuple[int, int]]] = {}
        stamp: list[bytes] = [b"caption shards"]
        for shard, tar in self.tars.items():
            if part[shard] == UNUSED:
                continue
            self._read(shard, tar, part[shard])
            status = tar.path.stat()
            stamp += [os.fsencode(tar.path), b"%d %d" % (status.st_size, status.st_mtime_ns)]
        self.names = sorted(self.captions)
        self.stamp = tuple(stamp)
        known = [self._classes.get(name, "") for name in self.names]
        self.classes = tuple(sorted(set(known))) if known and all(known) and len(set(known)) > 1 else ()
        ignored = sum(tar.left_out.ignored for tar in self.tars.values() if tar.left_out)
        outside = sum(value == UNUSED for value in part.values())
        notes = (f"tars outside {self.rule} are not used: {outside:,}",) if outside else ()
        self.left_out: LeftOut | None = LeftOut((), ignored, {}, notes)

    def _read(self, shard: bytes, tar: Tar, part: int) -> None:
        keys: dict[bytes, dict[bytes, tuple[bytes, tuple[int, int]]]] = {}
        for name, where in tar.listed():
            keys.setdefault(_key(name), {})[extension_of(name)] = (name, where)
        self.bad += [BadFile(f"{escape_name(shard)}/{b.path}", b.reason) for b in (tar.left_out or LeftOut()).bad]
        for key, halves in keys.items():
            image = next((half for extension, half in halves.items() if extension in FORMAT_OF), None)
            name = shard + b"/" + (image[0] if image else key)
            texts = {half: self._text(tar, *halves[half]) for half in (TEXT, JSON, CLASS) if half in halves}
            caption = texts.get(TEXT, "").strip() or _from_json(texts.get(JSON, ""))
            if reason := _reason(image is not None, caption, TEXT in halves or JSON in halves):
                self.bad.append(BadFile(escape_name(name), reason))
                continue
            assert image is not None
            self.captions[name], self.split[name] = caption, part
            self._where[name] = tar, *image
            if said := texts.get(CLASS, "").strip():
                self._classes[name] = escape_name(said.encode("utf-8", "surrogateescape"))

    def _text(self, tar: Tar, name: bytes, where: tuple[int, int]) -> str:
        member = tar.member(name, where)
        if member.size > LARGEST_TEXT:
            return ""
        try:
            return member.read(-1).decode("utf-8-sig", "replace")
        except (OSError, UnreadableError):
            return ""

    def count(self) -> int | None:
        return len(self.names)

    def members(self, wanted: Iterable[int] | None = None, most: int = -1) -> Iterator[Member]:
        for i in range(len(self.names)) if wanted is None else wanted:
            name = self.names[int(i)]
            tar, own, where = self._where[name]
            found = tar.member(own, where)
            yield Member(name, found.size, found.read)

    def layout(self, kept: NDArray[np.int64]) -> Layout:
        names = [self.names[int(i)] for i in kept]
        number = {value: i for i, value in enumerate(self.classes)}
        split = np.array([self.split[name] for name in names], np.uint8)
        labels = np.array([number[self._classes[name]] if number else -1 for name in names], np.int64)
        return Layout(split, labels, self.classes, self.rule, ())

    def share_read(self) -> float:
        return 1.0

    def close(self) -> None:
        for tar in self.tars.values():
            tar.close()


def _key(name: bytes) -> bytes:
    folder, slash, own = name.rpartition(b"/")
    return folder + slash + own.partition(b".")[0]


def _from_json(text: str) -> str:
    try:
        values = json.loads(text) if text else None
    except (ValueError, RecursionError):
        return ""
    found = next((values[name] for name in CAPTIONS if values.get(name)), "") if isinstance(values, dict) else ""
    return found.strip() if isinstance(found, str) else ""


def _reason(has_image: bool, caption: str, has_text: bool) -> str:
    """Why a key is no pair; "" where it is one."""
    if not has_image:
        return "no image of this name"
    if not has_text:
        return "no caption: no .txt and no .json of this name"
    if not caption:
        return "empty caption"
    return f"caption of {len(caption):,} characters, at most {LONGEST:,} are read" if len(caption) > LONGEST else ""


def _parts(shards: Iterable[bytes]) -> tuple[dict[bytes, int], str]:
    """TRAIN, TEST or UNUSED for each tar by its first folder, and the rule in words; "" where content decides."""
    tops = {shard: shard.partition(b"/")[0].lower() if b"/" in shard else b"" for shard in shards}
    train = next((name for name in TRAIN_NAMES if name in tops.values()), None)
    test = next((name for name in TEST_NAMES if name in tops.values()), None)
    if train is None or test is None:
        return dict.fromkeys(tops, TRAIN), ""
    of = {train: TRAIN, test: TEST}
    return {
        shard: of.get(top, UNUSED) for shard, top in tops.items()
    }, f"folders {train.decode()}/ and {test.decode()}/"


def _shown(path: Path) -> str:
    return escape_name(os.fsencode(path))
