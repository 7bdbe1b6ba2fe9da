"""Tokens: which words of the training texts are known, and texts as their ids. By Hugging Face's `tokenizers`.

Ours are whole words, lower case (Unicode NFKC), found once in the training texts; punctuation is a word too. Words and
not byte pairs, since captions and titles have few of them, the views exchange and leave out words, the baseline counts
them, and a recipe can hold them so that one can read them. A word that is rare or new is the unknown token, which
training has seen: rare words are it there too, and `views.dropout` makes more. Any tokenizer.json takes their place.

Ids of ours: 0 fills up, 1 unknown, 2 start, 3 end, then words by how frequent they are. Another tokenizer's padding
token changes places with its id 0, so that 0 fills up whatever the tokenizer.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stopgrad.contracts import ConfigError, MissingInputError
from stopgrad.views.text_config import (
    END,
    LARGEST_TOKENIZER,
    PAD,
    SPECIAL,
    START,
    UNKNOWN,
    TextPreprocess,
    TextViewsConfig,
)

_PADS = (PAD, "<pad>", "<|padding|>", "<PAD>")  # by which names a tokenizer.json may know it
_UNKNOWNS = (UNKNOWN, "<unk>", "<|unk|>")
NEEDS = "text needs the package tokenizers: pip install 'stopgrad[text]'"


class Tokens:
    """A tokenizer that is ready to be used, for texts of `length` tokens. Any thread may use it."""

    def __init__(self, text: str, length: int) -> None:
        """text: a tokenizer.json. Raises ConfigError where it is none that can be used."""
        self.length = length
        self._tokenizer = _parsed(text)
        pad, unknown = self._special(_PADS), self._special(_UNKNOWNS)
        if pad is None:
            raise ConfigError(
                f"views.tokenizer: it has no padding token (looked for {', '.join(_PADS)}); add one, since batches are "
                "filled up with it"
            )
        self._pad = pad
        self.size = 1 + max(map(int, self._tokenizer.get_vocab(with_added_tokens=True).values()))
        self._tokenizer.enable_truncation(max_length=length)
        self._tokenizer.enable_padding(length=length, pad_id=self._pad, pad_token=_name(self._tokenizer, self._pad))
        # where a tokenizer knows every text, what `views.dropout` takes is filled up: no backbone looks there
        self.unknown: int = 0 if unknown is None else self._ours(unknown)
        self.start_and_end = self._around()

    def __call__(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """B texts -> ids [B, length]."""
        found = self._tokenizer.encode_batch(list(texts))
        ids = np.array([one.ids for one in found], dtype=np.int64).reshape(len(texts), self.length)
        return self._exchanged(ids)

    def text(self, ids: Iterable[int]) -> str:
        """What ids [L] say, to be looked at: words with blanks between them, unknown ones as they are called."""
        shown = [int(i) for i in ids if int(i) not in (0, *self.start_and_end)]
        theirs = self._exchanged(np.array(shown, np.int64)).tolist()
        if self.is_words:
            return " ".join(_name(self._tokenizer, i) for i in theirs)
        return str(self._tokenizer.decode(theirs, skip_special_tokens=True))

    @property
    def is_words(self) -> bool:
        """Whether it is one of ours."""
        return all(self._tokenizer.token_to_id(name) == i for i, name in enumerate(SPECIAL))

    def _special(self, names: Sequence[str]) -> int | None:
        return next((int(i) for name in names if (i := self._tokenizer.token_to_id(name)) is not None), None)

    def _ours(self, theirs: int) -> int:
        return int(self._exchanged(np.array([theirs], np.int64))[0])

    def _exchanged(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """The padding token and 0 change places: the other way round, too."""
        if self._pad == 0:
            return ids
        return np.where(ids == 0, self._pad, np.where(ids == self._pad, 0, ids))

    def _around(self) -> tuple[int, ...]:
        """Ids that stand around every text, by what an empty one is."""
        empty = self([""])[0]
        return tuple(int(i) for i in empty if i != 0)


def words_of(texts: Iterable[str], vocabulary: int, min_count: int) -> tuple[str, ...]:
    """The words of a tokenizer for these texts, the most frequent first; equally frequent ones by the alphabet.

    vocabulary: kinds of token at most, with SPECIAL.  min_count: rarer words are left out.
    """
    counts: Counter[str] = Counter()
    normal, splitter = _normaliser(), _splitter()
    for text in texts:
        counts.update(word for word, _ in splitter.pre_tokenize_str(normal.normalize_str(text)))
    kept = [(word, count) for word, count in counts.items() if count >= min_count and word not in SPECIAL]
    kept.sort(key=lambda pair: (-pair[1], pair[0]))
    return tuple(word for word, _ in kept[: vocabulary - len(SPECIAL)])


def tokenizer_of(words: Sequence[str]) -> str:
    """tokenizer.json of whole words: the same text for the same words."""
    tokenizers = _tokenizers()
    ids = {word: i for i, word in enumerate((*SPECIAL, *words))}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(ids, unk_token=UNKNOWN))
    made.normalizer = _normaliser()
    made.pre_tokenizer = _splitter()
    made.add_special_tokens(list(SPECIAL))
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single=f"{START} $A {END}", special_tokens=[(START, ids[START]), (END, ids[END])]
    )
    return str(made.to_str())


def tokenizer_text(config: TextViewsConfig) -> str:
    """The tokenizer.json that belongs to the settings. Raises ConfigError, MissingInputError."""
    if config.tokenizer:
        return _read(config.tokenizer, config.tokenizer_sha256)
    if not config.words:
        raise ConfigError(
            "views.words: none yet; they are found in the training texts when a run begins, or name a tokenizer: "
            "--set views.tokenizer=/folder/tokenizer.json"
        )
    return _of_words(config.words)


@lru_cache(maxsize=4)
def tokens_of(preprocess: TextPreprocess) -> Tokens:
    """The tokenizer of a preprocessing, made once. Raises ConfigError where its text is none."""
    return Tokens(preprocess.tokenizer, preprocess.length)


def checksum(path: Path) -> str:
    """Of a tokenizer.json or a table. Raises MissingInputError."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise MissingInputError(f"{path}: no such file ({error.strerror or error})") from error


def check_file(path: Path, setting: str, sha256: str) -> None:
    """Raises ConfigError where the file is not the one of the recipe, MissingInputError where it is gone."""
    found = checksum(path)
    if sha256 and found != sha256:
        raise ConfigError(
            f"views.{setting}: {path} is not the file this recipe was made with (checksum {found[:8]}, was "
            f"{sha256[:8]}); put it back, or start anew"
        )


@lru_cache(maxsize=4)
def _read(file: str, sha256: str) -> str:
    path = Path(file).expanduser()
    check_file(path, "tokenizer", sha256)
    if path.stat().st_size > LARGEST_TOKENIZER:
        raise ConfigError(f"views.tokenizer: {path} has {path.stat().st_size:,} bytes; that is no tokenizer.json")
    try:
        text = path.read_text(encoding="utf-8")
        json.loads(text)
    except (OSError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise ConfigError(
            f"views.tokenizer: {path} is no tokenizer.json ({error}); save one with tokenizers"
        ) from error
    return text


@lru_cache(maxsize=4)
def _of_words(words: tuple[str, ...]) -> str:
    return tokenizer_of(words)


def _normaliser() -> Any:
    normalizers = _tokenizers().normalizers
    return normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])


def _splitter() -> Any:
    return _tokenizers().pre_tokenizers.Whitespace()  # words, and runs of what is neither a word nor a blank


def _parsed(text: str) -> Any:
    try:
        return _tokenizers().Tokenizer.from_str(text)
    except ConfigError:
        raise
    except Exception as error:  # the library raises Exception itself, with the parser's words
        raise ConfigError(f"views.tokenizer: no tokenizer.json that tokenizers can read ({error})") from error


def _name(tokenizer: Any, i: int) -> str:
    return str(tokenizer.id_to_token(i) or UNKNOWN)


def _tokenizers() -> Any:
    # Its threads would stand beside ours, and a batch of captions takes two milliseconds.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        import tokenizers
    except ImportError as error:
        raise ConfigError(NEEDS) from error
    return tokenizers
