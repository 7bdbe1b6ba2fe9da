"""Schedules against closed forms, and which parameters are on which."""

import math

import pytest
import torch
from torch import nn

from stopgrad.contracts import Clock, ConfigError
from stopgrad.optim.config import OptimConfig
from stopgrad.optim.sgd import build_sgd, scale, set_learning_rates


class Parts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Linear(2, 2)
        self.predictor = nn.Linear(2, 2)
        self.frozen = nn.Linear(2, 2).requires_grad_(False)


def test_the_cosine_starts_at_one_halves_in_the_middle_and_ends_at_zero() -> None:
    assert scale(0, 100, 0) == 1
    assert scale(50, 100, 0) == pytest.approx(0.5)
    assert scale(100, 100, 0) == pytest.approx(0)
    assert scale(25, 100, 0) == pytest.approx(0.5 * (1 + math.cos(math.pi / 4)))


def test_warm_up_rises_in_equal_steps_to_the_peak() -> None:
    assert [scale(step, 100, 4) for step in range(5)] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])


def test_the_rate_is_scaled_with_the_batch_and_the_setting_is_left_alone() -> None:
    config = OptimConfig(base_lr=0.05)
    assert config.peak_lr(512) == pytest.approx(0.1)
    assert config.base_lr == 0.05


def test_the_predictor_keeps_its_rate_while_the_rest_falls() -> None:
    model, config = Parts(), OptimConfig(base_lr=0.1)
    optimiser = build_sgd(model, config, batch_size=256, constant=("predictor.",))
    rate = set_learning_rates(optimiser, config, 256, Clock(75, 100, 10))
    rates = {id(p): group["lr"] for group in optimiser.param_groups for p in group["params"]}
    assert rates[id(model.predictor.weight)] == pytest.approx(0.1)
    assert rates[id(model.backbone.weight)] == rate == pytest.approx(0.1 * 0.5 * (1 + math.cos(0.75 * math.pi)))


def test_weight_decay_is_on_everything_that_is_trained_and_on_nothing_frozen() -> None:
    model = Parts()
    optimiser = build_sgd(model, OptimConfig(weight_decay=0.3), 256, ("predictor.",))
    trained = {id(p) for group in optimiser.param_groups for p in group["params"] if group["weight_decay"] == 0.3}
    assert trained == {id(p) for p in [*model.backbone.parameters(), *model.predictor.parameters()]}


def test_one_step_is_the_textbook_formula() -> None:
    model, config = Parts(), OptimConfig(base_lr=0.1, momentum=0.9, weight_decay=0.01)
    optimiser = build_sgd(model, config, 256)
    weight = model.backbone.weight
    velocity, expected = torch.zeros_like(weight), weight.detach().clone()
    for step in range(3):
        rate = set_learning_rates(optimiser, config, 256, Clock(step, 10, 5))
        optimiser.zero_grad()
        model.backbone(torch.ones(1, 2)).sum().backward()
        assert weight.grad is not None
        velocity = 0.9 * velocity + weight.grad + 0.01 * expected
        expected = expected - rate * velocity
        optimiser.step()
    torch.testing.assert_close(weight.detach(), expected)


@pytest.mark.parametrize(
    ("field", "value"),
    [("base_lr", 0.0), ("momentum", 1.0), ("weight_decay", -1.0), ("warmup_epochs", -1.0), ("clip_norm", -0.1)],
)
def test_a_setting_out_of_range_is_named(field: str, value: float) -> None:
    with pytest.raises(ConfigError, match=rf"optim\.{field}.*got {value}"):
        OptimConfig(**{field: value})
