"""Texts: UTF-8 bytes [L] of any length; token ids [B, L], int64, 0 fills up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stopgrad.contracts import ConfigError, Images, Maker
from stopgrad.data import scenes
from stopgrad.data.decode import BadImageError
from stopgrad.data.folder import expanded
from stopgrad.data.scenes.caption import captions
from stopgrad.data.sources import Data, Progress
from stopgrad.data.texts import TextDataConfig, open_texts
from stopgrad.media.bag_of_words import MOST, bag_of_words, inverse_frequency
from stopgrad.media.medium import Raw, Say
from stopgrad.media.sizes import Lines, numbers, shapes, three
from stopgrad.media.text_picture import text_picture
from stopgrad.own_code import digest, split_name
from stopgrad.views.synonyms import read_table
from stopgrad.views.text import FUNCTION, TextViewMaker, read_texts, texts_of
from stopgrad.views.text_config import TextPreprocess, TextViewsConfig
from stopgrad.views.tokens import checksum, tokenizer_text, tokens_of, words_of

CHUNK = 1024  # texts that are read at once


class Texts:
    """See `medium.Medium`."""

    one, many, such_as = "a text", "texts", '"a sentence"'

    def open(self, data: TextDataConfig, views: TextViewsConfig, progress: Progress | None = None) -> Data:
        return open_texts(data, progress=progress)

    def sizes(self, opened: Data, data: TextDataConfig, views: TextViewsConfig) -> tuple[Lines, dict[str, Any]]:
        characters = shapes(opened)[:, 0]  # [N], bytes
        words = np.array([len(text.split()) for part in _splits(opened) for text in strings(part)])
        preprocess = self.preprocess(data, self.settled(data, views, opened, lambda line: None))
        tokens = tokens_of(preprocess)
        known = np.zeros(3, np.int64)  # tokens of the training texts, those unknown, texts that are cut
        for part in _chunks(opened.train):
            ids = tokens(part)
            inside = ~np.isin(ids, (0, *tokens.start_and_end))
            known += (inside.sum(), (ids[inside] == tokens.unknown).sum(), (ids[:, -1] != 0).sum())
        unknown = 100 * known[1] / max(1, known[0])
        lines = [
            ("length", f"{three(words)} words (least, median, most), {three(characters)} bytes"),
            ("vocabulary", f"{tokens.size:,} kinds of token; {unknown:.1f} % of the training tokens are unknown"),
            (
                "views",
                f"{views.length} tokens; {known[2]:,} of {len(opened.train):,} training texts fill them",
            ),
        ]
        facts = {"words_each": numbers(words), "vocabulary": tokens.size, "unknown_percent": round(float(unknown), 2)}
        return lines, facts

    def settled(self, data: TextDataConfig, views: TextViewsConfig, opened: Data, say: Say) -> TextViewsConfig:
        found: dict[str, Any] = {}
        if views.function and not views.function_sha256:
            file, name = split_name(views.function, FUNCTION)
            found |= {"function": f"{file}:{name}", "function_sha256": digest(file, "function", FUNCTION)}
        for setting in ("table", "tokenizer"):
            place = getattr(views, setting)
            if place and not getattr(views, f"{setting}_sha256"):
                path = expanded(place).absolute()
                found |= {setting: str(path), f"{setting}_sha256": checksum(path)}
        if not views.words and not views.tokenizer:
            texts = (text for chunk in _chunks(opened.train) for text in chunk)
            words = words_of(texts, views.vocabulary, views.min_count)
            if not words:
                raise ConfigError(
                    f"views.min_count={views.min_count}: no word of the training texts is there so often; type --set "
                    "views.min_count=1"
                )
            say(
                f"views.words: {len(words):,} words found in {len(opened.train):,} training texts (those that are "
                f"there {views.min_count} times or more)"
            )
            found["words"] = words
        settled = replace(views, **found) if found else views
        if settled.synonyms:
            read_table(settled.table, settled.table_sha256)  # what is wrong with it is told before the first step
        return settled

    def preprocess(self, data: TextDataConfig, views: TextViewsConfig) -> TextPreprocess:
        return TextPreprocess(length=views.length, tokenizer=tokenizer_text(views))

    def maker(
        self, views: TextViewsConfig, preprocess: TextPreprocess, seed: int, device: torch.device, threads: int
    ) -> Maker:
        return TextViewMaker(views, preprocess, seed, device, threads)

    def clean(self, samples: Sequence[NDArray[Any]], preprocess: TextPreprocess, threads: int = 1) -> Tensor:
        return read_texts(samples, preprocess)

    def decode(self, file: bytes, extension: bytes, data: TextDataConfig, preprocess: TextPreprocess) -> NDArray[Any]:
        try:
            text = file.decode("utf-8").strip()
        except UnicodeDecodeError as error:
            raise BadImageError("not UTF-8") from error
        if not text:
            raise BadImageError("no text in it")
        return np.frombuffer(text.encode(), np.uint8)

    def stand_ins(self, count: int, preprocess: TextPreprocess) -> tuple[Sequence[NDArray[Any]], str]:
        said = captions(scenes.draw(scenes.TEST_SEED, np.arange(count, dtype=np.int64)))
        return [np.frombuffer(text.encode(), np.uint8) for text in said], "the captions of the embedded scenes"

    def raw(self, preprocess: TextPreprocess) -> Raw:
        tokens = tokens_of(preprocess)
        hidden = (0, tokens.unknown, *tokens.start_and_end)
        shared = f", {MOST:,} of {tokens.size:,} kinds apart" if tokens.size > MOST else ""
        return Raw(
            name="words",
            told="bag of words",
            protocol=f"bag of words, counts of tokens{shared}, for kNN as tf-idf by the training texts",
            encode=partial(bag_of_words, size=tokens.size, hidden=hidden),
            scale=inverse_frequency,
        )

    def pictures(self, clean: Tensor, preprocess: TextPreprocess, side: int) -> Tensor:
        tokens = tokens_of(preprocess)
        drawn = [text_picture(tokens.text(row), side) for row in clean.cpu().tolist()]
        return torch.from_numpy(np.stack(drawn)).float().div_(255).unsqueeze(1)  # [B, 1, side, side]

    def input(self, preprocess: TextPreprocess) -> tuple[int, int]:
        return tokens_of(preprocess).size, preprocess.length

    def wanted(self, data: TextDataConfig, preprocess: TextPreprocess) -> TextDataConfig:
        return data

    def refitted(self, views: TextViewsConfig, preprocess: TextPreprocess) -> TextViewsConfig:
        """The tokenizer is the preprocessing's in any case: `maker` takes it from there."""
        return replace(views, length=preprocess.length, words=(), tokenizer="", tokenizer_sha256="")

    def check_fit(self, views: TextViewsConfig, preprocess: TextPreprocess) -> None:
        if views.length != preprocess.length:
            raise ConfigError(
                f"evaluation: views.length is {views.length}, the encoder was trained with {preprocess.length}; set "
                "views.length to that"
            )
        if (views.words or views.tokenizer) and tokenizer_text(views) != preprocess.tokenizer:
            raise ConfigError(
                "evaluation: views.words or views.tokenizer make other tokens than the encoder was trained with; leave "
                "them out: the encoder has its own"
            )

    def heard(self, sample: NDArray[Any], preprocess: TextPreprocess) -> None:
        return None

    def in_words(self, preprocess: TextPreprocess) -> str:
        return f"the first {preprocess.length} tokens of {tokens_of(preprocess).size:,} kinds"

    def said(self, sample: NDArray[Any]) -> str:
        return texts_of([sample])[0]


MEDIUM = Texts()


def strings(split: Images) -> list[str]:
    return [text for chunk in _chunks(split) for text in chunk]


def _chunks(split: Images) -> list[list[str]]:
    starts = range(0, len(split), CHUNK)
    return [texts_of(split.take(np.arange(start, min(start + CHUNK, len(split))))) for start in starts]


def _splits(data: Data) -> list[Images]:
    return [data.train] if data.test is data.train else [data.train, data.test]
