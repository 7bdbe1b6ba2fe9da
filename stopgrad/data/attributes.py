"""What is known of samples beside their class: from their names, by a pattern, or from a table.

A pattern is a regular expression that is searched in the path of each file below the source, as in
`train/7/7_jackson_32.wav`; each of its named groups becomes an attribute. A table is a CSV file with a column `file`, a
path below the source or the file's own name, and a column an attribute. Every sample must have every attribute: a probe
of half of them would say little, and nobody would see it.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from stopgrad.contracts import ConfigError, DataError, Images, MissingInputError
from stopgrad.data.folder import escape_name, expanded, unescape_name, why
from stopgrad.data.sources import Attribute

FILE = "file"  # the column of names

Values = dict[str, list[str]]  # attribute -> its value for each sample


def check_pattern(pattern: str) -> re.Pattern[str]:
    """The compiled pattern. Raises ConfigError where it is none, or names nothing."""
    try:
        found = re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise ConfigError(
            f"data.pattern: {pattern!r} is no regular expression ({error}); "
            r"write for example '(?P<digit>\d)_(?P<speaker>\w+)_'"
        ) from error
    if not found.groupindex:
        raise ConfigError(
            f"data.pattern: {pattern!r} has no group with a name; what becomes an attribute is written "
            r"(?P<NAME>...), as in '(?P<digit>\d)_(?P<speaker>\w+)_'"
        )
    return found


def read_attributes(
    train: Images, test: Images, pattern: str = "", table: str = ""
) -> tuple[dict[str, Attribute], tuple[str, ...]]:
    """The attributes of two splits, by name, and notes for the user.

    pattern, table: see above; "" for none. Raises ConfigError, MissingInputError (no such table), DataError (a sample
    without an attribute, a table that is none).
    """
    names = [_text(part.name(i)) for part in (train, test) for i in range(len(part))]
    values: Values = _by_pattern(check_pattern(pattern), names) if pattern else {}
    notes: list[str] = []
    if table:
        more = _by_table(table, names, notes)
        if both := sorted(values.keys() & more.keys()):
            raise ConfigError(
                f"data.pattern and data.table both say {', '.join(both)}; rename the group or the column of one"
            )
        values |= more
    found = {}
    for name, said in values.items():
        attribute = _numbered(said, len(train))
        if len(attribute.classes) < 2:
            notes.append(f"{name} is left out: all samples have the same, {attribute.classes[0]}")
            continue
        found[name] = attribute
        unseen = [attribute.classes[i] for i in np.setdiff1d(attribute.test, attribute.train)]
        if unseen:
            notes.append(
                f"{name}: {len(unseen):,} of {len(attribute.classes):,} are only in the test part (first: {unseen[0]}),"
                " which no probe can learn"
            )
    return found, tuple(notes)


def _text(escaped: str) -> str:
    return unescape_name(escaped).decode("utf-8", "surrogateescape")


def _shown(text: str) -> str:
    return escape_name(text.encode("utf-8", "surrogateescape"))


def _numbered(values: Sequence[str], train: int) -> Attribute:
    """values: of the training split, then of the test."""
    classes = sorted(set(values))
    number = {value: i for i, value in enumerate(classes)}
    labels = np.array([number[value] for value in values], np.int64)
    return Attribute(tuple(_shown(value) for value in classes), labels[:train], labels[train:])


def _by_pattern(pattern: re.Pattern[str], names: Sequence[str]) -> Values:
    values: Values = {group: [] for group in pattern.groupindex}
    missed = []
    for name in names:
        match = pattern.search(name)
        groups = match.groupdict() if match else {}
        if not groups or None in groups.values():
            missed.append(name)
            continue
        for group, value in groups.items():
            values[group].append(value)
    if missed:
        raise DataError(
            f"data.pattern: {pattern.pattern!r} does not fit {len(missed):,} of {len(names):,} files (first: "
            f"{_shown(missed[0])}); it is searched in the path below the source: mend it, or leave those files out"
        )
    return values


def _by_table(table: str, names: Sequence[str], notes: list[str]) -> Values:
    columns, rows = _read_table(table)
    alone = Counter(name.rpartition("/")[2] for name in names)
    values: Values = {column: [] for column in columns}
    used, missed = set(), []
    for name in names:
        base = name.rpartition("/")[2]
        key = name if name in rows or alone[base] > 1 else base
        if key not in rows:
            missed.append(name)
            continue
        used.add(key)
        for column, value in zip(columns, rows[key]):
            values[column].append(value)
    if missed:
        base = missed[0].rpartition("/")[2]
        again = f"; {alone[base]} files are called {_shown(base)}, so their paths are needed" if base in rows else ""
        raise DataError(
            f"data.table: {_shown(table)} has no row for {len(missed):,} of {len(names):,} files (first: "
            f"{_shown(missed[0])}){again}; needed in the column {FILE!r}: the path below the source, or the name of "
            "the file"
        )
    if unused := [name for name in rows if name not in used]:
        notes.append(
            f"{_shown(table)}: {len(unused):,} of {len(rows):,} rows name no file that is used (first: "
            f"{_shown(unused[0])})"
        )
    return values


def _read_table(table: str) -> tuple[list[str], dict[str, list[str]]]:
    """Names of the attributes, and their values for each file."""
    place = _shown(table)
    try:
        data = expanded(table).read_bytes()
    except (OSError, ValueError) as error:
        reason = why(error) if isinstance(error, OSError) else str(error)
        raise MissingInputError(
            f"data.table: {place} can't be read ({reason}); needed is a CSV file: {FILE},NAME"
        ) from error
    lines = csv.reader(io.StringIO(data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape"), newline=""))
    try:
        head = next(lines, [])
        at = _checked_head(head, place)
        rows: dict[str, list[str]] = {}
        for row in lines:
            if not row:
                continue
            where = f"data.table: {place}, line {lines.line_num}"
            if len(row) != len(head):
                raise DataError(f"{where}: {len(row)} fields, the first line has {len(head)}; quote what has commas")
            if "" in row:
                raise DataError(f"{where}: no {_shown(head[row.index('')])}; every file needs every attribute")
            if row[at] in rows:
                raise DataError(f"{where}: {_shown(row[at])} has a row already; leave one of them out")
            rows[row[at]] = row[:at] + row[at + 1 :]
    except csv.Error as error:
        raise DataError(f"data.table: {place}, line {lines.line_num}: {error}; needed is plain CSV") from error
    return head[:at] + head[at + 1 :], rows


def _checked_head(head: list[str], place: str) -> int:
    """Which column has the files. Raises DataError where there is none, or another is no name."""
    shown = ", ".join(_shown(name) for name in head[:8]) or "nothing"
    if head.count(FILE) != 1 or len(head) < 2:
        raise DataError(
            f"data.table: {place} begins with {shown}; needed are a column {FILE!r} and one for each attribute"
        )
    for name in head:
        if not name.isidentifier() or head.count(name) > 1:
            raise DataError(
                f"data.table: {place} has a column {_shown(name)!r}; a name is letters, digits and _, and there once"
            )
    return head.index(FILE)
