"""Views of texts: UTF-8 bytes [L], uint8, as they are stored, become token ids [B, length], int64.

What is done to a text depends on (seed, epoch, index of the text, view) alone, so a text has the same view in any
batch, thread or process. Word number i of a text has numbers of its own, whatever stands behind it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stopgrad import rng
from stopgrad.contracts import Batch, ConfigError, DataError, Views
from stopgrad.own_code import load_function, split_name, went_wrong
from stopgrad.views.synonyms import Table, read_table
from stopgrad.views.text_config import TextPreprocess, TextViewsConfig
from stopgrad.views.tokens import tokens_of

FUNCTION, SIGNATURE = "views", "(texts, generators)` that returns a list of texts"
AGAIN = "stopgrad train METHOD --set views.function=FILE.py:views --set views.function_sha256="
_WORD = re.compile(r"\w+(?:['’-]\w+)*|[^\w\s]+")
_SYNONYM, _WHICH, _DELETE, _SWAP, _WITH, _ORDER, _DROP, _EACH = range(8)  # columns of draws; _EACH: of a text
_DRAWS = 8
_OWN = 1 << 20  # added to a view's number for what is handed to the user's function


class TextViewMaker:
    """Views of one batch after another. Holds no state.

    seed: of the run.  threads: at least 1; more are of no use here, where a batch takes milliseconds.
    """

    def __init__(
        self, config: TextViewsConfig, preprocess: TextPreprocess, seed: int, device: torch.device, threads: int
    ) -> None:
        if threads < 1:
            raise ConfigError(f"views: threads must be at least 1, got {threads}; use 1")
        self.config, self.seed, self.device = config, seed, device
        self.tokens = tokens_of(preprocess)
        self.table = read_table(config.table, config.table_sha256) if config.synonyms else {}
        self.function: Callable[..., Any] | None = None
        if config.function:
            self.file, name = split_name(config.function, FUNCTION)
            self.function = load_function(self.file, name, config.function_sha256, "function", SIGNATURE, AGAIN)

    def __call__(self, batch: Batch) -> Views:
        """`views` tensors [B, length], int64, on the device. Raises DataError for samples that are no texts."""
        texts = texts_of(batch.samples)
        crops = [torch.from_numpy(self.ids(texts, batch, view)).to(self.device) for view in range(self.config.views)]
        index = torch.from_numpy(np.array(batch.index, dtype=np.int64))
        return Views(tuple(crops), index.to(self.device, non_blocking=True))

    def texts(self, texts: Sequence[str], batch: Batch, view: int) -> list[str]:
        """View number `view` of each text, before tokens are made of it."""
        given = self._by_function(texts, batch, view)
        words = [_WORD.findall(text) for text in given]
        drawn = self._drawn(batch, view, max(map(len, words), default=0))
        return [
            " ".join(changed(own, u, self.config, self.table)) if own else text
            for text, own, u in zip(given, words, drawn)
        ]

    def ids(self, texts: Sequence[str], batch: Batch, view: int) -> NDArray[np.int64]:
        """[B, length]"""
        ids = self.tokens(self.texts(texts, batch, view))
        if self.config.dropout:
            u = self._drawn(batch, view, ids.shape[1])[:, 1:, _DROP]  # [B, length]
            ordinary = ~np.isin(ids, (0, *self.tokens.start_and_end))
            ids = np.where(ordinary & (u < self.config.dropout), self.tokens.unknown, ids)
        return ids

    def close(self) -> None:
        """There is nothing to end."""

    def _drawn(self, batch: Batch, view: int, words: int) -> NDArray[np.float64]:
        """[B, 1 + words, _DRAWS] in [0, 1): the text's own, then each word's."""
        u = rng.uniform(rng.VIEWS, self.seed, batch.epoch, batch.index, _DRAWS * (1 + words), view)
        return u.reshape(len(batch.index), 1 + words, _DRAWS)

    def _by_function(self, texts: Sequence[str], batch: Batch, view: int) -> list[str]:
        if self.function is None:
            return list(texts)
        words = rng.bits(rng.VIEWS, self.seed, batch.epoch, batch.index, 4, view + _OWN)
        generators = [np.random.Generator(np.random.Philox(np.random.SeedSequence(row.tolist()))) for row in words]
        try:
            made = self.function(list(texts), generators)
        except Exception as error:
            raise went_wrong(error, self.file) from error
        if not isinstance(made, list) or len(made) != len(texts) or not all(isinstance(text, str) for text in made):
            found = f"{len(made)} of them" if isinstance(made, list) else type(made).__name__
            raise ConfigError(
                f"{self.file}: {self.config.function.rpartition(':')[2]} must return a list of {len(texts)} texts, one "
                f"for each it was given, got {found}"
            )
        return made


def changed(words: Sequence[str], u: NDArray[np.float64], config: TextViewsConfig, table: Table) -> list[str]:
    """A view of the words [W] of a text.  u: [1 + W or more, _DRAWS], the text's own first. One word stays at least."""
    each = u[1 : 1 + len(words)]
    out = list(words)
    if config.synonyms:
        out = [_synonym(word, own, config.synonyms, table) for word, own in zip(out, each)]
    places = list(range(len(out)))
    if config.deletion:
        places = [i for i in places if each[i, _DELETE] >= config.deletion] or [int(u[0, _EACH] * len(out))]
    if config.swap:
        for at, i in enumerate(list(places)):
            if each[i, _SWAP] < config.swap:
                other = int(each[i, _WITH] * len(places))
                places[at], places[other] = places[other], places[at]
    if config.shuffle and u[0, _ORDER] < config.shuffle:
        places.sort(key=lambda i: each[i, _ORDER])
    return [out[i] for i in places]


def _synonym(word: str, u: NDArray[np.float64], probability: float, table: Table) -> str:
    others = table.get(word.lower())
    if others is None or u[_SYNONYM] >= probability:
        return word
    return others[int(u[_WHICH] * len(others))]


def read_texts(samples: Sequence[NDArray[Any]], preprocess: TextPreprocess) -> Tensor:
    """B texts as they are stored -> ids [B, length], int64: what an encoder takes. Raises DataError for others."""
    return torch.from_numpy(tokens_of(preprocess)(texts_of(samples)))


def texts_of(samples: Sequence[NDArray[Any]]) -> list[str]:
    """B texts as they are stored, UTF-8 [L] uint8, as strings. Raises DataError that names the first that is none."""
    out = []
    for place, sample in enumerate(samples):
        array = np.asarray(sample)
        if array.ndim != 1 or not len(array) or array.dtype != np.uint8:
            raise DataError(
                f"views: sample {place} of the batch is {array.dtype} of shape {list(array.shape)}; texts must be "
                "uint8, [bytes of UTF-8]; open them with data.kind=text"
            )
        out.append(array.tobytes().decode("utf-8", "replace"))
    return out
