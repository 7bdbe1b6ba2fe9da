"""Settings of the views of texts, and the transform without chance that belongs to them. No torch here.

Defaults: a view of a caption leaves out a tenth of its words, exchanges a tenth and puts synonyms for a fifth, near
EDA's strength of 0.1 (Wei and Zou, arXiv:1901.11196, table 3), and a tenth of its tokens is unknown. Nobody has
measured them here.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from stopgrad.contracts import ConfigError, did_you_mean
from stopgrad.own_code import names_code

SHORTEST, LONGEST = 3, 4096  # tokens of a view: one between the start and the end
MOST_VIEWS = 64
FEWEST_TOKENS, MOST_TOKENS = 8, 65_536  # kinds of token; a vocabulary stands in the recipe
LARGEST_TOKENIZER = 50_000_000  # characters of a tokenizer.json
PAD, UNKNOWN, START, END = "[PAD]", "[UNK]", "[START]", "[END]"
SPECIAL = (PAD, UNKNOWN, START, END)  # ids 0 to 3 of our own tokenizers
_PROBABILITIES = ("synonyms", "deletion", "swap", "shuffle", "dropout")


@dataclass(frozen=True, kw_only=True, slots=True)
class TextViewsConfig:
    """What one text is turned into. Probabilities are 0 to 1; what is done comes in the order of the fields."""

    kind: Literal["text"] = "text"  # of samples that are read; media.KINDS has them all
    length: int = 32  # tokens of a view, start and end among them; of a longer text, the first
    views: int = 2  # of a text
    # FILE.py:function of yours, (texts, generators) -> texts, called first: back-translation, say. It gets a numpy
    # Generator for each text and must be deterministic given these: else neither a resumed run nor the same text in
    # another batch has the same views.
    function: str = ""
    function_sha256: str = ""  # of the file; found when the run begins
    synonyms: float = 0.2  # of each word: one of the words that stand beside it in the table
    table: str = ""  # CSV (word, synonym, ...) or JSON ({word: [synonym, ...]}); "": a small embedded one
    table_sha256: str = ""
    deletion: float = 0.1  # of each word: left out; one always stays
    swap: float = 0.1  # of each word: exchanged with another of the text
    shuffle: float = 0.0  # of the text: its words in random order
    dropout: float = 0.1  # of each token: becomes the unknown one
    vocabulary: int = 8192  # kinds of token at most, the four that are no words among them
    min_count: int = 2  # a word of the training texts that is rarer is unknown
    words: tuple[str, ...] = ()  # of the tokenizer, most frequent first; (): found in the training texts
    tokenizer: str = ""  # a tokenizer.json instead of words
    tokenizer_sha256: str = ""

    def __post_init__(self) -> None:
        if self.kind != "text":
            raise ConfigError(f"views.kind: must be text here, got {self.kind!r}")
        for name, low, high, usual in (
            ("length", SHORTEST, LONGEST, "32 are enough for captions"),
            ("views", 1, MOST_VIEWS, "2 are for methods that compare views"),
            ("vocabulary", FEWEST_TOKENS, MOST_TOKENS, "the default is 8192"),
            ("min_count", 1, 1_000_000, "the default is 2"),
        ):
            if not low <= getattr(self, name) <= high:
                raise ConfigError(f"views.{name} must be {low} to {high:,}, got {getattr(self, name):,}; {usual}")
        for name in _PROBABILITIES:
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(
                    f"views.{name} must be a probability, 0 to 1, got {getattr(self, name)}; "
                    f"write for example --set views.{name}=0.1"
                )
        if self.function and not names_code(self.function):
            raise ConfigError(f"views.function must be FILE.py:FUNCTION, got {self.function!r}")
        if self.table and Path(self.table).suffix.lower() not in (".csv", ".json"):
            raise ConfigError(f"views.table must be a .csv or .json of synonyms, got {self.table!r}")
        if self.words and self.tokenizer:
            raise ConfigError("views.words and views.tokenizer both say what a token is; leave one of them out")
        if len(self.words) > MOST_TOKENS or len(set(self.words)) < len(self.words):
            raise ConfigError(f"views.words must be at most {MOST_TOKENS:,} different words, got {len(self.words):,}")

    @property
    def sides(self) -> tuple[int, ...]:
        """Tokens of every view."""
        return (self.length,) * self.views

    def watched(self) -> TextViewsConfig:
        """What a run is watched with: two views of each text."""
        return dataclasses.replace(self, views=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class TextPreprocess:
    """What turns a text into the backbone's input when nothing is random, kept with the weights.

    The ids of the tokenizer, start and end among them, the first `length`; 0 fills up to the right.
    """

    kind: ClassVar[str] = "text"
    depth: ClassVar[int] = 8  # bits of a stored value: texts are bytes, UTF-8

    length: int  # tokens
    tokenizer: str  # a whole tokenizer.json

    def as_settings(self) -> tuple[str, ...]:
        """What a recipe must say to read texts this way, as a.b=c; a tokenizer not of ours it has to name."""
        words = words_in(self.tokenizer)
        return (f"views.length={self.length}", *([f"views.words={json.dumps(words)}"] if words else []))

    def as_dict(self) -> dict[str, Any]:
        """Plain values, with the kind."""
        return {"kind": self.kind, **dataclasses.asdict(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TextPreprocess:
        """What `as_dict` wrote, with the kind or without. Raises ConfigError for anything else: it may be a stranger's.

        Whether the tokenizer is one, who uses it finds out (`views.tokens`).
        """
        given = dict(values)
        if given.pop("kind", cls.kind) != cls.kind:
            raise ConfigError(f"preprocess: kind must be {cls.kind}, got {values['kind']!r:.60}")
        names = [one.name for one in dataclasses.fields(cls)]
        for name in given:
            if name not in names:
                raise ConfigError(f"preprocess: {str(name)[:40]!r} is unknown{did_you_mean(str(name), names)}")
        length, tokenizer = given.get("length"), given.get("tokenizer")
        if type(length) is not int or not SHORTEST <= length <= LONGEST:
            raise ConfigError(f"preprocess: length must be {SHORTEST} to {LONGEST} tokens, got {length!r:.60}")
        if not isinstance(tokenizer, str) or len(tokenizer) > LARGEST_TOKENIZER or not _is_object(tokenizer):
            raise ConfigError(f"preprocess: tokenizer must be the text of a tokenizer.json, got {tokenizer!r:.60}")
        return cls(length=length, tokenizer=tokenizer)


def words_in(tokenizer: str) -> list[str] | None:
    """The words of one of our own tokenizers, in order; None of any other."""
    model = json.loads(tokenizer).get("model")
    if not isinstance(model, dict) or model.get("type") != "WordLevel" or not isinstance(model.get("vocab"), dict):
        return None
    vocabulary = model["vocab"]
    if any(vocabulary.get(name) != i for i, name in enumerate(SPECIAL)):
        return None
    ordered = sorted(vocabulary, key=lambda word: vocabulary[word])
    return [word for word in ordered if word not in SPECIAL]


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False
