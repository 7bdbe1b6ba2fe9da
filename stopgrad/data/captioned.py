"""Images with captions: a table of paths and captions, shards, or the embedded scenes; pairs of (pixels, caption).

A table is a .csv, .tsv or .jsonl file, or train/ beside test/ with one each (`texts` reads them): a column of paths,
from the table's folder or `data.root`, and one of captions. Shards are tars whose members belong together by name
(`caption_shards`). An image may come with several captions: each is a sample of its own. Images stand in the packed
store, once each; captions in memory. What has no image or no caption is named and left out.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from stopgrad.contracts import ConfigError, DataError, Images, MissingInputError, did_you_mean
from stopgrad.data import scenes
from stopgrad.data.decode import DecodeSettings
from stopgrad.data.folder import BadFile, BadFilesError, Kind, escape_name, expanded, index_folder
from stopgrad.data.from_listing import image_reader, open_read
from stopgrad.data.layout import TEST
from stopgrad.data.listing import Files, Listing, Told, stamp_of
from stopgrad.data.pack import digest
from stopgrad.data.path_list import index_paths
from stopgrad.data.scenes.caption import captions
from stopgrad.data.sources import SCENES, Data, DataConfig, Progress, open_scenes
from stopgrad.data.text_tables import DELIMITED, LINES, shown
from stopgrad.data.texts import TableRows, TextDataConfig, is_text

IMAGE, CAPTION = 0, 1  # parts of a sample
USUAL_FILE = ("file", "path", "image", "filename", "file_name", "filepath", "image_path", "img")
LONGEST = 10_000  # characters of a caption
_TABLES = Kind("table", "tables", dict.fromkeys((*DELIMITED, *LINES), "TABLE"), lambda head: None)


@dataclass(frozen=True, kw_only=True, slots=True)
class CaptionedDataConfig:
    """Which images, and where their captions are."""

    kind: Literal["captioned"] = "captioned"
    source: str = "scenes-v1"  # a .csv, .tsv or .jsonl of paths and captions, a folder of them, tars, or scenes
    file: str = ""  # column of the paths; "": one called file, path, image, filename, ...
    column: str = ""  # of the captions; "": one called caption, text, title, or the only one of sentences
    label: str = ""  # of the classes, which the evaluation names; "": one called label, or none
    root: str = ""  # folder that the paths begin at; "": the table's own
    encoding: str = ""  # of the tables; "": UTF-8, or UTF-16 with a byte-order mark
    channels: int = 3  # as of images, and so are those below
    depth: Literal[8, 16] = 8
    limit: int = 0  # training images to use (0: all), with all their captions
    max_side: int = 512
    min_side: int = 8
    max_bad_fraction: float = 0.05  # of all rows; a run stops above it
    max_megapixels: float = 50.0

    def __post_init__(self) -> None:
        if self.kind != "captioned":
            raise ConfigError(f"data.kind: must be captioned here, got {self.kind!r}")
        if not self.source:
            raise ConfigError("data.source: empty; needed is a table of paths and captions: type --data captions.csv")
        if not 0 <= self.max_bad_fraction <= 1 or math.isnan(self.max_bad_fraction):
            raise ConfigError(
                f"data.max_bad_fraction: must be a fraction from 0 to 1, got {self.max_bad_fraction}; "
                "the default is 0.05"
            )
        self.images()

    def images(self) -> DataConfig:
        """Of the images alone."""
        return DataConfig(
            source=self.source,
            channels=self.channels,
            depth=self.depth,
            limit=self.limit,
            max_side=self.max_side,
            min_side=self.min_side,
            max_bad_fraction=self.max_bad_fraction,
            max_megapixels=self.max_megapixels,
        )


class CaptionedImages:
    """Pairs as a split: a sample is (image [H, W, C], caption [L] uint8, UTF-8), named as its image."""

    labels: NDArray[np.int64] | None

    def __init__(self, images: Images, image: NDArray[np.int64], captions: Sequence[bytes]) -> None:
        """image: [N], which of `images` each caption belongs to."""
        self.images, self.image = images, image
        self.labels = None if images.labels is None else images.labels[image]
        self.letters = np.frombuffer(b"".join(captions), np.uint8)
        self.begins = np.cumsum([0, *map(len, captions)], dtype=np.int64)  # [N + 1]

    def __len__(self) -> int:
        return len(self.image)

    def __getitem__(self, index: int) -> Any:
        return self.images[int(self.image[index])], self.caption(index)

    def caption(self, index: int) -> NDArray[np.uint8]:
        return self.letters[self.begins[index] : self.begins[index + 1]]

    def name(self, index: int) -> str:
        return self.images.name(int(self.image[index]))

    def take(self, index: NDArray[np.int64]) -> Sequence[Any]:
        images = self.images.take(self.image[index])
        return [(image, self.caption(int(i))) for image, i in zip(images, index, strict=True)]


class Part:
    """One part of every pair of a split, IMAGE or CAPTION, as a split."""

    def __init__(self, pairs: Images, part: int) -> None:
        self.pairs, self.part = pairs, part
        self.labels = pairs.labels

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> NDArray[Any]:
        one: NDArray[Any] = self.pairs[index][self.part]
        return one

    def name(self, index: int) -> str:
        return self.pairs.name(index)

    def take(self, index: NDArray[np.int64]) -> Sequence[NDArray[Any]]:
        return [pair[self.part] for pair in self.pairs.take(index)]


def images_of(data: Data) -> Data:
    """Without the captions."""
    return _both(data, lambda split: Part(split, IMAGE))


def texts_of(data: Data) -> Data:
    """Without the images."""
    return _both(data, lambda split: Part(split, CAPTION))


def distinct_images(data: Data) -> Data:
    """The images of pairs, each once; other data as it is."""
    return _both(data, lambda split: split.images if isinstance(split, CaptionedImages) else split)


def _both(data: Data, part: Callable[[Images], Images]) -> Data:
    train = part(data.train)
    return replace(data, train=train, test=train if data.test is data.train else part(data.test))


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a source holds, before an image was read."""

    listing: Listing  # of the images
    pairs: list[tuple[bytes, str]]  # the name of an image in the listing, and a caption of it
    bad: list[BadFile]  # rows and members that are no pair
    notes: tuple[str, ...] = ()


def open_captioned(config: CaptionedDataConfig, image_size: int, progress: Progress | None = None) -> Data:
    """Opens the source, after decoding its images into the cache where that was not done before.

    Raises what `sources.open_data` raises, and DataError where there are no captions.
    """
    if config.source in SCENES:
        data = open_scenes(config.images(), image_size, progress)
        parts = ((scenes.TRAIN_SEED, data.train), (scenes.TEST_SEED, data.test))
        texts = [captions(scenes.draw(seed, np.arange(len(split), dtype=np.int64))) for seed, split in parts]
        return _paired(data, [_in_order(split, own) for (_, split), own in zip(parts, texts)])
    from stopgrad.data.caption_shards import find_shards, read_shards

    shards = find_shards(config.source)
    if not shards and expanded(config.source).is_dir() and not has_captions(config.source):
        raise MissingInputError(
            f"data.source: no captions in {shown(str(expanded(config.source)))}; needed is a captions.csv "
            "(file,caption) in it, or in its train/ and test/, or tars of KEY.jpg and KEY.txt"
        )
    found = read_shards(config.source, shards) if shards else read_pairs(config)
    _check_bad(found, config.max_bad_fraction)
    settings = DecodeSettings(
        config.channels, config.max_side, config.min_side, config.max_megapixels, depth=config.depth
    )
    with contextlib.closing(found.listing):
        data = open_read(found.listing, image_reader(settings), config.limit, config.max_bad_fraction, progress)
    bad = tuple(sorted((*data.bad, *found.bad), key=lambda item: item.path))
    data = replace(data, bad=bad, notes=(*found.notes, *data.notes))
    said: dict[str, list[bytes]] = {}
    for name, caption in found.pairs:
        said.setdefault(escape_name(name), []).append(caption.encode("utf-8", "replace"))
    return _paired(data, [_by_name(split, said) for split in (data.train, data.test)])


def has_captions(source: str) -> bool:
    """Whether a source can be images with captions: scenes, a table, tars, or a folder that holds one of these."""
    from stopgrad.data.caption_shards import find_shards

    path = expanded(source)
    if source in SCENES or is_text(source) or find_shards(source):
        return True
    return path.is_dir() and len(index_folder(path.resolve(), _TABLES)) > 0


def read_pairs(config: CaptionedDataConfig) -> Found:
    """The rows of the tables. Raises ConfigError, MissingInputError, DataError (no such column, no pair)."""
    table = TableRows(
        TextDataConfig(source=config.source, column=config.column, label=config.label, encoding=config.encoding)
    )
    files = _file_column(table, config.file)
    root = os.fsencode(expanded(config.root).resolve()) if config.root else table.root
    pairs: list[tuple[bytes, str]] = []
    bad: list[BadFile] = []
    of: dict[bytes, tuple[int, int]] = {}
    both = 0
    for row, name, split, label in zip(table.rows, table.names, table.split.tolist(), table.labels.tolist()):
        caption, file = row.cells.get(table.column, "").strip(), row.cells.get(files, "").strip()
        if reason := row.reason or _lacking(caption, file, files):
            bad.append(BadFile(escape_name(name), reason))
            continue
        folder = b"" if config.root else os.path.dirname(name.rpartition(b":")[0])  # noqa: PTH120
        path = _below(root, folder, file.encode("utf-8", "surrogateescape"))
        before = of.setdefault(path, (split, label))
        if before[0] != split:
            both += 1
            of[path] = TEST, before[1]
        pairs.append((path, caption))
    if not pairs:
        first = f" (first: {bad[0].path}: {bad[0].reason})" if bad else ""
        raise DataError(f"data.source: no row of {table.place} has an image and a caption{first}; both are needed")
    parts = b" ".join(b"%d:%d" % of[path] for path in sorted(of))
    index = index_paths(root, of)
    told = Told(of, table.classes, table.rule)
    stamp = (b"captioned", *stamp_of(index), parts, *(name.encode() for name in table.classes))
    notes = [f"{both:,} rows name an image that both parts have: it is for the test alone"] if both else []
    left = table.left_out
    return Found(
        listing=Files(index, table.label, table.place, stamp, told),
        pairs=pairs,
        bad=bad,
        notes=(*notes, *(left.notes if left else ())),
    )


def _lacking(caption: str, file: str, column: str) -> str:
    """Why a row is no pair; "" where it is one."""
    if not caption:
        return "empty caption"
    if len(caption) > LONGEST:
        return f"caption of {len(caption):,} characters, at most {LONGEST:,} are read"
    if "\0" in file:
        return f"no path in the column {shown(column)}: it holds a zero byte"
    return "" if file else f"no path in the column {shown(column)}"


def _file_column(table: TableRows, wanted: str) -> str:
    others = [name for name in table.columns if name != table.column]
    if wanted in others:
        return wanted
    if wanted:
        hint = did_you_mean(shown(wanted), map(shown, others))
        raise DataError(f"data.file={shown(wanted)}: {table.place} has no such column{hint}")
    lower = {name.lower(): name for name in reversed(others)}
    found = next((lower[name] for name in USUAL_FILE if name in lower), None)
    if found is None:
        raise DataError(
            f"data.file: {table.place} has no column of paths (looked for {', '.join(USUAL_FILE)}; beside the "
            f"captions, {shown(table.column)}, there are {', '.join(map(shown, others)) or 'none'}); say which: "
            "--set data.file=NAME; texts without images are read with --view text"
        )
    return found


def _below(root: bytes, folder: bytes, path: bytes) -> bytes:
    """Relative to `root` where it lies below it."""
    clean = os.path.normpath(os.path.join(root, folder, path))  # noqa: PTH118
    return clean.removeprefix(os.path.join(root, b""))  # noqa: PTH118


def _check_bad(found: Found, allowed: float) -> None:
    """Raises BadFilesError where too many rows are no pairs; images that can't be read are counted by themselves."""
    total = len(found.bad) + len(found.pairs)
    fraction = len(found.bad) / total
    if fraction <= allowed:
        return
    first = "; ".join(f"{item.path}: {item.reason}" for item in found.bad[:3])
    enough = min(1.0, np.ceil(fraction * 100) / 100)
    raise BadFilesError(
        f"data: {len(found.bad):,} of {total:,} are no image with a caption, {100 * fraction:.1f} % where "
        f"data.max_bad_fraction allows {100 * allowed:g} % (first: {first}); mend or remove them, or type "
        f"--set data.max_bad_fraction={enough:g}",
        tuple(found.bad),
    )


def _in_order(images: Images, texts: Sequence[str]) -> CaptionedImages:
    return CaptionedImages(images, np.arange(len(images)), [text.encode() for text in texts])


def _by_name(images: Images, said: dict[str, list[bytes]]) -> CaptionedImages:
    """Every image with each of its captions."""
    image: list[int] = []
    texts: list[bytes] = []
    for i in range(len(images)):
        own = said[images.name(i)]
        image += [i] * len(own)
        texts += own
    return CaptionedImages(images, np.array(image, np.int64), texts)


def _paired(data: Data, splits: Sequence[CaptionedImages]) -> Data:
    """data: the images.  splits: they with their captions, for training and for the test."""
    train, test = splits
    content = [part.tobytes() for split in splits for part in (split.image, split.begins, split.letters)]
    notes = []
    counts = Counter(train.caption(i).tobytes() for i in range(len(train)))
    again = sum(count for count in counts.values() if count > 1)
    if again:
        notes.append(
            f"{again:,} of {len(train):,} training captions are those of another image too: where both are in a batch, "
            "each is a wrong answer for the other's image"
        )
    if len(train) > len(train.images):
        notes.append(f"{len(train):,} training captions of {len(train.images):,} images: each is a sample")
    return replace(
        data,
        train=train,
        test=train if data.test is data.train else test,
        fingerprint=digest(data.fingerprint.encode(), *content),
        notes=(*data.notes, *notes),
    )
