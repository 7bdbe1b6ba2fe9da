"""Texts: a column of a table, or the captions of the embedded scenes, in the packed store as UTF-8 bytes.

A source is one file (`text_tables`) or a folder of them; `train/` beside `test/`, or `train.csv` beside `test.csv`, say
which texts are for the test, else their content does. The column of texts is the one called caption, text, title or
sentence, or the only one whose cells are sentences; `data.column` names another. `data.label` is the column of classes
(one called label needs no naming); every other column of few values is an attribute, which features are probed with.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from stopgrad.contracts import ConfigError, DataError, MissingInputError, did_you_mean
from stopgrad.data import scenes
from stopgrad.data.decode import BadImageError
from stopgrad.data.folder import Index, Kind, escape_name, expanded, index_folder, unescape_name, why
from stopgrad.data.from_listing import Reader, open_read
from stopgrad.data.layout import TEST, TEST_NAMES, TRAIN, TRAIN_NAMES, UNUSED, Layout
from stopgrad.data.listing import LeftOut, Member, UnreadableError, extension_of, read_twice
from stopgrad.data.path_list import index_paths
from stopgrad.data.scenes.caption import captions
from stopgrad.data.sources import SCENES, Attribute, Data, Progress
from stopgrad.data.text_tables import DELIMITED, LINES, PLAIN, Row, read_rows, shown

USUAL = ("caption", "text", "title", "sentence")  # columns that texts are known by; the first that is there
USUAL_LABEL = "label"
SUFFIXES = (*DELIMITED, *LINES, PLAIN)
TABLES = Kind("text", "texts", dict.fromkeys(SUFFIXES, "TABLE"), lambda head: None, unit="rows")
LARGEST_FILE = 4_000_000_000  # bytes; a file is held in memory while it is read
MOST_VALUES = 200  # of an attribute
LOOKED_AT = 1_000  # rows, to find the column of texts


@dataclass(frozen=True, kw_only=True, slots=True)
class TextDataConfig:
    """Which texts."""

    kind: Literal["text"] = "text"
    source: str = "scenes-v1"  # a .csv, .tsv, .jsonl or .txt, a folder of them, or scenes
    column: str = ""  # of the texts; "": found
    label: str = ""  # column of the classes; "": one called label, or none
    encoding: str = ""  # of the files; "": UTF-8, or UTF-16 with a byte-order mark
    limit: int = 0  # training texts to use (0: all), chosen by content; scenes: the first ones, and limit // 5 for test
    max_characters: int = 10_000  # a longer text is bad
    max_bad_fraction: float = 0.05  # of all rows; a run stops above it

    def __post_init__(self) -> None:
        if self.kind != "text":
            raise ConfigError(f"data.kind: must be text here, got {self.kind!r}")
        if self.limit < 0:
            raise ConfigError(f"data.limit: must be 0 (all texts) or more, got {self.limit}")
        if self.max_characters < 1:
            raise ConfigError(f"data.max_characters: must be 1 or more, got {self.max_characters}; use 10000")
        if not 0 <= self.max_bad_fraction <= 1 or math.isnan(self.max_bad_fraction):
            raise ConfigError(
                f"data.max_bad_fraction: must be a fraction from 0 to 1, got {self.max_bad_fraction}; "
                "the default is 0.05"
            )
        if self.column and self.column == self.label:
            raise ConfigError(f"data.column and data.label are both {self.column!r}; texts and classes are two columns")


def is_text(source: str) -> bool:
    """Whether a source can only be texts: a table, by its name. A .txt may be a list of paths."""
    return expanded(source).suffix.lower().encode("utf-8", "surrogateescape") in (*DELIMITED, *LINES)


def open_texts(config: TextDataConfig, *, progress: Progress | None = None) -> Data:
    """Opens the source, after copying its texts into the cache where that was not done before.

    progress: called with (done, total) texts meanwhile. Raises ConfigError, MissingInputError (no such file, no table
    in the folder), DataError (no such column, too many bad rows; a BadFilesError carries `.bad`), StorageError (cache).
    """
    listing: TableRows | _Scenes = _Scenes(config) if config.source in SCENES else TableRows(config)
    with contextlib.closing(listing):
        limit = 0 if isinstance(listing, _Scenes) else config.limit
        data = open_read(listing, _reader(config), limit, config.max_bad_fraction, progress)
        if isinstance(listing, _Scenes):
            return replace(data, name=scenes.VERSION, synthetic=True)
        found, notes = listing.attributes(data)
    return replace(data, attributes=found, notes=(*data.notes, *notes))


def _reader(config: TextDataConfig) -> Reader:
    """Rows of texts: [L], the bytes of UTF-8."""

    def read(data: bytes, extension: bytes) -> tuple[NDArray[Any], tuple[str, ...]]:
        try:
            text = data.decode("utf-8").strip()
        except UnicodeDecodeError as error:
            raise BadImageError("not UTF-8; --set data.encoding=latin-1 reads it as another") from error
        if not text:
            raise BadImageError("no text in this row")
        if len(text) > config.max_characters:
            raise BadImageError(f"{len(text):,} characters, more than data.max_characters={config.max_characters:,}")
        return np.frombuffer(text.encode("utf-8"), np.uint8), ()

    return Reader(
        wanted=TABLES,
        made_by="texts",
        settings=(config.column, config.label, config.encoding, config.max_characters),
        channels=0,
        dtype=np.uint8,
        largest=4 * config.max_characters + 65_536,
        too_large=f"more than data.max_characters={config.max_characters:,} can be",
        notes={},
        dull="",
        decode=read,
    )


class TableRows:
    """Tables of a folder, or one: each row is a member."""

    def __init__(self, config: TextDataConfig) -> None:
        if not config.source:
            raise ConfigError("data.source: empty; needed is a .csv, .tsv, .jsonl or .txt of texts: type --data FILE")
        path = expanded(config.source)
        self.place = escape_name(os.fsencode(path))
        index = _index(path, self.place)
        kept = _tables(index)
        self.root = index.root
        self.label = os.fsencode(path.resolve().name)
        names = [index.name(i) for i in kept]
        self.stamp: tuple[bytes, ...] = (
            b"texts",
            index.root,
            b"\0".join(names),
            index.sizes[kept].tobytes(),
            index.mtimes[kept].tobytes(),
        )
        part, self.rule, notes = _parts(names)
        used = [(name, i, p) for name, i, p in zip(names, kept, part) if p != UNUSED]
        self.rows: list[Row] = []
        self.names: list[bytes] = []
        split: list[int] = []
        columns: list[tuple[str, ...]] = []
        for name, i, p in used:
            have, rows = self._table(index, i, name, config.encoding)
            columns.append(have)
            self.rows += rows
            self.names += [b"%s:%d" % (name, row.line) for row in rows]
            split += [p] * len(rows)
        self.columns = tuple(name for name in columns[0] if all(name in have for have in columns))
        if not self.rows:
            raise MissingInputError(f"data.source: no row in {self.place}; needed is a text in each row")
        self.column = self._find_column(config.column)
        self.class_column = self._find_label(config.label)
        self.split = np.array(split, np.uint8)
        self.labels, self.classes, more = self._labels()
        ignored = len(index) - len(kept) + index.ignored
        self.left_out: LeftOut | None = LeftOut(index.bad, ignored, index.found, (*notes, *more, *index.notes))

    def _table(self, index: Index, i: int, name: bytes, encoding: str) -> tuple[tuple[str, ...], list[Row]]:
        where = escape_name(name)
        if index.sizes[i] > LARGEST_FILE:
            raise DataError(f"data.source: {where} has {index.sizes[i] / 1e9:.1f} GB; at most 4 GB are read, divide it")
        try:
            data = read_twice(index.path(i))
        except OSError as error:
            raise MissingInputError(f"data.source: {where} can't be read ({why(error)})") from error
        return read_rows(data, extension_of(name), where, encoding)

    def _find_column(self, wanted: str) -> str:
        if wanted:
            if wanted in self.columns:
                return wanted
            raise DataError(
                f"data.column={shown(wanted)}: {self.place} has no such column"
                f"{did_you_mean(shown(wanted), map(shown, self.columns))}"
            )
        lower = {name.lower(): name for name in reversed(self.columns)}
        known = next((lower[name] for name in USUAL if name in lower), None)
        if known is not None:
            return known
        if len(self.columns) == 1:
            return self.columns[0]
        sentences = [name for name in self.columns if self._are_sentences(name)]
        if len(sentences) == 1:
            return sentences[0]
        found = [shown(name) for name in sentences or self.columns[:12]]
        if not found:
            raise DataError(f"data.source: the tables of {self.place} share no column; each needs the texts in one")
        many = "more than one column" if sentences else "no column"
        raise DataError(
            f"data.source: {self.place} has {many} of texts (looked for {', '.join(USUAL)}, and for sentences): found "
            f"{', '.join(found)}; say which: --set data.column={found[0]}"
        )

    def _are_sentences(self, column: str) -> bool:
        """Three words or more in most cells, and mostly different ones."""
        cells = [row.cells.get(column, "") for row in self.rows[:LOOKED_AT] if not row.reason]
        many = sum(len(cell.split()) >= 3 for cell in cells)
        return many > len(cells) / 2 and len(set(cells)) > len(cells) / 2

    def _find_label(self, wanted: str) -> str:
        if wanted and wanted not in self.columns:
            raise DataError(
                f"data.label={shown(wanted)}: {self.place} has no such column"
                f"{did_you_mean(shown(wanted), map(shown, self.columns))}"
            )
        return wanted or next((n for n in self.columns if n.lower() == USUAL_LABEL and n != self.column), "")

    def _labels(self) -> tuple[NDArray[np.int64], tuple[str, ...], tuple[str, ...]]:
        none = np.full(len(self.rows), -1, np.int64)
        if not self.class_column:
            return none, (), ()
        cells = [row.cells.get(self.class_column, "").strip() for row in self.rows]
        empty = sum(not cell and not row.reason for cell, row in zip(cells, self.rows))
        said = shown(self.class_column)
        if empty:
            return none, (), (f"no labels: {empty:,} rows have none in the column {said}",)
        values = sorted({cell for cell, row in zip(cells, self.rows) if not row.reason})
        if len(values) < 2 or len(values) > len(self.rows) / 2:
            return none, (), (f"no labels: the column {said} has {len(values):,} values in {len(self.rows):,} rows",)
        number = {value: i for i, value in enumerate(values)}
        labels = np.array([number.get(cell, -1) for cell in cells], np.int64)
        unseen = set(labels[self.split == TEST].tolist()) - set(labels[self.split == TRAIN].tolist())
        notes = (f"{len(unseen):,} of {len(values):,} classes are only in the test part",) if unseen else ()
        return labels, tuple(map(shown, values)), notes

    def count(self) -> int | None:
        return len(self.rows)

    def members(self, wanted: Iterable[int] | None = None, most: int = -1) -> Iterator[Member]:
        for i in range(len(self.rows)) if wanted is None else wanted:
            row = self.rows[int(i)]
            yield Member(self.names[int(i)], 0, partial(_cell, row, self.column))

    def layout(self, kept: NDArray[np.int64]) -> Layout:
        return Layout(self.split[kept], self.labels[kept], self.classes, self.rule, ())

    def share_read(self) -> float:
        return 1.0

    def close(self) -> None:
        pass

    def attributes(self, data: Data) -> tuple[dict[str, Attribute], tuple[str, ...]]:
        """Every other column of few values, of the texts of both splits; and notes on those left out."""
        at = {name: i for i, name in enumerate(self.names)}
        rows = [
            np.array([at[unescape_name(part.name(i))] for i in range(len(part))], np.int64)
            for part in (data.train, data.test)
        ]
        found: dict[str, Attribute] = {}
        left: list[str] = []
        for column in self.columns:
            if column in (self.column, self.class_column):
                continue
            cells = [[self.rows[int(i)].cells.get(column, "").strip() for i in part] for part in rows]
            values = sorted({cell for part in cells for cell in part})
            if not 2 <= len(values) <= min(MOST_VALUES, (len(cells[0]) + len(cells[1])) / 2) or "" in values:
                left.append(f"{shown(column)} ({'empty cells' if '' in values else f'{len(values):,} values'})")
                continue
            number = {value: i for i, value in enumerate(values)}
            train, test = (np.array([number[cell] for cell in part], np.int64) for part in cells)
            found[shown(column)] = Attribute(tuple(map(shown, values)), train, test)
        return found, ((f"columns that are no attributes: {', '.join(left)}",) if left else ())


def _cell(row: Row, column: str, limit: int) -> bytes:
    if row.reason:
        raise UnreadableError(row.reason)
    data = row.cells.get(column, "").encode("utf-8", "surrogateescape")
    return data if limit < 0 else data[:limit]


def _index(path: Path, place: str) -> Index:
    """The tables at a place. Raises MissingInputError."""
    try:
        if path.is_dir():
            return index_folder(path.resolve(), TABLES)
        if not path.exists():
            raise MissingInputError(
                f"data.source: no such file: {place}; needed is a .csv, .tsv, .jsonl or .txt of texts, or a folder"
            )
    except OSError as error:
        raise MissingInputError(f"data.source: {place} can't be read ({why(error)})") from error
    if extension_of(os.fsencode(path.name)) not in SUFFIXES:
        raise MissingInputError(
            f"data.source: {place} is a file of another kind; needed is a .csv, .tsv, .jsonl or .txt of texts"
        )
    parent, own = os.path.split(os.fsencode(path.resolve()))
    return index_paths(parent, [own])


def _tables(index: Index) -> list[int]:
    """Which files are read: tables, and .txt files only where there is no table beside them."""
    every = range(len(index))
    tables = [i for i in every if extension_of(index.name(i)) != PLAIN]
    kept = tables or list(every)
    if not kept:
        found = ", ".join(f"{count:,} {name}" for name, count in list(index.found.items())[:8]) or "no file at all"
        raise MissingInputError(
            f"data.source: no table of texts in {escape_name(index.root)}: looked for "
            f"{' '.join(suffix.decode() for suffix in SUFFIXES)}; found {found}"
        )
    return kept


def _parts(names: Sequence[bytes]) -> tuple[list[int], str, tuple[str, ...]]:
    """TRAIN, TEST or UNUSED for each file by its first folder or its own name, the rule in words, notes."""
    tops = [(name.split(b"/")[0] if b"/" in name else name.rpartition(b".")[0]).lower() for name in names]
    train = next((name for name in TRAIN_NAMES if name in tops), None)
    test = next((name for name in TEST_NAMES if name in tops), None)
    if train is None:
        return [TRAIN] * len(names), "", ()
    part = {train: TRAIN} | ({test: TEST} if test else {})
    split = [part.get(top, UNUSED) for top in tops]
    unused = [escape_name(name) for name, p in zip(names, split) if p == UNUSED]
    kept = train.decode() + (f" and {test.decode()}" if test else "")
    notes = (f"tables outside {kept} are not used: {', '.join(unused[:5])}",) if unused else ()
    return split, kept if test else "", notes


class _Scenes:
    """The captions of the embedded scenes, from their parameters: nothing is rendered."""

    def __init__(self, config: TextDataConfig) -> None:
        train = min(config.limit or scenes.TRAIN, scenes.TRAIN)
        test = min(max(1, config.limit // 5), scenes.TEST) if config.limit else scenes.TEST
        drawn = [
            scenes.draw(seed, np.arange(count, dtype=np.int64))
            for seed, count in ((scenes.TRAIN_SEED, train), (scenes.TEST_SEED, test))
        ]
        self.texts = [text for params in drawn for text in captions(params)]
        self.labels = np.concatenate([params.label for params in drawn])
        self.split = np.repeat(np.array([TRAIN, TEST], np.uint8), [train, test])
        self.label, self.place = scenes.VERSION.encode(), scenes.VERSION
        version = scenes.VERSION.encode()
        self.stamp: tuple[bytes, ...] = (b"captions", version, b"%d %d" % (train, test), self.texts[0].encode())
        few = config.limit > scenes.TRAIN
        self.left_out: LeftOut | None = LeftOut(
            notes=(f"data.limit={config.limit:,}, but there are {scenes.TRAIN:,} scenes",) if few else ()
        )

    def count(self) -> int | None:
        return len(self.texts)

    def members(self, wanted: Iterable[int] | None = None, most: int = -1) -> Iterator[Member]:
        for i in range(len(self.texts)) if wanted is None else wanted:
            data = self.texts[int(i)].encode()
            yield Member(b"scene:%d" % i, len(data), partial(_some, data))

    def layout(self, kept: NDArray[np.int64]) -> Layout:
        rule = "rendered from two seeds"
        return Layout(self.split[kept], self.labels[kept], tuple(scenes.CLASSES), rule, ())

    def share_read(self) -> float:
        return 1.0

    def close(self) -> None:
        pass


def _some(data: bytes, limit: int) -> bytes:
    return data if limit < 0 else data[:limit]
