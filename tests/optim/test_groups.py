"""Which parameter is moved at which rate, how long gradients may be, and that a run goes on from its state."""

from __future__ import annotations

import dataclasses
import io
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stopgrad.optim.config import OptimConfig
from stopgrad.optim.groups import build_optimiser, clip, set_rates
from stopgrad.optim.lars import Lars
from tests.optim.toy import BATCH, STEPS, Parts, backward, clock, parts, take, trained

CONSTANT = ("predictor.",)
NAMED = (
    OptimConfig(base_lr=0.3),
    OptimConfig(name="lars", base_lr=0.5, trust=0.1, exclude_1d=True, rate_1d=0.1),
    OptimConfig(name="adamw", base_lr=0.01, weight_decay=0.04, weight_decay_end=0.4, exclude_1d=True),
)


def of(optimiser: torch.optim.Optimizer, key: str) -> dict[int, Any]:
    """id of a parameter -> what its group has under `key`."""
    return {id(p): group[key] for group in optimiser.param_groups for p in group["params"]}


# --- rates ------------------------------------------------------------------------------------------------------------


def test_the_predictor_keeps_its_rate_while_the_rest_falls() -> None:
    model, config = parts(), OptimConfig(base_lr=0.1)
    optimiser = build_optimiser(model, config, BATCH, CONSTANT)
    rate = set_rates(optimiser, config, BATCH, clock(75, 100))
    rates = of(optimiser, "lr")
    assert rates[id(model.predictor.weight)] == pytest.approx(0.1)
    assert rates[id(model.backbone[0].weight)] == rate == pytest.approx(0.1 * 0.5 * (1 + math.cos(0.75 * math.pi)))


def test_a_part_has_so_many_times_the_rate_of_the_rest_also_where_vectors_have_their_own() -> None:
    model, config = parts(), OptimConfig(name="lars", base_lr=0.5, rate_1d=0.1)
    optimiser = build_optimiser(model, config, BATCH, rates={"predictor.": 10.0})
    rate = set_rates(optimiser, config, BATCH, clock(3))
    rates = of(optimiser, "lr")
    assert rates[id(model.predictor.weight)] == pytest.approx(10 * rate)
    assert rates[id(model.predictor.bias)] == pytest.approx(rate)  # 10 x 0.1
    assert rates[id(model.backbone[0].weight)] == rate


def test_a_constant_rate_is_warmed_up_with_the_others() -> None:
    model, config = parts(), OptimConfig(base_lr=0.1, warmup_epochs=0.8, warmup_from=0.2)  # 4 steps
    optimiser = build_optimiser(model, config, BATCH, CONSTANT)
    for step, share in enumerate([0.4, 0.6, 0.8, 1.0]):
        rate = set_rates(optimiser, config, BATCH, clock(step))
        assert set(of(optimiser, "lr").values()) == {rate}
        assert rate == pytest.approx(0.1 * share)
    rate = set_rates(optimiser, config, BATCH, clock(9))
    assert of(optimiser, "lr")[id(model.predictor.weight)] == pytest.approx(0.1)
    assert rate < 0.02


def test_a_constant_rate_does_not_drop_in_steps() -> None:
    model, config = parts(), OptimConfig(base_lr=0.1, schedule="steps", steps=((0.5, 0.01),))
    optimiser = build_optimiser(model, config, BATCH, CONSTANT)
    assert set_rates(optimiser, config, BATCH, clock(6)) == pytest.approx(0.001)
    assert of(optimiser, "lr")[id(model.predictor.bias)] == pytest.approx(0.1)


@pytest.mark.parametrize("config", NAMED, ids=lambda config: config.name)
def test_the_rate_is_scaled_with_the_batch_and_the_setting_is_left_alone(config: OptimConfig) -> None:
    optimiser = build_optimiser(parts(), config, 512)
    assert set_rates(optimiser, config, 512, clock(0)) == pytest.approx(2 * config.base_lr)
    assert optimiser.param_groups[0]["lr"] == pytest.approx(2 * config.base_lr)


def test_1d_parameters_have_a_rate_of_their_own_on_and_off_the_schedule() -> None:
    model, config = parts(), OptimConfig(base_lr=0.2, rate_1d=0.0048 / 0.2)
    optimiser = build_optimiser(model, config, BATCH, CONSTANT)
    rate = set_rates(optimiser, config, BATCH, clock(5))
    rates = of(optimiser, "lr")
    assert rates[id(model.backbone[0].weight)] == rate == pytest.approx(0.1)
    for flat in (model.backbone[0].bias, model.backbone[1].weight, model.backbone[1].bias):
        assert rates[id(flat)] == pytest.approx(0.0024)
    assert rates[id(model.predictor.weight)] == pytest.approx(0.2)
    assert rates[id(model.predictor.bias)] == pytest.approx(0.0048)


# --- decay ------------------------------------------------------------------------------------------------------------


def test_weight_decay_is_on_everything_that_is_trained_and_on_nothing_frozen() -> None:
    model, config = parts(), OptimConfig(weight_decay=0.3)
    optimiser = build_optimiser(model, config, BATCH, CONSTANT)
    for _ in range(2):  # as built, and as the first step sets it
        decays = of(optimiser, "weight_decay")
        assert set(decays) == {id(p) for p in [*model.backbone.parameters(), *model.predictor.parameters()]}
        assert set(decays.values()) == {0.3}
        set_rates(optimiser, config, BATCH, clock(0))


@pytest.mark.parametrize("config", NAMED[1:], ids=lambda config: config.name)
def test_excluded_1d_parameters_are_not_decayed_at_any_step_nor_adapted(config: OptimConfig) -> None:
    model = parts()
    model.register_parameter("scale", nn.Parameter(torch.tensor(2.0)))  # no dimension is not two either
    optimiser = build_optimiser(model, config, BATCH, CONSTANT)
    flat = {id(p) for p in model.parameters() if p.requires_grad and p.ndim <= 1}
    assert len(flat) == 5
    for step in (None, 0, 9):
        if step is not None:
            set_rates(optimiser, config, BATCH, clock(step))
        assert {key for key, value in of(optimiser, "weight_decay").items() if value == 0} == flat
    assert {key for key, value in of(optimiser, "adapt").items() if not value} == flat


def test_weight_decay_moves_to_its_end() -> None:
    optimiser = build_optimiser(parts(), NAMED[2], BATCH)
    assert optimiser.param_groups[0]["weight_decay"] == 0.04
    set_rates(optimiser, NAMED[2], BATCH, clock(50, 100))
    assert optimiser.param_groups[0]["weight_decay"] == pytest.approx(0.22)


# --- groups -----------------------------------------------------------------------------------------------------------


def names(model: nn.Module, optimiser: torch.optim.Optimizer) -> list[list[str]]:
    of_id = {id(p): name for name, p in model.named_parameters()}
    return [[of_id[id(p)] for p in group["params"]] for group in optimiser.param_groups]


def test_groups_that_nothing_tells_apart_are_one() -> None:
    model = parts()
    assert names(model, build_optimiser(model, OptimConfig(), BATCH)) == [
        ["backbone.0.weight", "backbone.0.bias", "backbone.1.weight", "backbone.1.bias", "predictor.weight",
         "predictor.bias"],
    ]  # fmt: skip


@pytest.mark.parametrize(
    "change", [{"exclude_1d": True}, {"rate_1d": 0.5}, {"rate_1d": 2.0}, {"rate_1d": 0.5, "exclude_1d": True}]
)
def test_scheduled_groups_stand_before_constant_ones_and_matrices_before_1d(change: dict[str, Any]) -> None:
    model = parts()
    assert names(model, build_optimiser(model, OptimConfig(**change), BATCH, CONSTANT)) == [
        ["backbone.0.weight"],
        ["backbone.0.bias", "backbone.1.weight", "backbone.1.bias"],
        ["predictor.weight"],
        ["predictor.bias"],
    ]


# --- what is computed -------------------------------------------------------------------------------------------------


def sgd_before_there_was_more(model: nn.Module, config: OptimConfig, constant: tuple[str, ...]) -> None:
    """A run of version 0.1, statement by statement: its bits have to stay."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    kept = [p for name, p in named if name.startswith(constant)] if constant else []
    scheduled = [p for name, p in named if not (constant and name.startswith(constant))]
    groups = [{"params": scheduled, "scheduled": True}, {"params": kept, "scheduled": False}]
    peak = config.base_lr * BATCH / 256
    optimiser = torch.optim.SGD(
        [group for group in groups if group["params"]],
        lr=peak, momentum=config.momentum, weight_decay=config.weight_decay,
    )  # fmt: skip
    for step in range(STEPS):
        warmup = round(config.warmup_epochs * 5)
        if step < warmup:
            share = (step + 1) / warmup
        else:
            share = 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, STEPS - warmup)))
        for group in optimiser.param_groups:
            group["lr"] = peak * share if group["scheduled"] else peak * min(1.0, (step + 1) / max(1, warmup))
        backward(model, step)  # type: ignore[arg-type]
        if config.clip_norm:
            torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.grad is not None], config.clip_norm)
        optimiser.step()


@pytest.mark.parametrize("constant", [(), CONSTANT])
@pytest.mark.parametrize("change", [{}, {"warmup_epochs": 0.6}, {"momentum": 0.0}, {"clip_norm": 0.05}])
def test_sgd_has_the_bits_it_had_before_there_was_more(change: dict[str, float], constant: tuple[str, ...]) -> None:
    config = OptimConfig(base_lr=0.3, weight_decay=0.01, **change)
    model = parts()
    sgd_before_there_was_more(model, config, constant)
    for name, tensor in trained(config, constant).items():
        assert torch.equal(tensor, model.state_dict()[name]), name


def test_one_step_of_sgd_is_the_textbook_formula() -> None:
    model, config = parts(dtype=torch.float64), OptimConfig(base_lr=0.1, weight_decay=0.01, warmup_epochs=1)
    optimiser = build_optimiser(model, config, BATCH)
    weight = model.predictor.weight
    velocity, expected = torch.zeros_like(weight), weight.detach().clone()
    for step in range(3):
        rate = set_rates(optimiser, config, BATCH, clock(step))
        backward(model, step)
        assert weight.grad is not None
        velocity = 0.9 * velocity + weight.grad + 0.01 * expected
        expected = expected - rate * velocity
        optimiser.step()
    torch.testing.assert_close(weight.detach(), expected)


def test_adamw_is_torchs() -> None:
    config = OptimConfig(name="adamw", base_lr=0.01, betas=(0.8, 0.9), weight_decay=0.1, exclude_1d=True)
    model, twin = parts(), parts()
    flat = [p for p in twin.parameters() if p.requires_grad and p.ndim == 1]
    wide = [p for p in twin.parameters() if p.requires_grad and p.ndim > 1]
    theirs = torch.optim.AdamW(
        [{"params": wide, "weight_decay": 0.1}, {"params": flat, "weight_decay": 0.0}], lr=1.0, betas=(0.8, 0.9)
    )
    ours = build_optimiser(model, config, BATCH)
    for step in range(STEPS):
        rate = set_rates(ours, config, BATCH, clock(step))
        for group in theirs.param_groups:
            group["lr"] = rate
        for each, optimiser in ((model, ours), (twin, theirs)):
            backward(each, step)
            optimiser.step()
    for a, b in zip(model.parameters(), twin.parameters()):
        assert torch.equal(a, b)


def test_lars_gets_its_settings_and_spares_what_is_excluded() -> None:
    config = OptimConfig(
        name="lars", base_lr=0.2, momentum=0.8, trust=0.02, trust_clip=True, weight_decay=0.1, exclude_1d=True
    )
    model, twin = parts(), parts()
    flat = [p for p in twin.parameters() if p.requires_grad and p.ndim == 1]
    wide = [p for p in twin.parameters() if p.requires_grad and p.ndim > 1]
    adapted = Lars(wide, lr=1.0, momentum=0.8, weight_decay=0.1, trust=0.02, trust_clip=True)
    plain = torch.optim.SGD(flat, lr=1.0, momentum=0.8)
    ours = build_optimiser(model, config, BATCH)
    for step in range(STEPS):
        rate = set_rates(ours, config, BATCH, clock(step))
        backward(model, step)
        ours.step()
        backward(twin, step)
        for optimiser in (adapted, plain):
            optimiser.param_groups[0]["lr"] = rate
            optimiser.step()
    for a, b in zip(model.parameters(), twin.parameters()):
        torch.testing.assert_close(a.detach(), b.detach())


@pytest.mark.parametrize("config", NAMED, ids=lambda config: config.name)
def test_what_is_frozen_or_has_no_gradient_stays(config: OptimConfig) -> None:
    model = parts()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimiser = build_optimiser(model, config, BATCH, CONSTANT)
    assert not {id(p) for p in model.frozen.parameters()} & set(of(optimiser, "lr"))
    for step in range(2):
        set_rates(optimiser, config, BATCH, clock(step))
        backward(model, step)
        model.predictor.weight.grad = None
        optimiser.step()
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {name for name in before if not name.startswith("frozen.")} - {"predictor.weight"}


@pytest.mark.parametrize("config", NAMED, ids=lambda config: config.name)
def test_a_run_goes_on_from_its_state_to_the_bit(config: OptimConfig) -> None:
    config = dataclasses.replace(config, warmup_epochs=0.6)
    model = parts()
    optimiser = build_optimiser(model, config, BATCH, CONSTANT)
    take(model, optimiser, config, 0, 4)
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimiser": optimiser.state_dict()}, file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    twin = parts(seed=1)
    other = build_optimiser(twin, config, BATCH, CONSTANT)
    twin.load_state_dict(state["model"])
    other.load_state_dict(state["optimiser"])
    assert_equal(other.state_dict(), optimiser.state_dict())
    take(model, optimiser, config, 4, STEPS)
    take(twin, other, config, 4, STEPS)
    assert_equal(twin.state_dict(), model.state_dict())
    assert_equal(other.state_dict(), optimiser.state_dict())
    fresh = parts()
    fresh.load_state_dict(state["model"])
    take(fresh, build_optimiser(fresh, config, BATCH, CONSTANT), config, 4, STEPS)
    assert not torch.equal(fresh.predictor.weight, model.predictor.weight)  # the state is of consequence


def assert_equal(a: Any, b: Any) -> None:
    if isinstance(a, Tensor):
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_equal(a[key], b[key])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b):
            assert_equal(x, y)
    else:
        assert a == b


# setting -> (settings it is changed in, its other value)
CHANGES: dict[str, tuple[dict[str, Any], Any]] = {
    "name": ({}, "adamw"),
    "base_lr": ({}, 0.2),
    "momentum": ({}, 0.5),
    "betas": ({"name": "adamw"}, (0.9, 0.99)),
    "trust": ({"name": "lars"}, 0.02),
    "trust_clip": ({"name": "lars", "trust": 1.0}, True),
    "weight_decay": ({}, 0.1),
    "weight_decay_end": ({}, 0.5),
    "exclude_1d": ({"weight_decay": 0.1}, True),
    "rate_1d": ({}, 0.5),
    "schedule": ({"steps": ((0.5, 0.1),)}, None),  # needs its partner: tested below
    "steps": ({"schedule": "steps", "steps": ((0.5, 0.5),)}, ((0.4, 0.5),)),
    "end": ({}, 0.5),
    "warmup_epochs": ({}, 1.0),
    "warmup_from": ({"warmup_epochs": 1.0}, 0.5),
    "clip_norm": ({}, 0.01),
    "clip_scope": ({"clip_norm": 0.01}, "tensor"),
}


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(OptimConfig)])
def test_every_setting_changes_the_weights(name: str) -> None:
    settings, value = CHANGES[name]
    if name == "schedule":
        one, other = OptimConfig(), OptimConfig(schedule="steps", **settings)
    else:
        one, other = OptimConfig(**settings), OptimConfig(**{**settings, name: value})
    a, b = trained(one), trained(other)
    assert not torch.equal(a["backbone.1.bias"], b["backbone.1.bias"])


def test_exclusion_takes_adaptation_away_too() -> None:
    settings: dict[str, Any] = {"name": "lars", "weight_decay": 0.0}  # so that decay is not what differs
    a, b = trained(OptimConfig(**settings)), trained(OptimConfig(**settings, exclude_1d=True))
    assert not torch.equal(a["backbone.1.bias"], b["backbone.1.bias"])


# --- clipping ---------------------------------------------------------------------------------------------------------


def with_gradients() -> tuple[Parts, list[Tensor]]:
    model = parts(dtype=torch.float64)
    backward(model, 0)
    return model, [p.grad.clone() for p in model.parameters() if p.grad is not None]


def gradients(model: Parts) -> list[Tensor]:
    return [p.grad for p in model.parameters() if p.grad is not None]


def length(tensors: list[Tensor]) -> float:
    return math.sqrt(sum(value * value for tensor in tensors for value in tensor.flatten().tolist()))


def test_without_a_limit_gradients_are_only_measured() -> None:
    model, before = with_gradients()
    assert float(clip(model.parameters(), OptimConfig())) == pytest.approx(length(before))
    assert all(torch.equal(a, b) for a, b in zip(gradients(model), before))


@pytest.mark.parametrize("scope", ["model", "tensor"])
def test_the_norm_that_comes_back_is_of_before(scope: Any) -> None:
    model, before = with_gradients()
    found = clip(model.parameters(), OptimConfig(clip_norm=1e-3, clip_scope=scope))
    assert isinstance(found, Tensor)
    assert float(found) == pytest.approx(length(before))
    assert length(gradients(model)) < 0.01


def test_the_model_is_clipped_as_one_vector_with_torchs_bits() -> None:
    model, _ = with_gradients()
    twin, before = with_gradients()
    limit = length(before) / 3
    norm = torch.nn.utils.clip_grad_norm_(list(twin.parameters()), limit)
    assert torch.equal(clip(model.parameters(), OptimConfig(clip_norm=limit)), norm)
    for a, b, whole in zip(gradients(model), gradients(twin), before):
        assert torch.equal(a, b)
        torch.testing.assert_close(a, whole / 3, rtol=1e-4, atol=0)


def test_each_tensor_is_clipped_by_itself() -> None:
    model, before = with_gradients()
    limit = sorted(length([each]) for each in before)[2]  # some are below it, some above
    clip(model.parameters(), OptimConfig(clip_norm=limit, clip_scope="tensor"))
    clipped = 0
    for found, whole in zip(gradients(model), before):
        factor = min(1.0, limit / (length([whole]) + 1e-6))  # repo dino, clip_gradients
        torch.testing.assert_close(found, whole * factor, rtol=1e-12, atol=0)
        clipped += factor < 0.999
    assert 0 < clipped < len(before)


@pytest.mark.parametrize("scope", ["model", "tensor"])
def test_a_model_without_gradients_has_none_to_clip(scope: Any) -> None:
    assert float(clip(parts().parameters(), OptimConfig(clip_norm=1.0, clip_scope=scope))) == 0


@pytest.mark.parametrize("scope", ["model", "tensor"])
def test_a_gradient_that_is_not_finite_is_seen_in_the_norm(scope: Any) -> None:
    model, _ = with_gradients()
    assert model.predictor.weight.grad is not None
    model.predictor.weight.grad[0, 0] = math.nan
    assert math.isnan(float(clip(model.parameters(), OptimConfig(clip_norm=1.0, clip_scope=scope))))
