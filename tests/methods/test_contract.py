"""What every method in METHODS promises; a new one is tested by being listed."""

from typing import Any

import pytest
import torch

from stopgrad.contracts import Clock, Known, Views
from stopgrad.method import Method
from stopgrad.methods import METHODS
from stopgrad.nn.backbones import build_backbone
from stopgrad.nn.config import BackboneConfig
from stopgrad.recipe.typed import build

SMALL: dict[str, dict[str, Any]] = {
    "simsiam": {"projector": {"hidden": 16, "dim": 16}, "predictor_hidden": 4},
}


def small(name: str, **changes: Any) -> Method:
    builder, config = METHODS[name]
    torch.manual_seed(0)
    backbone = build_backbone(BackboneConfig(width=8), 3, 16, seed=0)
    known = Known(crops=(16, 16), batch_size=8, accumulate=1, backbone="tiny", images=64)
    method: Method = builder(backbone, build(config, {**SMALL[name], **changes}), known)
    return method


def batch(seed: int = 0, b: int = 8) -> Views:
    generator = torch.Generator().manual_seed(seed)
    return Views(tuple(torch.randn(b, 3, 16, 16, generator=generator) for _ in range(2)), torch.arange(b))


def train_steps(method: Method, steps: range) -> list[float]:
    optimiser = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.05)
    losses = []
    for step in steps:
        clock = Clock(step, 10, 5)
        out = method(batch(step), clock)
        optimiser.zero_grad()
        out.loss.backward()
        optimiser.step()
        method.after_step(clock)
        losses.append(out.loss.item())
    return losses


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_small_enough_to_be_tested_here(name: str) -> None:
    assert name in SMALL, f"add small settings for {name}, so that its contract is tested"


@pytest.mark.parametrize("name", METHODS)
def test_a_restored_method_continues_exactly(name: str) -> None:
    method, twin = small(name), small(name)
    train_steps(method, range(2))
    twin.load_state_dict(method.state_dict())
    assert train_steps(method, range(2, 5)) == train_steps(twin, range(2, 5))


@pytest.mark.parametrize("name", METHODS)
def test_the_trunk_and_the_projection_are_plain_vectors(name: str) -> None:
    method = small(name)
    h, z = method.embed(batch().crops[0])
    assert h.shape == (8, method.backbone.dim)
    assert z.ndim == 2
    assert list(method.trunks()) == ["backbone"]


@pytest.mark.parametrize("name", METHODS)
def test_the_output_carries_a_scalar_loss_and_a_detached_embedding(name: str) -> None:
    out = small(name)(batch(), Clock(0, 10, 5))
    assert out.loss.shape == ()
    assert out.loss.requires_grad
    assert not out.embedding.requires_grad


@pytest.mark.parametrize("name", METHODS)
def test_views_carry_no_label_for_a_method_to_read(name: str) -> None:
    assert set(Views.__dataclass_fields__) == {"crops", "index"}
    assert small(name)(batch(), Clock(0, 10, 5)).loss.isfinite()


SIMSIAM_CHANGES: list[dict[str, Any]] = [
    {"projector": {"layers": 1, "hidden": 16, "dim": 16}},
    {"projector": {"hidden": 8, "dim": 16}},
    {"projector": {"hidden": 16, "dim": 8}},
    {"projector": {"hidden": 16, "dim": 16, "norm": "none"}},
    {"projector": {"hidden": 16, "dim": 16, "output_norm": "none"}},
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
]


@pytest.mark.parametrize("change", SIMSIAM_CHANGES, ids=str)
def test_every_setting_of_simsiam_changes_what_is_computed(change: dict[str, Any]) -> None:
    reference = {"target": "momentum"} if "target_momentum" in change else {}
    assert train_steps(small("simsiam", **change), range(3)) != train_steps(small("simsiam", **reference), range(3))


def test_the_predictors_rate_is_constant_only_when_asked() -> None:
    assert small("simsiam").constant_lr() == ("predictor.",)
    assert small("simsiam", predictor_lr="decayed").constant_lr() == ()


def test_a_frozen_predictor_is_not_trained() -> None:
    method = small("simsiam", predictor="frozen")
    before = [parameter.clone() for parameter in method.predictor.parameters()]  # type: ignore[union-attr]
    train_steps(method, range(2))
    after = list(method.predictor.parameters())  # type: ignore[union-attr]
    assert all(torch.equal(a, b) for a, b in zip(before, after))
