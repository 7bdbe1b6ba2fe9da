"""Texts as a kind of samples: bag of words and tf-idf, pictures, what an encoder takes, what the preflight says."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from stopgrad.contracts import ConfigError
from stopgrad.data.texts import TextDataConfig
from stopgrad.media import KINDS, medium_of, preprocess_from_dict
from stopgrad.media.bag_of_words import bag_of_words, inverse_frequency
from stopgrad.media.text_picture import text_picture, wrapped
from stopgrad.views.text_config import TextPreprocess, TextViewsConfig
from stopgrad.views.tokens import tokenizer_of

WORDS = ("red", "ball", "cube", "a")
MEDIUM = medium_of(TextViewsConfig())


def stored(text: str) -> np.ndarray:
    return np.frombuffer(text.encode(), np.uint8)


def preprocess(length: int = 8) -> TextPreprocess:
    return TextPreprocess(length=length, tokenizer=tokenizer_of(WORDS))


def test_the_kind_is_found_by_its_views_and_its_preprocessing() -> None:
    assert KINDS["text"].views is TextViewsConfig
    assert medium_of(preprocess()) is MEDIUM
    assert preprocess_from_dict(json.loads(json.dumps(preprocess().as_dict()))) == preprocess()
    assert MEDIUM.input(preprocess()) == (8, 8)


def test_a_bag_of_words_counts_words_alone() -> None:
    raw = MEDIUM.raw(preprocess())
    ids = MEDIUM.clean([stored("red red ball zebra"), stored("ball a red red")], preprocess())
    found = raw.encode(ids)
    assert found.tolist() == [[0, 0, 0, 0, 2, 1, 0, 0], [0, 0, 0, 0, 2, 1, 0, 1]]
    wide = bag_of_words(torch.tensor([[5, 5 + 4096]]), 10_000, ())
    assert wide.shape == (1, 4096)
    assert wide[0, 5] == 2  # so far apart, two tokens share a number


def test_tf_idf_is_scikit_learns() -> None:
    from sklearn.feature_extraction.text import TfidfTransformer

    counts = torch.tensor([[1.0, 0, 2], [1, 1, 0], [3, 0, 0], [1, 0, 0]])
    shift, scale = inverse_frequency(counts)
    mine = torch.nn.functional.normalize((counts - shift) * scale, dim=1)
    theirs = TfidfTransformer().fit_transform(counts.numpy()).toarray()
    assert np.allclose(mine.numpy(), theirs, atol=1e-6)
    assert MEDIUM.raw(preprocess()).scale is inverse_frequency


def test_pictures_of_texts_differ_where_the_texts_do() -> None:
    ids = MEDIUM.clean([stored("red ball"), stored("a cube"), stored("red ball")], preprocess())
    pictures = MEDIUM.pictures(ids, preprocess(), 64)
    assert pictures.shape == (3, 1, 64, 64)
    assert torch.equal(pictures[0], pictures[2])
    assert not torch.equal(pictures[0], pictures[1])
    assert 0 <= float(pictures.min()) < 0.5 < float(pictures.max()) <= 1
    assert text_picture("", 32).min() == 255
    assert text_picture("\u4f60\u597d " * 500, 48).shape == (48, 48)


def test_lines_are_broken_between_words_and_inside_long_ones() -> None:
    class Letters:
        def getlength(self, text: str) -> int:
            return len(text)

    assert wrapped("a bb ccc dddd", Letters(), 4, 9) == ["a bb", "ccc", "dddd"]
    assert wrapped("abcdefghij k", Letters(), 4, 9) == ["abcd", "efgh", "ij k"]
    assert wrapped("a bb ccc dddd eeee", Letters(), 4, 2) == ["a bb", "ccc"]


def test_views_that_do_not_fit_an_encoder() -> None:
    MEDIUM.check_fit(TextViewsConfig(length=8, words=WORDS), preprocess())
    MEDIUM.check_fit(TextViewsConfig(length=8), preprocess())
    with pytest.raises(ConfigError, match=r"views\.length is 9, the encoder was trained with 8"):
        MEDIUM.check_fit(TextViewsConfig(length=9, words=WORDS), preprocess())
    with pytest.raises(ConfigError, match="make other tokens"):
        MEDIUM.check_fit(TextViewsConfig(length=8, words=WORDS[:2]), preprocess())
    refitted = MEDIUM.refitted(TextViewsConfig(length=20, words=WORDS[:2], deletion=0.4), preprocess())
    MEDIUM.check_fit(refitted, preprocess())
    assert refitted.deletion == 0.4


def test_stand_ins_are_captions() -> None:
    samples, told = MEDIUM.stand_ins(3, preprocess())
    assert "captions" in told
    assert [MEDIUM.said(sample)[:2] for sample in samples] == ["a "] * 3


def test_the_preflight_says_how_long_texts_are_and_what_is_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STOPGRAD_CACHE", str(tmp_path / "cache"))
    (tmp_path / "t.txt").write_text("".join(f"a red ball number{i}\n" for i in range(40)))
    data, views = TextDataConfig(source=str(tmp_path / "t.txt")), TextViewsConfig(length=5)
    opened = MEDIUM.open(data, views)
    lines, facts = MEDIUM.sizes(opened, data, views)
    said = dict(lines)
    assert said["length"].startswith("4 / 4 / 4 words")
    assert facts["vocabulary"] == 4 + 3
    assert facts["unknown_percent"] == 0  # of the tokens that fit: numberN is cut
    count = len(opened.train)
    assert said["views"] == f"5 tokens; {count} of {count} training texts fill them"
    _, whole = MEDIUM.sizes(opened, data, TextViewsConfig(length=12))
    assert whole["unknown_percent"] == 25
