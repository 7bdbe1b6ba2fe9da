"""A folder of images as a source: listed, decoded once, divided into training and test, and described."""

from __future__ import annotations

import difflib
import errno
import hashlib
import os
import re
import warnings
from array import array
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stopgrad.contracts import MissingInputError
from stopgrad.data.decode import NOTES, BadImageError, Decoded, DecodeSettings, decode, decoder_name
from stopgrad.data.folder import (
    EXTENSIONS,
    BadFile,
    BadFilesError,
    Index,
    escape_name,
    index_folder,
    read_regular,
    why,
)
from stopgrad.data.layout import TEST, TRAIN, UNUSED, read_layout
from stopgrad.data.pack import FORMAT, Pack, PackedImages, PackWriter, digest, in_order, open_or_build
from stopgrad.data.sources import SOURCES, Data, DataConfig, Progress

BY_CONTENT = "80/20 by content hash"


def open_folder(config: DataConfig, image_size: int, progress: Progress | None) -> Data:
    """A folder below which there are images; see `sources.open_data` for what it raises."""
    root = _existing(config.source)
    try:
        index = index_folder(root)
    except OSError as error:
        raise MissingInputError(f"data.source: {_shown(root)} can't be read ({why(error)})") from error
    if not len(index) and not index.bad:
        raise MissingInputError(_no_image(root, index))
    settings = DecodeSettings(config.channels, config.max_side, config.min_side, config.max_megapixels)
    pack, damage = open_or_build(
        _key(index, settings), config.channels, lambda writer: _fill(writer, index, settings, progress)
    )
    bad = _check_bad([*index.bad, *(BadFile(*item) for item in pack.facts["bad"])], len(pack), config.max_bad_fraction)
    train, test, notes = _divided(pack, config.limit)
    if image_size > config.max_side:
        notes += (
            f"images are kept at {config.max_side} pixels (data.max_side), fewer than the {image_size} of a crop",
        )
    return Data(
        name=escape_name(os.fsencode(root.name)) or "/",
        synthetic=False,
        classes=tuple(pack.facts["classes"]),
        train=PackedImages(pack, train, labelled=bool(pack.facts["classes"])),
        test=PackedImages(pack, test, labelled=bool(pack.facts["classes"])),
        fingerprint=_fingerprint(pack, train, test, settings),
        bad=bad,
        ignored=index.ignored,
        notes=(*notes, *damage, *pack.facts["notes"], *index.notes, *_ignored(index)),
        split_rule=pack.facts["rule"],
    )


# --- before decoding --------------------------------------------------------------------------------------------------


def _existing(source: str) -> Path:
    """The folder a setting names, resolved. Raises MissingInputError with the nearest name that is there."""
    path = Path(source).expanduser()
    try:
        if path.is_dir():
            return path.resolve()
        exists = path.exists()
    except OSError as error:
        raise MissingInputError(f"data.source: {_shown(path)} can't be read ({why(error)})") from error
    if exists:
        raise MissingInputError(
            f"data.source: {_shown(path)} is a file; needed is a folder of images (unpack archives)"
        )
    try:
        beside = [entry.name for entry in os.scandir(path.parent) if entry.is_dir()]
    except OSError:
        beside = []
    near = difflib.get_close_matches(path.name, beside, n=1, cutoff=0.6)
    nearest = str(path.with_name(near[0])) if near else next(iter(difflib.get_close_matches(source, SOURCES, n=1)), "")
    hint = (
        f"; did you mean {_shown(Path(nearest))}?"
        if nearest
        else f"; it is looked for in {_shown(path.absolute().parent)}"
    )
    raise MissingInputError(f"data.source: no such folder: {_shown(path)}{hint}")


def _shown(path: Path) -> str:
    return escape_name(os.fsencode(path))


def _no_image(root: Path, index: Index) -> str:
    looked = " ".join(extension.decode() for extensions in EXTENSIONS.values() for extension in extensions)
    there = ", ".join(f"{count:,} {name}" for name, count in list(index.found.items())[:8]) or "no file at all"
    said = "".join(f"; {note}" for note in index.notes)
    return (
        f"data.source: no image in {_shown(root)}: looked for {looked} and for files that begin like one; "
        f"found {there}{said}"
    )


def _key(index: Index, settings: DecodeSettings) -> str:
    """The name of the store: of the folder, and of everything its content depends on."""
    slug = re.sub(r"[^a-z0-9]+", "-", os.path.basename(index.root).decode("ascii", "ignore").lower()).strip("-")[:40]  # noqa: PTH119
    made_by = f"{FORMAT} {decoder_name()} {settings}".encode()
    arrays = (index.offsets, index.sizes, index.mtimes)
    return f"{slug or 'images'}-{digest(made_by, index.root, index.names, *(values.tobytes() for values in arrays))}"


# --- decoding, once ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Read:
    """One file that was read: its image and 64 bits over its bytes, or the reason why it has none."""

    decoded: Decoded | None
    content: int
    reason: str


def _fill(writer: PackWriter, index: Index, settings: DecodeSettings, progress: Progress | None) -> None:
    """Decodes the files of the index into the store, with what the source has to say about them."""
    before = read_layout(index.name(i) for i in range(len(index)))
    used = np.flatnonzero(before.split != UNUSED)  # [M]
    bad: list[BadFile] = []
    kept = array("q")
    counts: Counter[str] = Counter()

    def work(positions: NDArray[np.int64]) -> list[_Read]:
        return [_read(index, int(used[position]), settings) for position in positions]

    with warnings.catch_warnings():
        # Pillow warns of oversized headers, which are refused here, and of odd metadata, which does not matter.
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        for done, read in enumerate(in_order(work, len(used), piece=16)):
            i = int(used[done])
            if read.decoded is None:
                bad.append(BadFile(escape_name(index.name(i)), read.reason))
            else:
                writer.add(read.decoded.pixels, read.content)
                counts.update(read.decoded.notes)
                kept.append(i)
            if progress is not None:
                progress(done + 1, len(used))
    if not kept:
        _check_bad([*index.bad, *bad], 0, 1.0)
    layout = read_layout(index.name(i) for i in kept)  # again: a bad file has no say in it
    facts = {
        "bad": [(item.path, item.reason) for item in bad],
        "classes": layout.classes,
        "rule": layout.rule or BY_CONTENT,
        "notes": list(dict.fromkeys([*before.notes, *layout.notes, *_told(counts, len(kept))])),
    }
    writer.finish(layout.labels, layout.split if layout.rule else split_by_content(writer.content()), facts)


def _read(index: Index, i: int, settings: DecodeSettings) -> _Read:
    limit = int(settings.max_megapixels * 16e6)  # bytes; four channels of 32 bits for each pixel that is allowed
    if index.sizes[i] > limit:
        return _Read(None, 0, f"{index.sizes[i] / 1e6:,.0f} MB, more than any image of {settings.max_megapixels:g} Mpx")
    name = index.name(i)
    try:
        data = _read_twice(index.path(i))
        decoded = decode(data, settings, os.path.splitext(name)[1].lower())  # noqa: PTH122
    except OSError as error:
        return _Read(None, 0, "gone since the folder was listed" if error.errno == errno.ENOENT else why(error))
    except BadImageError as error:
        return _Read(None, 0, str(error))
    return _Read(decoded, int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little"), "")


def _read_twice(path: bytes) -> bytes:
    """A second try, since network disks fail now and then."""
    try:
        return read_regular(path)
    except OSError:
        return read_regular(path)


def _told(counts: Counter[str], images: int) -> list[str]:
    said = [f"{counts[key]:,} of {images:,} images {sentence}" for key, sentence in NOTES.items() if counts[key]]
    if counts["one colour"] > images / 2:
        said = [f"{text}: there is nothing to learn from the data" if "one colour" in text else text for text in said]
    return said


def split_by_content(hashes: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """[N] contents -> TRAIN or TEST [N], one fifth for the test, equal contents on one side; no side is empty.

    Only where all images are the same file, equal contents stand on both sides.
    """
    distinct = np.unique(hashes)
    if len(distinct) == 1:
        test = np.arange(len(hashes)) % 5 == 1
    else:
        test = hashes % np.uint64(5) == 0
        if test.all() or not test.any():
            test = hashes == distinct[0]
    return np.where(test, TEST, TRAIN).astype(np.uint8)


# --- after decoding ---------------------------------------------------------------------------------------------------


def _check_bad(found_bad: list[BadFile], good: int, allowed: float) -> tuple[BadFile, ...]:
    """The bad files in the order of their names. Raises BadFilesError where they are too many."""
    bad = tuple(sorted(found_bad, key=lambda item: item.path))
    fraction = len(bad) / (len(bad) + good)
    if good and fraction <= allowed:
        return bad
    first = "; ".join(f"{item.path}: {item.reason}" for item in bad[:3])
    found = f"data: {len(bad):,} of {len(bad) + good:,} image files are bad"
    if not good:
        raise BadFilesError(f"{found} (first: {first}); needed are images that can be read", bad)
    enough = min(1.0, np.ceil(fraction * 100) / 100)
    raise BadFilesError(
        f"{found}, {100 * fraction:.1f} % where data.max_bad_fraction allows {100 * allowed:g} % (first: {first}); "
        f"mend or remove them, or type --set data.max_bad_fraction={enough:g}",
        bad,
    )


def _divided(pack: Pack, limit: int) -> tuple[NDArray[np.int64], NDArray[np.int64], tuple[str, ...]]:
    """Rows of the store for training and for the test, and notes on copies and limits."""
    train, test = np.flatnonzero(pack.split == TRAIN), np.flatnonzero(pack.split == TEST)
    notes = []
    distinct = len(np.unique(pack.hashes))
    copies = len(pack) - distinct
    if distinct == 1 and len(pack) > 1:
        notes.append(f"all {len(pack):,} images are the same file: training and test hold copies of it")
    elif copies:
        much = ": the data has little to learn from" if copies > len(pack) / 2 else ""
        notes.append(f"{copies:,} of {len(pack):,} images are duplicates of others, byte for byte{much}")
    shared = int(np.isin(pack.hashes[test], pack.hashes[train]).sum())
    if shared and distinct > 1:
        notes.append(f"{shared:,} of {len(test):,} test images are in the training part too, byte for byte")
    if limit > len(train):
        notes.append(f"data.limit={limit:,}, but there are {len(train):,} training images")
    if limit:  # the lowest contents: the same images whatever they are called
        train = np.sort(train[np.argsort(pack.hashes[train], kind="stable")[:limit]])
    if not len(test):
        notes.append("there is only one image: it is the test as well")
        test = train
    return train, test, tuple(notes)


def _fingerprint(pack: Pack, train: NDArray[np.int64], test: NDArray[np.int64], settings: DecodeSettings) -> str:
    arrays = [values[rows].tobytes() for rows in (train, test) for values in (pack.hashes, pack.labels)]
    return digest(str(settings).encode(), "\0".join(pack.facts["classes"]).encode(), *arrays)


def _ignored(index: Index) -> list[str]:
    if not index.ignored:
        return []
    most = ", ".join(f"{count:,} {name}" for name, count in list(index.found.items())[:5])
    return [f"files that are no images, ignored: {index.ignored:,} ({most})"]
