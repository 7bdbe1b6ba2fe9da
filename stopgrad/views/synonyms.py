"""Synonyms: a table of the user's, or a small embedded one of words that captions and titles of products are made of.

A table is a CSV (a word, then its synonyms, a line each, without a header) or a JSON object (word -> list of synonyms).
Words are compared in lower case; a synonym may have several words. It is directed: `photo, picture` puts a picture for
a photo and not the other way round; the embedded one is directed both ways.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from stopgrad.contracts import ConfigError, MissingInputError
from stopgrad.views.tokens import check_file

Table = Mapping[str, tuple[str, ...]]

LARGEST = 50_000_000  # bytes of a table
MOST = 64  # synonyms of a word

# Groups in which each word may stand for each other. Colours are left alone: a red shoe is no scarlet one to a shop.
EMBEDDED = (
    ("small", "little", "tiny", "compact"),
    ("large", "big", "huge"),
    ("medium-sized", "mid-sized", "average-sized"),
    ("striped", "stripy"),
    ("checked", "checkered", "chequered", "plaid"),
    ("spotted", "dotted", "speckled"),
    ("plain", "solid", "unpatterned"),
    ("left", "left-hand side"),
    ("right", "right-hand side"),
    ("middle", "centre", "center"),
    ("top", "upper part"),
    ("bottom", "lower part"),
    ("before", "in front of"),
    ("lit", "illuminated", "lighted"),
    ("ball", "sphere", "globe"),
    ("cube", "block"),
    ("grey", "gray"),
    ("nothing", "no objects"),
    ("thing", "object", "item"),
    ("things", "objects", "items"),
    ("men", "man", "mens", "male", "gents"),
    ("women", "woman", "womens", "female", "ladies"),
    ("kids", "children", "childrens", "kid"),
    ("boys", "boy"),
    ("girls", "girl"),
    ("shoes", "footwear", "shoe"),
    ("sneakers", "trainers"),
    ("trousers", "pants"),
    ("t-shirt", "tshirt", "tee"),
    ("sweater", "jumper", "pullover"),
    ("handbag", "purse"),
    ("wallet", "billfold"),
    ("watch", "wristwatch"),
    ("sunglasses", "shades"),
    ("perfume", "fragrance"),
    ("casual", "everyday"),
    ("formal", "dress"),
    ("printed", "print"),
    ("photo", "picture", "photograph", "image"),
    ("person", "human", "individual"),
    ("people", "persons", "folks"),
    ("man", "guy", "gentleman"),
    ("woman", "lady"),
    ("child", "kid"),
    ("dog", "hound"),
    ("car", "automobile"),
    ("bicycle", "bike"),
    ("road", "street"),
    ("sofa", "couch"),
    ("beautiful", "pretty", "lovely"),
    ("happy", "glad", "cheerful"),
    ("quick", "fast", "rapid"),
    ("near", "next to", "beside"),
)


@lru_cache(maxsize=1)
def embedded() -> Table:
    """{word: its synonyms}, both ways."""
    found: dict[str, dict[str, None]] = {}
    for group in EMBEDDED:
        for word in group:
            found.setdefault(word, {}).update(dict.fromkeys(other for other in group if other != word))
    return {word: tuple(others) for word, others in found.items()}


@lru_cache(maxsize=4)
def read_table(file: str, sha256: str) -> Table:
    """The table of a file; "" is the embedded one. Raises ConfigError, MissingInputError."""
    if not file:
        return embedded()
    path = Path(file).expanduser()
    check_file(path, "table", sha256)
    try:
        if path.stat().st_size > LARGEST:
            raise ConfigError(f"views.table: {path} has {path.stat().st_size:,} bytes; that is no table of synonyms")
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise MissingInputError(f"views.table: {path} can't be read ({error.strerror or error})") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"views.table: {path} is not UTF-8 ({error.reason}); save it as UTF-8") from error
    found = _json(text, path) if path.suffix.lower() == ".json" else _csv(text, path)
    if not found:
        raise ConfigError(f"views.table: {path} has no synonym; needed is a line `word, synonym, ...` or more")
    return found


def _csv(text: str, path: Path) -> Table:
    found: dict[str, tuple[str, ...]] = {}
    lines = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True)
    try:
        for row in lines:
            cells = [cell.strip() for cell in row if cell.strip()]
            if cells:
                _add(found, cells[0], cells[1:], f"{path}, line {lines.line_num}")
    except csv.Error as error:
        raise ConfigError(f"views.table: {path}, line {lines.line_num}: {error}; needed is plain CSV") from error
    return found


def _json(text: str, path: Path) -> Table:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"views.table: {path} is no JSON ({error})") from error
    if not isinstance(values, dict):
        raise ConfigError(f"views.table: {path} must be an object, word -> list of synonyms")
    found: dict[str, tuple[str, ...]] = {}
    for word, others in values.items():
        if not isinstance(others, list) or not all(isinstance(other, str) for other in others):
            raise ConfigError(f"views.table: {path}: {word!r:.60} needs a list of words, got {others!r:.60}")
        _add(found, word, others, str(path))
    return found


def _add(found: dict[str, tuple[str, ...]], word: str, others: list[str], where: str) -> None:
    key = word.strip().lower()
    kept = tuple(other.strip() for other in others if other.strip() and other.strip().lower() != key)
    if not key or not kept:
        raise ConfigError(f"views.table: {where}: {word!r:.60} has no synonym; write `word, synonym, ...`")
    if len(kept) > MOST:
        raise ConfigError(f"views.table: {where}: {word!r:.60} has {len(kept)} synonyms; {MOST} are the most")
    if key in found:
        raise ConfigError(f"views.table: {where}: {word!r:.60} has a line already; put its synonyms into one")
    found[key] = kept
