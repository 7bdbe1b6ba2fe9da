"""Barlow Twins against the paper's Algorithm 1, written out in loops."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from stopgrad.contracts import ConfigError
from stopgrad.methods.barlow_twins import BarlowTwinsConfig, barlow_twins
from stopgrad.methods.settings import HeadConfig
from stopgrad.recipes import barlow_twins as presets
from stopgrad.siamese.family import Siamese
from stopgrad.views.presets import PRESETS as VIEWS
from tests.methods.toy import batch, clock, gradients, known, trunk


def small(crops: int = 2, **changes: Any) -> Siamese:
    head = HeadConfig(layers=2, hidden=5, dim=3, output_norm="none")
    backbone = trunk()
    return barlow_twins(backbone, BarlowTwinsConfig(**{"projector": head, **changes}), known(crops)).double()


def by_loops(z0: Tensor, z1: Tensor, weight: float) -> Tensor:
    """Algorithm 1: normalise along the batch, correlate, on the diagonal 1 and elsewhere 0."""
    count, channels = z0.shape

    def standardised(z: Tensor) -> list[list[Tensor]]:
        columns = []
        for c in range(channels):
            mean = sum(z[b, c] for b in range(count)) / count
            variance = sum((z[b, c] - mean) ** 2 for b in range(count)) / count
            columns.append([(z[b, c] - mean) / (variance + 1e-5) ** 0.5 for b in range(count)])
        return columns

    a, b = standardised(z0), standardised(z1)
    loss = torch.zeros((), dtype=torch.float64)
    for i in range(channels):
        for j in range(channels):
            c_ij = sum(a[i][n] * b[j][n] for n in range(count)) / count
            loss = loss + ((1 - c_ij) ** 2 if i == j else weight * c_ij**2)
    return loss


def test_loss_and_gradients_are_algorithm_1_written_out() -> None:
    method = small(off_diagonal_weight=0.3)
    for step in range(2):
        views = batch(step)
        z0, z1 = (method.projector(method.backbone(crop)) for crop in views.crops)
        expected = by_loops(z0, z1, 0.3)
        ours = method(views, clock(step)).loss
        assert ours.item() == pytest.approx(expected.item(), rel=1e-9)
        theirs = gradients(expected, method)
        for name, gradient in gradients(ours, method).items():
            torch.testing.assert_close(gradient, theirs[name], rtol=1e-6, atol=1e-10)


def test_gradient_flows_into_both_views_and_swapping_them_changes_nothing() -> None:
    method, views = small(), batch()
    crops = [crop.requires_grad_() for crop in views.crops]
    loss = method(views, clock()).loss
    loss.backward()
    assert all(crop.grad is not None and crop.grad.abs().sum() > 0 for crop in crops)
    swapped = type(views)((views.crops[1], views.crops[0]), views.index)
    assert method(swapped, clock()).loss.item() == pytest.approx(loss.item(), rel=1e-9)


def test_constant_outputs_cost_the_number_of_channels() -> None:
    method = small()
    with torch.no_grad():
        for parameter in method.projector.parameters():
            parameter.zero_()
    assert method(batch(), clock()).loss.item() == pytest.approx(3.0)


def test_equal_views_cost_nothing_on_the_diagonal() -> None:
    method, views = small(off_diagonal_weight=1e-12), batch()
    same = type(views)((views.crops[0], views.crops[0]), views.index)
    assert method(same, clock()).loss.item() == pytest.approx(0.0, abs=1e-7)


def test_a_local_crop_is_compared_with_both_global_ones() -> None:
    method, views = small(3), batch(crops=3)
    z = [method.projector(method.backbone(crop)) for crop in views.crops]
    expected = sum(by_loops(z[i], z[j], 0.005) for i, j in ((0, 1), (0, 2), (1, 2))) / 3
    assert method(views, clock()).loss.item() == pytest.approx(float(expected.detach()), rel=1e-9)


@pytest.mark.parametrize("change", [{"off_diagonal_weight": 0.5}, {"loss_weight": 0.1}], ids=str)
def test_every_setting_changes_what_is_computed(change: dict[str, Any]) -> None:
    assert not math.isclose(small(**change)(batch(), clock()).loss.item(), small()(batch(), clock()).loss.item())


@pytest.mark.parametrize("name", ["off_diagonal_weight", "loss_weight"])
def test_a_weight_of_zero_is_an_error(name: str) -> None:
    with pytest.raises(ConfigError, match=f"method.{name} must be above 0, got 0"):
        BarlowTwinsConfig(**{name: 0.0})  # type: ignore[arg-type]


def test_one_channel_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"projector.dim must be at least 2, got 1: .*; the paper uses 8192"):
        BarlowTwinsConfig(projector=HeadConfig(layers=2, hidden=4, dim=1, output_norm="none"))


def test_the_presets_are_the_papers() -> None:
    recipe = presets.imagenet()
    assert (recipe.loop.batch_size, recipe.loop.epochs, recipe.method.projector.dim) == (2048, 1000, 8192)  # type: ignore[attr-defined]
    assert recipe.optim.base_lr * recipe.optim.rate_1d == pytest.approx(0.0048)
    assert presets.cifar10().optim.name == "lars"
    assert presets.cifar10().views.crops == VIEWS["byol_cifar"]
    assert presets.cifar10().method.off_diagonal_weight == 0.0051  # type: ignore[attr-defined]  # solo-learn's
    assert presets.scenes().backbone.name == "tiny"
