"""VICReg against the paper's equations, written out in loops."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from stopgrad.contracts import ConfigError
from stopgrad.methods.settings import HeadConfig
from stopgrad.methods.vicreg import VICRegConfig, vicreg
from stopgrad.recipes import vicreg as presets
from stopgrad.siamese.family import Siamese
from tests.methods.toy import batch, clock, gradients, known, trunk


def small(crops: int = 2, **changes: Any) -> Siamese:
    head = HeadConfig(layers=2, hidden=5, dim=3, output_norm="none")
    return vicreg(trunk(), VICRegConfig(**{"projector": head, **changes}), known(crops)).double()


def by_loops(z0: Tensor, z1: Tensor, code: bool) -> Tensor:
    """Equations 1 to 6 with 25, 25, 1; code: as the released code reads them."""
    count, channels = z0.shape
    invariance: Any = 0.0
    for b in range(count):
        for c in range(channels):
            invariance = invariance + (z0[b, c] - z1[b, c]) ** 2 / count
    variance: Any = 0.0
    covariance: Any = 0.0
    for z in (z0, z1):
        mean = [sum(z[b, c] for b in range(count)) / count for c in range(channels)]
        for i in range(channels):
            for j in range(channels):
                c_ij = sum((z[b, i] - mean[i]) * (z[b, j] - mean[j]) for b in range(count)) / (count - 1)
                if i == j:
                    variance = variance + torch.clamp(1 - (c_ij + 1e-4) ** 0.5, min=0) / channels
                else:
                    covariance = covariance + c_ij**2 / channels
    if code:
        invariance, variance = invariance / channels, variance / 2
    return 25 * invariance + 25 * variance + covariance  # type: ignore[no-any-return]


@pytest.mark.parametrize("reading", ["paper", "code"])
def test_loss_and_gradients_are_the_equations_written_out(reading: str) -> None:
    method = small(reading=reading)
    for step in range(2):
        views = batch(step)
        z0, z1 = (method.projector(method.backbone(crop)) for crop in views.crops)
        expected = by_loops(z0, z1, reading == "code")
        ours = method(views, clock(step)).loss
        assert ours.item() == pytest.approx(expected.item(), rel=1e-9)
        theirs = gradients(expected, method)
        for name, gradient in gradients(ours, method).items():
            torch.testing.assert_close(gradient, theirs[name], rtol=1e-6, atol=1e-10)


def test_a_collapsed_batch_costs_24_75_as_the_code_reads_it_and_has_no_gradient() -> None:
    method = small(reading="code")
    with torch.no_grad():
        for parameter in method.projector.parameters():
            parameter.zero_()
    loss = method(batch(), clock()).loss
    assert loss.item() == pytest.approx(24.75)
    assert all(gradient.abs().max() < 1e-12 for gradient in gradients(loss, method).values())


def test_gradient_flows_into_both_views_and_swapping_them_changes_nothing() -> None:
    method, views = small(), batch()
    crops = [crop.requires_grad_() for crop in views.crops]
    loss = method(views, clock()).loss
    loss.backward()
    assert all(crop.grad is not None and crop.grad.abs().sum() > 0 for crop in crops)
    swapped = type(views)((views.crops[1], views.crops[0]), views.index)
    assert method(swapped, clock()).loss.item() == pytest.approx(loss.item(), rel=1e-9)


@pytest.mark.parametrize(
    "change", [{"invariance": 1.0}, {"variance": 1.0}, {"covariance": 25.0}, {"reading": "code"}], ids=str
)
def test_every_setting_changes_what_is_computed(change: dict[str, Any]) -> None:
    assert not math.isclose(small(**change)(batch(), clock()).loss.item(), small()(batch(), clock()).loss.item())


@pytest.mark.parametrize("name", ["invariance", "variance", "covariance"])
def test_a_negative_weight_is_an_error(name: str) -> None:
    with pytest.raises(ConfigError, match=f"method.{name} must be at least 0, got -1"):
        VICRegConfig(**{name: -1.0})  # type: ignore[arg-type]


def test_the_presets_take_the_codes_reading_whose_numbers_they_quote() -> None:
    for preset in (presets.scenes, presets.cifar10, presets.imagenet):
        assert preset().method.reading == "code"  # type: ignore[attr-defined]
    assert VICRegConfig().reading == "paper"


def test_the_cifar_preset_weighs_as_solo_learn_whose_variance_is_not_halved() -> None:
    recipe = presets.cifar10()
    method = recipe.method
    assert isinstance(method, VICRegConfig)
    assert (method.invariance, method.variance / 2, method.covariance) == (25, 25, 1)
    for crop in recipe.views.crops:
        assert (crop.scale, crop.saturation, crop.blur, crop.solarize) == ((0.2, 1.0), 0.2, 0.0, 0.1)
