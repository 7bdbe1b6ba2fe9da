"""A listed source, decoded once into the store, divided into training and test, and described."""

from __future__ import annotations

import base64
import errno
import hashlib
import re
import warnings
from array import array
from collections import Counter
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stopgrad.contracts import MissingInputError
from stopgrad.data.decode import NOTES, BadImageError, Decoded, DecodeSettings, decode, decoder_name
from stopgrad.data.folder import EXTENSIONS, BadFile, BadFilesError, escape_name, why
from stopgrad.data.layout import TEST, TRAIN, UNUSED
from stopgrad.data.listing import LeftOut, Listing, Member, UnreadableError, extension_of, in_threads, pieces
from stopgrad.data.pack import FORMAT, Pack, PackedImages, PackWriter, digest, open_or_build
from stopgrad.data.sources import Data, DataConfig, Progress

BY_CONTENT = "80/20 by content hash"


def open_listing(listing: Listing, config: DataConfig, image_size: int, progress: Progress | None) -> Data:
    """Any source of image files; see `sources.open_data` for what it raises."""
    settings = DecodeSettings(
        config.channels, config.max_side, config.min_side, config.max_megapixels, depth=config.depth
    )
    pack, damage = open_or_build(
        _key(listing, settings),
        config.channels,
        lambda writer: _fill(writer, listing, settings, progress),
        np.uint16 if config.depth == 16 else np.uint8,
    )
    left = listing.left_out or _remembered(pack)
    used = int((pack.split != UNUSED).sum())
    bad = _check_bad([*left.bad, *(BadFile(*item) for item in pack.facts["bad"])], used, config.max_bad_fraction)
    train, test, notes = _divided(pack, config.limit)
    if image_size > config.max_side:
        notes += (
            f"images are kept at {config.max_side} pixels (data.max_side), fewer than the {image_size} of a crop",
        )
    labelled = bool(pack.facts["classes"])
    shown = PackedImages(pack, train, labelled)
    return Data(
        name=escape_name(listing.label) or "/",
        synthetic=False,
        classes=tuple(pack.facts["classes"]),
        train=shown,
        test=shown if test is train else PackedImages(pack, test, labelled),
        fingerprint=_fingerprint(pack, train, test, settings),
        bad=bad,
        ignored=left.ignored,
        notes=(*notes, *damage, *pack.facts["notes"], *left.notes, *_ignored(left)),
        split_rule=pack.facts["rule"],
    )


def _key(listing: Listing, settings: DecodeSettings) -> str:
    """The name of the store: of the source, and of everything its content depends on."""
    slug = re.sub(r"[^a-z0-9]+", "-", listing.label.decode("ascii", "ignore").lower()).strip("-")[:40]
    made_by = f"{FORMAT} {decoder_name()} {settings}".encode()
    return f"{slug or 'images'}-{digest(made_by, *listing.stamp)}"


def _remembered(pack: Pack) -> LeftOut:
    facts = pack.facts["left out"]
    return LeftOut(
        tuple(BadFile(**item) for item in facts["bad"]), facts["ignored"], facts["found"], tuple(facts["notes"])
    )


# --- decoding, once ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Read:
    """One member that was read: its image and 64 bits over its bytes, or the reason why it has none."""

    name: bytes
    decoded: Decoded | None
    content: int
    reason: str


def _fill(writer: PackWriter, listing: Listing, settings: DecodeSettings, progress: Progress | None) -> None:
    """Decodes the members of a source into the store, with what the source has to say about them."""
    known = listing.count()
    wanted = None  # all of them: which are used is known at the end
    if known is not None:
        used = np.flatnonzero(listing.layout(np.arange(known)).split != UNUSED)  # [M]
        wanted = used.tolist()
    bad: dict[int, BadFile] = {}
    kept = array("q")
    seen: list[bytes] = []  # names as they came, where only reading tells them
    counts: Counter[str] = Counter()

    def work(piece: list[Member]) -> list[_Read]:
        return [_read(member, settings) for member in piece]

    with warnings.catch_warnings():
        # Pillow warns of oversized headers, which are refused here, and of odd metadata, which does not matter.
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        members = listing.members(wanted, _largest(settings))
        for done, read in enumerate(in_threads(work, pieces(members))):
            i = done if wanted is None else wanted[done]
            if wanted is None:
                seen.append(read.name)
            if read.decoded is None:
                bad[i] = BadFile(escape_name(read.name), read.reason)
            else:
                writer.add(read.decoded.pixels, read.content, escape_name(read.name))
                counts.update(read.decoded.notes)
                kept.append(i)
            total = _total(listing, wanted, done + 1)
            writer.check_room(done + 1, total)
            if progress is not None:
                progress(done + 1, total)
    left = listing.left_out or LeftOut()
    count = len(seen) if known is None else known
    if not count and not left.bad:
        raise MissingInputError(_no_image(listing.place, left))
    before = listing.layout(np.arange(count))
    counted = [item for i, item in bad.items() if before.split[i] != UNUSED]
    if not kept:
        _check_bad([*left.bad, *counted], 0, 1.0)
    layout = listing.layout(np.array(kept, np.int64))  # again: a bad file has no say in it
    facts = {
        "bad": [(item.path, item.reason) for item in counted],
        "classes": layout.classes,
        "rule": layout.rule or BY_CONTENT,
        "notes": list(dict.fromkeys([*before.notes, *layout.notes, *_told(counts, len(kept))])),
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


def _largest(settings: DecodeSettings) -> int:
    """Bytes of the largest file worth reading: four channels of 32 bits for each pixel that is allowed, or more."""
    return int(settings.max_megapixels * 1e6 * max(16, 4 * settings.channels))


def _read(member: Member, settings: DecodeSettings) -> _Read:
    def refused(reason: str) -> _Read:
        return _Read(member.name, None, 0, reason)

    def too_large(size: int) -> _Read:
        return refused(f"{size / 1e6:,.0f} MB, more than any image of {settings.max_megapixels:g} Mpx")

    limit = _largest(settings)
    if member.size > limit:
        return too_large(member.size)
    try:
        data = member.read(-1)
        if len(data) > limit:  # a row of a table does not say its size before it is read
            return too_large(len(data))
        decoded = decode(data, settings, extension_of(member.name))
    except OSError as error:
        return refused("gone since the folder was listed" if error.errno == errno.ENOENT else why(error))
    except (UnreadableError, BadImageError) as error:
        return refused(str(error))
    content = int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")
    return _Read(member.name, decoded, content, "")


def _no_image(place: str, left: LeftOut) -> str:
    looked = " ".join(extension.decode() for extensions in EXTENSIONS.values() for extension in extensions)
    there = ", ".join(f"{count:,} {name}" for name, count in list(left.found.items())[:8]) or "no file at all"
    said = "".join(f"; {note}" for note in left.notes)
    return (
        f"data.source: no image in {place}: looked for {looked} and for files that begin like one; found {there}{said}"
    )


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
    rows = _rows(pack)
    train, test = rows[pack.split[rows] == TRAIN], rows[pack.split[rows] == TEST]
    notes = []
    used = len(train) + len(test)
    distinct = len(np.unique(pack.hashes[pack.split != UNUSED]))
    copies = used - distinct
    if distinct == 1 and used > 1:
        notes.append(f"all {used:,} images are the same file: training and test hold copies of it")
    elif copies:
        much = ": the data has little to learn from" if copies > used / 2 else ""
        notes.append(f"{copies:,} of {used:,} images are duplicates of others, byte for byte{much}")
    shared = int(np.isin(pack.hashes[test], pack.hashes[train]).sum())
    if shared and distinct > 1:
        notes.append(f"{shared:,} of {len(test):,} test images are in the training part too, byte for byte")
    if limit > len(train):
        notes.append(f"data.limit={limit:,}, but there are {len(train):,} training images")
    if limit:  # the lowest contents: the same images whatever they are called
        train = train[np.sort(np.argsort(pack.hashes[train], kind="stable")[:limit])]
    if not len(test):
        notes.append("there is only one image: it is the test as well")
        test = train
    return train, test, tuple(notes)


def _fingerprint(pack: Pack, train: NDArray[np.int64], test: NDArray[np.int64], settings: DecodeSettings) -> str:
    arrays = [values[rows].tobytes() for rows in (train, test) for values in (pack.hashes, pack.labels)]
    return digest(str(settings).encode(), "\0".join(pack.facts["classes"]).encode(), *arrays)


def _ignored(left: LeftOut) -> list[str]:
    if not left.ignored:
        return []
    most = ", ".join(f"{count:,} {name}" for name, count in list(left.found.items())[:5])
    return [f"files that are no images, ignored: {left.ignored:,} ({most})"]
