"""SimSiam: every setting is read, and the ones that are studies do what the study says. Its algorithm written out is
in tests/siamese/test_family.py."""

from typing import Any

import pytest
import torch

from stopgrad.contracts import ConfigError
from stopgrad.methods.simsiam import SimSiamConfig
from tests.methods.small import HEAD, small
from tests.methods.test_contract import train_steps

CHANGES: list[dict[str, Any]] = [
    {"projector": {**HEAD, "layers": 1}},
    {"projector": {**HEAD, "hidden": 8}},
    {"projector": {**HEAD, "dim": 8}},
    {"projector": {**HEAD, "norm": "none"}},
    {"projector": {**HEAD, "output_norm": "none"}},
    {"predictor": "none"},
    {"predictor": "frozen"},
    {"predictor_hidden": 8},
    {"predictor_norm": "none"},
    {"predictor_output_norm": "batch"},
    {"target": "shared"},
    {"target": "momentum"},
    {"target": "momentum", "target_momentum": 0.5},
    {"similarity": "cross_entropy"},
    {"pairs": "asymmetric"},
    {"target": "lagged", "lag": 2},
    {"target": "average"},
    {"target": "average", "average_momentum": 0.5},
    {"target": "average", "average_first": "random"},
    {"target": "average", "average_order": "after"},
    {"target": "average", "average_normalised": True},
]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_every_setting_of_simsiam_changes_what_is_computed(change: dict[str, Any]) -> None:
    reference = {"target": change["target"]} if "target" in change and len(change) > 1 else {}
    changed, as_it_was = small("simsiam", **change), small("simsiam", **reference)
    assert train_steps(changed, "simsiam", range(3)) != train_steps(as_it_was, "simsiam", range(3))


def test_a_momentum_without_a_slow_copy_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"target_momentum=0.9 is read by nothing here; .* method.target=momentum"):
        SimSiamConfig(target_momentum=0.9)
    assert SimSiamConfig(target_momentum=0.9, target="momentum").target_momentum == 0.9


def test_the_predictors_rate_is_constant_only_when_asked() -> None:
    assert small("simsiam").constant_lr() == ("predictor.",)
    assert small("simsiam", predictor_lr="decayed").constant_lr() == ()


def test_a_frozen_predictor_is_not_trained() -> None:
    method = small("simsiam", predictor="frozen")
    before = [parameter.clone() for parameter in method.predictor.parameters()]  # type: ignore[union-attr]
    train_steps(method, "simsiam", range(2))
    after = list(method.predictor.parameters())  # type: ignore[union-attr]
    assert all(torch.equal(a, b) for a, b in zip(before, after))
