"""Schedules against closed forms."""

import math

import pytest

from stopgrad.contracts import Clock
from stopgrad.optim.config import OptimConfig
from stopgrad.optim.schedules import share, warm_up, weight_decay


def shares(config: OptimConfig, steps: list[int], total: int = 100, per_epoch: int = 10) -> list[float]:
    return [share(Clock(step, total, per_epoch), config) for step in steps]


def test_the_cosine_starts_at_one_halves_in_the_middle_and_ends_at_zero() -> None:
    found = shares(OptimConfig(), [0, 25, 50, 100])
    assert found == pytest.approx([1, 0.5 * (1 + math.cos(math.pi / 4)), 0.5, 0], abs=1e-12)


def test_the_cosine_ends_at_the_share_it_is_told() -> None:
    found = shares(OptimConfig(end=0.2), [0, 50, 100])
    assert found == pytest.approx([1, 0.6, 0.2])


def test_warm_up_rises_in_equal_steps_to_the_peak() -> None:
    assert shares(OptimConfig(warmup_epochs=0.4), list(range(5))) == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])


def test_warm_up_starts_where_it_is_told() -> None:
    config = OptimConfig(warmup_epochs=0.4, warmup_from=0.2)
    assert shares(config, list(range(5))) == pytest.approx([0.4, 0.6, 0.8, 1.0, 1.0])


def test_the_cosine_is_over_what_the_warm_up_leaves() -> None:
    config = OptimConfig(warmup_epochs=2, end=0.1)
    assert shares(config, [20, 60, 100]) == pytest.approx([1, 0.55, 0.1])


def test_steps_drop_where_they_are_told_and_stay() -> None:
    config = OptimConfig(schedule="steps", steps=((0.6, 0.1), (0.8, 0.01)))
    found = shares(config, [0, 59, 60, 79, 80, 99])
    assert found == [1, 1, 0.1, 0.1, 0.01, 0.01]


def test_a_step_is_not_missed_by_rounding() -> None:
    assert 0.07 * 100 > 7
    assert shares(OptimConfig(schedule="steps", steps=((0.07, 0.5),)), [6, 7]) == [1, 0.5]


def test_steps_are_warmed_up_too() -> None:
    config = OptimConfig(schedule="steps", steps=((0.5, 0.1),), warmup_epochs=1)
    assert shares(config, [0, 4, 9, 10, 50]) == pytest.approx([0.1, 0.5, 1, 1, 0.1])


def test_the_warm_up_alone_stays_at_the_peak() -> None:
    config = OptimConfig(warmup_epochs=0.4, warmup_from=0.2)
    found = [warm_up(Clock(step, 100, 10), config) for step in (0, 1, 3, 4, 99)]
    assert found == pytest.approx([0.4, 0.6, 1, 1, 1])


def test_weight_decay_follows_a_cosine_over_the_whole_run() -> None:
    config = OptimConfig(weight_decay=0.04, weight_decay_end=0.4, warmup_epochs=2)
    found = [weight_decay(Clock(step, 100, 10), config) for step in (0, 25, 50, 100)]
    assert found == pytest.approx([0.04, 0.4 - 0.36 * 0.5 * (1 + math.cos(math.pi / 4)), 0.22, 0.4])


def test_weight_decay_stays_where_it_has_no_end_and_may_end_at_zero() -> None:
    assert weight_decay(Clock(70, 100, 10), OptimConfig(weight_decay=0.3)) == 0.3
    assert weight_decay(Clock(50, 100, 10), OptimConfig(weight_decay=0.3, weight_decay_end=0.0)) == pytest.approx(0.15)
