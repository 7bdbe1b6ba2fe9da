"""Zero-shot and retrieval by hand-made vectors, closed forms and loops; then both towers beside their baselines."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stopgrad.contracts import ConfigError, DataError, Preprocess, Result
from stopgrad.data import Data
from stopgrad.data.captioned import CaptionedImages
from stopgrad.eval import cross_retrieval, zero_shot
from stopgrad.eval.config import EvalConfig
from stopgrad.eval.pairs import Asked, asked_of, evaluate_pairs
from stopgrad.eval.table import columns, rows
from stopgrad.reporting.scores import scores
from stopgrad.views.captioned_config import CaptionedPreprocess
from stopgrad.views.text_config import TextPreprocess
from stopgrad.views.tokens import tokenizer_of
from tests.eval.fakes import SIDE, Split

pytest.importorskip("tokenizers", reason="no tokenizers: pip install 'stopgrad[text]'")
COLOURS = ("red", "green", "blue")
SHADES = ("pale", "dark", "deep")
WORDS = (*COLOURS, *SHADES, "thing", "a")
PREPROCESS = CaptionedPreprocess(
    image=Preprocess(image_size=SIDE, mean=(0.0,) * 3, std=(1.0,) * 3),
    text=TextPreprocess(length=8, tokenizer=tokenizer_of(WORDS)),
)
CONFIG = EvalConfig(random_seeds=2, batch_size=7, templates=("{}", "a {} thing"))


# --- zero-shot --------------------------------------------------------------------------------------------------------


def letters(texts: Sequence[str]) -> Tensor:
    """A text as how often it has a, b and c: [T, 3]."""
    return torch.tensor([[float(text.count(letter)) for letter in "abc"] for text in texts])


def test_a_class_is_the_mean_of_its_prompts_unit_vectors_made_unit_again() -> None:
    found = zero_shot.class_vectors(letters, ("aab", "c"), ("{}", "{} b"))
    first = F.normalize(torch.tensor([[2.0, 1, 0], [2, 2, 0]]), dim=1).mean(dim=0)
    second = F.normalize(torch.tensor([[0.0, 0, 1], [0, 1, 1]]), dim=1).mean(dim=0)
    torch.testing.assert_close(found, F.normalize(torch.stack([first, second]), dim=1))


def test_a_name_is_put_in_as_it_is_and_read_as_words() -> None:
    asked: list[str] = []

    def noted(texts: Sequence[str]) -> Tensor:
        asked.extend(texts)
        return torch.ones(len(texts), 2)

    zero_shot.class_vectors(noted, ("garbage truck", "{odd}"), ("{}", "a {}."))
    assert asked == ["garbage truck", "a garbage truck.", "{odd}", "a {odd}."]
    assert zero_shot.in_words("garbage_truck") == "garbage truck"
    assert zero_shot.in_words(r"\x3dformula") == "=formula"


def test_accuracy_counts_the_nearest_class_and_the_five_nearest() -> None:
    vectors = torch.eye(7)
    images = torch.tensor([[9.0, 1, 2, 3, 4, 5, 6], [1, 9, 2, 3, 4, 5, 6], [1, 9, 8, 7, 6, 5, 4]])
    found = zero_shot.accuracy(images, vectors, np.array([0, 0, 5]))
    assert found == {1: pytest.approx(100 / 3), 5: pytest.approx(200 / 3)}
    assert zero_shot.accuracy(images[:, :3], vectors[:3, :3], np.array([0, 1, 1])) == {
        1: 100.0
    }  # 5 of 3 is no question


# --- retrieval --------------------------------------------------------------------------------------------------------


def recall_by_loops(queries: Tensor, answers: Tensor, pairs: np.ndarray[Any, Any], k: int) -> float:
    hits = 0
    for q in range(len(queries)):
        right = {int(a) for one, a in pairs if one == q}
        cosine = [float(F.cosine_similarity(queries[q], answer, dim=0)) for answer in answers]
        best = max(cosine[a] for a in right)
        before = sum(cosine[a] >= best - 1e-7 for a in range(len(answers)) if a not in right)
        hits += before < k
    return 100 * hits / len(queries)


@pytest.mark.parametrize("chunk", [8, 1_000])
def test_recall_is_what_loops_count(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cross_retrieval, "SIMILARITIES", chunk)
    generator = torch.Generator().manual_seed(0)
    queries, answers = (torch.randn(n, 3, generator=generator) for n in (9, 12))
    pairs = np.array([[q, a] for q in range(9) for a in {q, (5 * q + 3) % 12}])[::-1].copy()
    found = cross_retrieval.recall(queries, answers, pairs)
    assert found == {k: pytest.approx(recall_by_loops(queries, answers, pairs, k)) for k in (1, 5, 10)}
    assert 0 < found[1] < found[5] < found[10]


def test_a_perfect_encoder_finds_all_and_one_that_is_a_point_nothing() -> None:
    pairs = np.stack([np.arange(20), np.arange(20)], axis=1)
    eye = torch.eye(20)
    assert cross_retrieval.recall(eye, 3 * eye, pairs) == {1: 100.0, 5: 100.0, 10: 100.0}
    assert cross_retrieval.recall(torch.ones(20, 4), torch.ones(20, 4), pairs) == {1: 0.0, 5: 0.0, 10: 0.0}
    broken = torch.full((20, 4), math.nan)
    assert cross_retrieval.recall(broken, torch.ones(20, 4), pairs) == {1: 0.0, 5: 0.0, 10: 0.0}


def test_chance_is_the_mean_over_all_orders() -> None:
    pairs = np.array([[0, 0], [1, 1], [1, 2]])
    orders = list(itertools.permutations(range(4)))
    for k in (1, 2, 3):
        counted = 0.0
        for query in (0, 1):
            right = {int(a) for q, a in pairs if q == query}
            counted += sum(bool(right & set(order[:k])) for order in orders) / len(orders) / 2
        assert cross_retrieval.chance(4, pairs, (k,))[k] == pytest.approx(100 * counted)
    one_each = np.stack([np.arange(605)] * 2, axis=1)
    assert cross_retrieval.chance(605, one_each) == {k: pytest.approx(100 * k / 605) for k in (1, 5, 10)}
    assert cross_retrieval.chance(2, one_each[:2]) == {1: 50.0, 5: 100.0, 10: 100.0}


# --- both towers ------------------------------------------------------------------------------------------------------


def pairs_of(n: int, seed: int, labelled: bool = True) -> CaptionedImages:
    """A colour of three in a shade of three under some noise; the caption says both. 9 captions at most."""
    random = np.random.default_rng(seed)
    kind = np.arange(n) % 9
    colour, shade = kind % 3, kind // 3
    base = np.array([[200, 40, 40], [40, 200, 40], [40, 40, 200]])[colour] + np.array([50, 0, -40])[shade][:, None]
    images = (base[:, None, None] + random.integers(-8, 8, (n, SIDE, SIDE, 3))).clip(0, 255).astype(np.uint8)
    texts = [f"a {SHADES[s]} {COLOURS[c]} thing".encode() for c, s in zip(colour, shade)]
    return CaptionedImages(Split(images, colour.astype(np.int64) if labelled else None), np.arange(n), texts)


def data(labelled: bool = True) -> Data:
    return Data(
        name="things",
        synthetic=True,
        classes=COLOURS if labelled else (),
        train=pairs_of(36, 0, labelled),
        test=pairs_of(18, 1, labelled),
        fingerprint="0123456789abcdef",
        bad=(),
        ignored=0,
        notes=(),
        split_rule="as made",
    )


class Sees(nn.Module):
    """The mean colour of [B, 3, S, S], and how light it is."""

    def __init__(self) -> None:
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(dim=(2, 3))
        return mean / mean.sum(dim=1, keepdim=True) - 1 / 3


class Reads(nn.Module):
    """What a colour's name looks like to `Sees`; ids of WORDS begin at 4."""

    def forward(self, ids: Tensor) -> Tensor:
        named = torch.stack([(ids == 4 + i).any(dim=1).float() for i in range(3)], dim=1)
        return named - 1 / 3


class Random(nn.Module):
    def __init__(self, seed: int, size: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.randn(size, 5, generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        return x.float().flatten(1) @ self.weight


def fresh(seed: int) -> tuple[nn.Module, nn.Module]:
    return Random(seed, 3 * SIDE * SIDE), Random(seed + 100, 8)


def evaluated(given: Data, config: EvalConfig = CONFIG) -> list[Result]:
    return evaluate_pairs(
        (Sees(), Reads()), fresh, given, PREPROCESS, config, seed=3, device="cpu", threads=1, say=None
    )


def values(results: list[Result]) -> dict[str, Any]:
    return {row.name: row.value for row in results}


def test_both_towers_stand_beside_chance_the_nearest_caption_and_untrained_ones() -> None:
    results = evaluated(data())
    found = values(results)
    assert found["zero_shot_top1"] == 100.0
    assert found["baseline_chance_zero_shot_top1"] == pytest.approx(100 / 3)
    # the colour is found, the shade is not: three captions of nine are as near as the right one
    assert (found["image_to_text_r1"], found["image_to_text_r5"]) == (0.0, 100.0)
    assert found["baseline_chance_image_to_text_r1"] == pytest.approx(100 / 9)
    assert found["baseline_nearest_caption_image_to_text_r1"] == 100.0  # pixels tell nine things under a little noise
    assert found["baseline_nearest_caption_zero_shot_top1"] == 100.0
    assert 0 <= found["baseline_random_zero_shot_top1"] <= 100
    by_name = {row.name: row for row in results}
    assert (by_name["zero_shot_top1"].n, by_name["image_to_text_r1"].n, by_name["text_to_image_r1"].n) == (18, 18, 9)
    for part in ("things (synthetic)", "3 classes, templates '{}', 'a {} thing'", "weights as handed in"):
        assert part in by_name["zero_shot_top1"].protocol
    assert "mean over seeds 3, 4" in by_name["baseline_random_zero_shot_top1"].protocol
    assert "raw pixels" in by_name["baseline_nearest_caption_zero_shot_top1"].protocol
    assert {"baseline_chance_", "baseline_nearest_caption_", "baseline_random_"} <= columns(results).keys()
    assert "text_to_image_r10" in dict(rows(results))
    told = scores(results)
    assert told is not None
    assert {row.title for row in told.rows} >= {"Zero-shot accuracy", "Caption found", "Image found among 10"}
    assert {"chance", "nearest caption", "untrained"} <= set(told.columns)


def test_images_of_one_caption_are_all_right_answers_and_counted_once() -> None:
    asked = asked_of(data(), PREPROCESS, CONFIG, torch.device("cpu"), 1)
    assert (len(asked.images), len(asked.captions), len(asked.pairs)) == (18, 9, 18)
    twice = data()
    assert isinstance(twice.test, CaptionedImages)
    both = CaptionedImages(
        twice.test.images,
        np.concatenate([np.arange(18), np.arange(18)]),
        [twice.test.caption(i % 18).tobytes() + b" again" * (i // 18) for i in range(36)],
    )
    asked = asked_of(replace(twice, test=both), PREPROCESS, CONFIG, torch.device("cpu"), 1)
    assert (len(asked.images), len(asked.captions), len(asked.pairs)) == (18, 18, 36)
    assert np.unique(asked.pairs[:, 0], return_counts=True)[1].tolist() == [2] * 18


def test_without_labels_only_captions_are_asked_for_and_without_captions_only_classes() -> None:
    assert not [name for name in values(evaluated(data(labelled=False))) if "zero_shot" in name]
    plain = data()
    assert isinstance(plain.train, CaptionedImages)
    assert isinstance(plain.test, CaptionedImages)
    plain = replace(plain, train=plain.train.images, test=plain.test.images)
    found = values(evaluated(plain))
    assert found["zero_shot_top1"] == 100.0
    assert {name.rpartition("zero_shot_top1")[0] for name in found} == {"", "baseline_chance_", "baseline_random_"}
    assert evaluated(replace(plain, classes=())) == []


def test_templates_change_what_a_class_is() -> None:
    """`Reads` knows colours alone, so a template that names them all makes one of all classes."""
    spoilt = replace(CONFIG, templates=("{} red green blue",), random_seeds=0)
    assert values(evaluated(data(), spoilt))["zero_shot_top1"] == pytest.approx(100 / 3)


@pytest.mark.parametrize("templates", [(), ("a photo",), ("{} and {}",)])
def test_templates_without_a_place_for_the_name_are_refused(templates: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match=r"eval\.templates must be texts with \{\} once"):
        EvalConfig(templates=templates)


def test_features_that_are_not_finite_end_the_evaluation() -> None:
    class Broken(Sees):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * math.nan

    with pytest.raises(DataError, match=r"features of images are not finite.*stopgrad diagnose RUN"):
        evaluate_pairs((Broken(), Reads()), fresh, data(), PREPROCESS, CONFIG, seed=0, device="cpu", threads=1)


def test_what_is_asked_does_not_depend_on_who_answers() -> None:
    asked = asked_of(data(), PREPROCESS, CONFIG, torch.device("cpu"), 1)
    assert isinstance(asked, Asked)
    images = torch.randn(18, 4, generator=torch.Generator().manual_seed(0))
    read = {text: torch.randn(4, generator=torch.Generator().manual_seed(i)) for i, text in enumerate(asked.captions)}
    one = asked.scores(images, lambda texts: torch.stack([read.get(text, torch.ones(4)) for text in texts]))
    assert one.keys() == asked.chance().keys()
