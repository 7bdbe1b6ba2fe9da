"""Files that hold texts, a row each: .csv, .tsv, .jsonl (or .ndjson), .txt with a text a line.

A CSV begins with the names of its columns; `;` parts its cells where the first line has no comma. Cells may hold line
breaks in quotes. Text is UTF-8, with or without a byte-order mark, or UTF-16 with one, or what `data.encoding` says. A
row that can't be read is kept as a reason, so that it can be named; a file that can't be is a DataError.
"""

from __future__ import annotations

import codecs
import contextlib
import csv
import io
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from stopgrad.contracts import DataError
from stopgrad.data.folder import escape_name

DELIMITED = {b".csv": ",", b".tsv": "\t", b".tab": "\t"}
LINES = (b".jsonl", b".ndjson")
PLAIN = b".txt"
LINE = "text"  # the column of a .txt
MOST_COLUMNS = 256


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a table: where it begins, and its cells by column, or why it has none."""

    line: int  # counted from 1
    cells: dict[str, str]
    reason: str = ""


def read_rows(data: bytes, extension: bytes, place: str, encoding: str = "") -> tuple[tuple[str, ...], list[Row]]:
    """(columns, rows) of a file.  place: what it is called, escaped, for messages. Raises DataError."""
    text = _decoded(data, place, encoding)
    if extension in DELIMITED:
        return _delimited(text, DELIMITED[extension], place)
    if extension in LINES:
        return _json_lines(text, place)
    return (LINE,), [Row(i, {LINE: line}) for i, line in _lines(text) if line.strip()]


def _decoded(data: bytes, place: str, encoding: str) -> str:
    if not encoding:
        wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        encoding = "utf-16" if wide else "utf-8-sig"
        if not wide and b"\0" in data[: 1 << 16]:
            raise DataError(
                f"data.source: {place} holds zero bytes, which text has none of; needed is UTF-8: save it so, or say "
                "what it is: --set data.encoding=utf-16-le"
            )
    try:
        # what is no UTF-8 stays in its row, which is bad; the others are read
        return data.decode(encoding, "surrogateescape" if encoding == "utf-8-sig" else "strict")
    except (UnicodeDecodeError, LookupError) as error:
        raise DataError(
            f"data.source: {place} can't be read as {encoding} ({error}); say what it is: --set data.encoding=latin-1"
        ) from error


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines with their numbers; only what ends lines in files does (a text may hold other separators)."""
    yield from enumerate(text.replace("\r\n", "\n").replace("\r", "\n").split("\n"), 1)


def _delimited(text: str, delimiter: str, place: str) -> tuple[tuple[str, ...], list[Row]]:
    first = text.partition("\n")[0]
    if delimiter == "," and "," not in first and ";" in first:
        delimiter = ";"
    rows: list[Row] = []
    with _large_fields():
        lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        begin = 1
        try:
            columns = _checked([cell.strip() for cell in next(lines, [])], place)
            begin = lines.line_num + 1
            for cells in lines:
                if cells:
                    rows.append(_row(begin, cells, columns))
                begin = lines.line_num + 1
        except csv.Error as error:
            raise DataError(
                f"data.source: {place}: the row that begins on line {begin} does not end ({error}); a quote in a cell "
                'is written twice, and the cell in quotes: "5"" tall"'
            ) from error
    return columns, rows


def _checked(columns: list[str], place: str) -> tuple[str, ...]:
    """The names of the columns. Raises DataError where two are the same, or there is none."""
    if not any(columns):
        raise DataError(f"data.source: {place} has no first line with the names of its columns")
    if len(columns) > MOST_COLUMNS:
        raise DataError(f"data.source: {place} has {len(columns):,} columns; at most {MOST_COLUMNS} are read")
    for name in columns:
        if columns.count(name) > 1:
            raise DataError(f"data.source: {place} has the column {shown(name)!r} twice; name each once")
    return tuple(columns)


def _row(line: int, cells: list[str], columns: tuple[str, ...]) -> Row:
    if len(cells) != len(columns):
        have = f"{len(cells)} cell{'s' * (len(cells) != 1)}"
        return Row(line, {}, f"{have}, the first line has {len(columns)}: quote what has the separator in it")
    return Row(line, dict(zip(columns, cells)))


def _json_lines(text: str, place: str) -> tuple[tuple[str, ...], list[Row]]:
    rows: list[Row] = []
    columns: dict[str, None] = {}
    for number, line in _lines(text):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as error:
            rows.append(Row(number, {}, f"no JSON ({str(error).partition(':')[0]})"))
            continue
        if not isinstance(values, dict):
            rows.append(Row(number, {}, "no JSON object"))
            continue
        cells = {str(name): _plain(value) for name, value in values.items()}
        columns.update(dict.fromkeys(cells))
        if len(columns) > MOST_COLUMNS:
            raise DataError(f"data.source: {place} has more than {MOST_COLUMNS} names of values; that is no table")
        rows.append(Row(number, cells))
    return tuple(columns), rows


def _plain(value: object) -> str:
    """A JSON value as a cell; of lists and objects, and where there is none, an empty one."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, str | int | float) else ""


@contextlib.contextmanager
def _large_fields() -> Iterator[None]:
    """Cells of any length while the `with` lasts; how long a text may be is not for the parser to say."""
    before = csv.field_size_limit(sys.maxsize)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def shown(text: str) -> str:
    """A name or value of a table, as it is safe to print."""
    return escape_name(text.encode("utf-8", "surrogateescape"))
