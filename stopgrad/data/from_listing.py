"""A listed source, decoded once into the store, divided into training and test, and described.

What its files hold, a `Reader` says: of images here, of sounds in `audio`.
"""

from __future__ import annotations

import base64
import errno
import hashlib
import re
import warnings
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray
from PIL import Image

from stopgrad.contracts import MissingInputError
from stopgrad.data.beside import check_one_kind
from stopgrad.data.decode import NOTES, BadImageError, DecodeSettings, decode, decoder_name
from stopgrad.data.folder import IMAGES, BadFile, BadFilesError, Kind, escape_name, why
from stopgrad.data.layout import TEST, TRAIN, UNUSED
from stopgrad.data.listing import LeftOut, Listing, Member, UnreadableError, extension_of, pieces
from stopgrad.data.pack import FORMAT, Pack, PackedImages, PackWriter, digest, open_or_build
from stopgrad.data.sources import Data, DataConfig, Progress
from stopgrad.data.workers import Busy, in_threads

BY_CONTENT = "80/20 by content hash"


@dataclass(frozen=True, kw_only=True, slots=True)
class Reader:
    """How the bytes of a wanted file become a row of the store."""

    wanted: Kind
    made_by: str  # which decoder; in the name of the store
    settings: object  # all that shapes a row; as text in the name of the store and in the fingerprint
    channels: int  # of the store, as its dtype: see `PackWriter`
    dtype: DTypeLike
    largest: int  # bytes of the largest file worth reading
    too_large: str  # why a larger one is bad, after its size
    notes: Mapping[str, str]  # what is told once per source: key -> sentence after the count
    dull: str  # the key of the note that, said of most rows, leaves nothing to learn
    # (names, where) -> DataError where the names say that the files are not to be read alike
    check_names: Callable[[Iterable[bytes], str], None] | None = None
    # (bytes, extension) -> the row and keys of `notes`. Raises BadImageError or UnreadableError, from any thread.
    decode: Callable[[bytes, bytes], tuple[NDArray[Any], tuple[str, ...]]]


def image_reader(settings: DecodeSettings) -> Reader:
    """Files of images: rows [H, W, C]."""

    def decoded(data: bytes, extension: bytes) -> tuple[NDArray[Any], tuple[str, ...]]:
        image = decode(data, settings, extension)
        return image.pixels, image.notes

    return Reader(
        wanted=IMAGES,
        made_by=decoder_name(),
        settings=settings,
        channels=settings.channels,
        dtype=settings.dtype,
        # four channels of 32 bits for each pixel that is allowed, or more
        largest=int(settings.max_megapixels * 1e6 * max(16, 4 * settings.channels)),
        too_large=f"more than any image of {settings.max_megapixels:g} Mpx",
        notes=NOTES,
        dull="one colour",
        check_names=check_one_kind,
        decode=decoded,
    )


def open_listing(listing: Listing, config: DataConfig, image_size: int, progress: Progress | None) -> Data:
    """Any source of image files; see `sources.open_data` for what it raises."""
    settings = DecodeSettings(
        config.channels, config.max_side, config.min_side, config.max_megapixels, depth=config.depth
    )
    if config.sensors:
        from stopgrad.data.sensors import open_beside  # it is built on this file

        data = open_beside(listing, config, progress)
    else:
        data = open_read(listing, image_reader(settings), config.limit, config.max_bad_fraction, progress)
    if image_size <= config.max_side:
        return data
    note = f"images are kept at {config.max_side} pixels (data.max_side), fewer than the {image_size} of a crop"
    return replace(data, notes=(note, *data.notes))


def open_read(listing: Listing, reader: Reader, limit: int, max_bad_fraction: float, progress: Progress | None) -> Data:
    """Any source of files that `reader` reads.  limit: training rows to use, 0: all; see `sources.open_data`."""
    pack, damage = open_or_build(
        _key(listing, reader),
        reader.channels,
        lambda writer: _fill(writer, listing, reader, progress),
        reader.dtype,
    )
    left = listing.left_out or _remembered(pack)
    used = int((pack.split != UNUSED).sum())
    found_bad = [*left.bad, *(BadFile(*item) for item in pack.facts["bad"])]
    bad = _check_bad(found_bad, used, max_bad_fraction, reader.wanted)
    train, test, notes = _divided(pack, limit, reader.wanted)
    labelled = bool(pack.facts["classes"])
    shown = PackedImages(pack, train, labelled)
    return Data(
        name=escape_name(listing.label) or "/",
        synthetic=False,
        classes=tuple(pack.facts["classes"]),
        train=shown,
        test=shown if test is train else PackedImages(pack, test, labelled),
        fingerprint=_fingerprint(pack, train, test, reader.settings),
        bad=bad,
        ignored=left.ignored,
        notes=(*notes, *damage, *pack.facts["notes"], *left.notes, *_ignored(left, reader.wanted)),
        split_rule=pack.facts["rule"],
    )


def _key(listing: Listing, reader: Reader) -> str:
    """The name of the store: of the source, and of everything its content depends on."""
    slug = re.sub(r"[^a-z0-9]+", "-", listing.label.decode("ascii", "ignore").lower()).strip("-")[:40]
    made_by = f"{FORMAT} {reader.made_by} {reader.settings}".encode()
    return f"{slug or reader.wanted.many}-{digest(made_by, *listing.stamp)}"


def _remembered(pack: Pack) -> LeftOut:
    facts = pack.facts["left out"]
    return LeftOut(
        tuple(BadFile(**item) for item in facts["bad"]), facts["ignored"], facts["found"], tuple(facts["notes"])
    )


# --- decoding, once ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Read:
    """One member that was read: its row, notes on it, and 64 bits over its bytes, or the reason why it has none."""

    name: bytes
    row: NDArray[Any] | None
    notes: tuple[str, ...]
    content: int
    reason: str


def _fill(writer: PackWriter, listing: Listing, reader: Reader, progress: Progress | None) -> None:
    """Decodes the members of a source into the store, with what the source has to say about them."""
    known = listing.count()
    wanted = None  # all of them: which are used is known at the end
    if known is not None:
        if reader.check_names is not None:
            reader.check_names((member.name for member in listing.members()), listing.place)
        used = np.flatnonzero(listing.layout(np.arange(known)).split != UNUSED)  # [M]
        wanted = used.tolist()
    bad: dict[int, BadFile] = {}
    kept = array("q")
    seen: list[bytes] = []  # names as they came, where only reading tells them
    counts: Counter[str] = Counter()

    busy = Busy()

    def work(piece: list[Member]) -> list[_Read]:
        read = []
        for member in piece:
            with busy.at(member.name):
                read.append(_read(member, reader))
        return read

    with warnings.catch_warnings():
        # Pillow warns of oversized headers, which are refused here, and of odd metadata, which does not matter.
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        members = listing.members(wanted, reader.largest)
        for done, read in enumerate(in_threads(work, pieces(members), busy)):
            i = done if wanted is None else wanted[done]
            if wanted is None:
                seen.append(read.name)
            if read.row is None:
                bad[i] = BadFile(escape_name(read.name), read.reason)
            else:
                writer.add(read.row, read.content, escape_name(read.name))
                counts.update(read.notes)
                kept.append(i)
            total = _total(listing, wanted, done + 1)
            writer.check_room(done + 1, total)
            if progress is not None:
                progress(done + 1, total)
    left = listing.left_out or LeftOut()
    if known is None and reader.check_names is not None:
        reader.check_names(seen, listing.place)
    count = len(seen) if known is None else known
    if not count and not left.bad:
        raise MissingInputError(_none_there(listing.place, left, reader.wanted))
    before = listing.layout(np.arange(count))
    counted = [item for i, item in bad.items() if before.split[i] != UNUSED]
    if not kept:
        _check_bad([*left.bad, *counted], 0, 1.0, reader.wanted)
    layout = listing.layout(np.array(kept, np.int64))  # again: a bad file has no say in it
    facts = {
        "bad": [(item.path, item.reason) for item in counted],
        "classes": layout.classes,
        "rule": layout.rule or BY_CONTENT,
        "notes": list(dict.fromkeys([*before.notes, *layout.notes, *_told(counts, len(kept), reader)])),
        "left out": asdict(left),
    }
    if known is None:
        facts["order"] = _order_to_text([seen[i] for i in kept])
    split = layout.split.copy()
    if not layout.rule:
        split[split != UNUSED] = split_by_content(writer.content()[split != UNUSED])
    writer.finish(layout.labels, split, facts)


def _total(listing: Listing, wanted: list[int] | None, done: int) -> int:
    """How many members there will be; where nobody can say, as many as the part that was read lets expect."""
    return len(wanted) if wanted is not None else max(done, round(done / max(listing.share_read(), 1e-6)))


def _order_to_text(names: list[bytes]) -> str:
    """Rows of the store in the order of their names: a tar.gz is the same data as the folder that it was made of."""
    order = np.array(sorted(range(len(names)), key=names.__getitem__), "<i4")
    return base64.b64encode(order.tobytes()).decode()


def _rows(pack: Pack) -> NDArray[np.int64]:
    """[N], all rows of the store in the order of the source."""
    if "order" not in pack.facts:
        return np.arange(len(pack))
    return np.frombuffer(base64.b64decode(pack.facts["order"]), "<i4").astype(np.int64)


def _read(member: Member, reader: Reader) -> _Read:
    def refused(reason: str) -> _Read:
        return _Read(member.name, None, (), 0, reason)

    def too_large(size: int) -> _Read:
        return refused(f"{size / 1e6:,.0f} MB, {reader.too_large}")

    if member.size > reader.largest:
        return too_large(member.size)
    try:
        data = member.read(-1)
        if len(data) > reader.largest:  # a row of a table does not say its size before it is read
            return too_large(len(data))
        row, notes = reader.decode(data, extension_of(member.name))
    except OSError as error:
        return refused("gone since the folder was listed" if error.errno == errno.ENOENT else why(error))
    except (UnreadableError, BadImageError) as error:
        return refused(str(error))
    content = int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")
    return _Read(member.name, row, notes, content, "")


def _none_there(place: str, left: LeftOut, wanted: Kind) -> str:
    looked = " ".join(extension.decode() for extension in wanted.format_of)
    there = ", ".join(f"{count:,} {name}" for name, count in list(left.found.items())[:8]) or "no file at all"
    said = "".join(f"; {note}" for note in left.notes)
    return (
        f"data.source: no {wanted.one} in {place}: looked for {looked} and for files that begin like one; found "
        f"{there}{said}"
    )


def _told(counts: Counter[str], rows: int, reader: Reader) -> list[str]:
    said = []
    for key, sentence in reader.notes.items():
        if counts[key]:
            dull = ": there is nothing to learn from the data" if key == reader.dull and counts[key] > rows / 2 else ""
            said.append(f"{counts[key]:,} of {rows:,} {reader.wanted.many} {sentence}{dull}")
    return said


def split_by_content(hashes: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """[N] contents -> TRAIN or TEST [N], one fifth for the test, equal contents on one side; no side is empty.

    Only where all files are the same, equal contents stand on both sides.
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


def _check_bad(found_bad: list[BadFile], good: int, allowed: float, wanted: Kind) -> tuple[BadFile, ...]:
    """The bad files in the order of their names. Raises BadFilesError where they are too many."""
    bad = tuple(sorted(found_bad, key=lambda item: item.path))
    fraction = len(bad) / (len(bad) + good)
    if good and fraction <= allowed:
        return bad
    first = "; ".join(f"{item.path}: {item.reason}" for item in bad[:3])
    found = f"data: {len(bad):,} of {len(bad) + good:,} {wanted.one} {wanted.unit} are bad"
    if not good:
        raise BadFilesError(f"{found} (first: {first}); needed are {wanted.many} that can be read", bad)
    enough = min(1.0, np.ceil(fraction * 100) / 100)
    raise BadFilesError(
        f"{found}, {100 * fraction:.1f} % where data.max_bad_fraction allows {100 * allowed:g} % (first: {first}); "
        f"mend or remove them, or type --set data.max_bad_fraction={enough:g}",
        bad,
    )


def _divided(pack: Pack, limit: int, wanted: Kind) -> tuple[NDArray[np.int64], NDArray[np.int64], tuple[str, ...]]:
    """Rows of the store for training and for the test, and notes on copies and limits."""
    rows = _rows(pack)
    train, test = rows[pack.split[rows] == TRAIN], rows[pack.split[rows] == TEST]
    notes = []
    used = len(train) + len(test)
    distinct = len(np.unique(pack.hashes[pack.split != UNUSED]))
    copies = used - distinct
    if distinct == 1 and used > 1:
        notes.append(f"all {used:,} {wanted.many} are the same file: training and test hold copies of it")
    elif copies:
        much = ": the data has little to learn from" if copies > used / 2 else ""
        notes.append(f"{copies:,} of {used:,} {wanted.many} are duplicates of others, byte for byte{much}")
    shared = int(np.isin(pack.hashes[test], pack.hashes[train]).sum())
    if shared and distinct > 1:
        notes.append(f"{shared:,} of {len(test):,} test {wanted.many} are in the training part too, byte for byte")
    if limit > len(train):
        notes.append(f"data.limit={limit:,}, but there are {len(train):,} training {wanted.many}")
    if limit:  # the lowest contents: the same images whatever they are called
        train = train[np.sort(np.argsort(pack.hashes[train], kind="stable")[:limit])]
    if not len(test):
        notes.append(f"there is only one {wanted.one}: it is the test as well")
        test = train
    return train, test, tuple(notes)


def _fingerprint(pack: Pack, train: NDArray[np.int64], test: NDArray[np.int64], settings: object) -> str:
    arrays = [values[rows].tobytes() for rows in (train, test) for values in (pack.hashes, pack.labels)]
    return digest(str(settings).encode(), "\0".join(pack.facts["classes"]).encode(), *arrays)


def _ignored(left: LeftOut, wanted: Kind) -> list[str]:
    if not left.ignored:
        return []
    most = ", ".join(f"{count:,} {name}" for name, count in list(left.found.items())[:5])
    return [f"files that are no {wanted.many}, ignored: {left.ignored:,} ({most})"]
