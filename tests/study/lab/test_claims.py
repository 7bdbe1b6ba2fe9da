"""Claims beside runs: what supports them, what contradicts them, and when nothing can be said."""

import math
from collections.abc import Sequence
from typing import Any

import pytest

from stopgrad.study.lab.claims import (
    Below,
    BetterThanRandom,
    Claim,
    EndsAs,
    EndsHigher,
    Higher,
    KeepsShare,
    NoBetterThanRandom,
    SameBits,
    interval,
)
from stopgrad.study.lab.records import Record


def runs(knn: Sequence[float], random: float = 20.0, verdict: str = "healthy", **more: Any) -> list[Record]:
    return [
        Record(
            name=f"run-{seed}",
            seed=seed,
            recipe={},
            verdict=verdict,
            values={"knn_top1": value, "baseline_random_knn_top1": random, "loss": -value / 100},
            tested=2000,
            **more,
        )
        for seed, value in enumerate(knn)
    ]


def judged(claim: Claim, **rows: list[Record]) -> str:
    return claim.judge(rows).outcome


def test_the_interval_is_student_s() -> None:
    low, mean, high = interval([1.0, 2.0, 3.0], one=0.0)
    assert mean == 2
    assert high - mean == pytest.approx(4.302652730 / math.sqrt(3))
    assert mean - low == pytest.approx(high - mean)
    assert interval([5.0], one=1.5) == (3.5, 5.0, 6.5)


def test_one_row_above_another() -> None:
    claim = Higher(words="a is better", of="a", than="b")
    assert judged(claim, a=runs([50, 51, 52]), b=runs([40, 41, 42])) == "supported"
    assert judged(claim, a=runs([40, 41, 42]), b=runs([50, 51, 52])) == "contradicted"
    assert judged(claim, a=runs([40, 51, 42]), b=runs([41, 40, 43])) == "can't tell"
    assert judged(claim, a=runs([45]), b=runs([40])) == "supported"  # 2,000 images tell 5 points from luck
    assert judged(claim, a=runs([42]), b=runs([40])) == "can't tell"
    assert judged(claim, a=runs([50])) == judged(claim, a=[], b=[]) == "not run"
    assert "without b" in claim.judge({"a": runs([50])}).told


def test_pairs_are_of_one_seed() -> None:
    """Far apart from seed to seed, and always 2 apart: differences are what is looked at."""
    claim = Higher(words="", of="a", than="b")
    assert judged(claim, a=runs([30.0, 50.1, 70.0]), b=runs([28.0, 48.0, 68.1])) == "supported"
    assert judged(claim, a=runs([30.0, 50.1, 70.0]), b=runs([48.0, 68.1, 28.0])) == "can't tell"


def test_a_bound_above_nothing() -> None:
    claim = Higher(words="", of="a", than="b", by=5.0)
    assert judged(claim, a=runs([50, 51, 52]), b=runs([40, 41, 42])) == "supported"
    assert judged(claim, a=runs([43.0, 44.1, 45.0]), b=runs([40, 41, 42])) == "contradicted"


def test_beside_random_weights() -> None:
    better, no_better = BetterThanRandom(words="", of="a"), NoBetterThanRandom(words="", of="a")
    for knn, learns, learns_nothing in (
        ([50, 51, 52], "supported", "contradicted"),
        ([10, 11, 12], "contradicted", "supported"),
        ([15, 21, 26], "can't tell", "can't tell"),
    ):
        assert judged(better, a=runs(knn)) == learns
        assert judged(no_better, a=runs(knn)) == learns_nothing
    assert judged(better, a=[]) == judged(no_better, a=[]) == "not run"


def test_how_a_row_ends() -> None:
    claim = EndsAs(words="", of="a", verdicts=("collapsed",))
    assert judged(claim, a=runs([1, 2], verdict="collapsed")) == "supported"
    assert judged(claim, a=runs([1, 2])) == "contradicted"
    assert judged(claim, a=[*runs([1]), *runs([1], verdict="collapsed")]) == "can't tell"
    assert judged(claim, b=runs([1])) == "not run"


def test_a_number_under_a_bound() -> None:
    claim = Below(words="", of="a", bound=-0.9)
    assert judged(claim, a=runs([95, 99])) == "supported"
    assert judged(claim, a=runs([10, 20])) == "contradicted"
    assert judged(claim, a=runs([95, 20])) == "can't tell"
    assert judged(claim) == "not run"


def test_equal_to_the_bit() -> None:
    claim = SameBits(words="", of="a", as_="b")
    assert judged(claim, a=runs([1, 2], weights="x"), b=runs([1, 2], weights="x")) == "supported"
    assert judged(claim, a=runs([1, 2], weights="x"), b=runs([1, 2], weights="y")) == "contradicted"
    assert judged(claim, a=runs([1, 2]), b=runs([1, 2])) == "not run"


def test_a_share_of_a_gain() -> None:
    claim = KeepsShare(words="", of="some", full="full", base="base", share=0.5)
    base, full = runs([40, 41, 42]), runs([50.0, 51.1, 52.0])
    assert judged(claim, base=base, full=full, some=runs([49, 50, 51])) == "supported"
    assert judged(claim, base=base, full=full, some=runs([41, 42, 43])) == "contradicted"
    assert judged(claim, base=base, full=runs([40, 41.5, 41.5]), some=full) == "can't tell"  # nothing is gained
    assert judged(claim, base=base, full=full) == "not run"


def test_a_curve_ends_above_another_or_above_a_bound() -> None:
    curves = {"a": [[0, 0.9], [10, 0.5]], "b": [[0, 0.1], [10, 0.4]]}
    rows = {"of": runs([1, 2, 3], curves=curves), "without": runs([1, 2])}
    assert EndsHigher(words="", of="of", curve="a", than="b").judge(rows).outcome == "supported"
    assert EndsHigher(words="", of="of", curve="b", than="a").judge(rows).outcome == "contradicted"
    assert EndsHigher(words="", of="of", curve="a", than=0.45).judge(rows).outcome == "supported"
    assert EndsHigher(words="", of="of", curve="a", than=0.5).judge(rows).outcome == "can't tell"
    judged = EndsHigher(words="", of="of", curve="a", than="b").judge(rows)
    assert judged.told == "of: a ends +0.100 beside b (+0.100 to +0.100)"
    for claim in (
        EndsHigher(words="", of="without", curve="a", than=0.1),
        EndsHigher(words="", of="of", curve="a", than="c"),
        EndsHigher(words="", of="nobody", curve="a", than=0.1),
    ):
        assert claim.judge(rows).outcome == "not run"
