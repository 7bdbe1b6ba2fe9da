"""DirectPred: its matrix by what it has to be, and three steps written out in loops."""

import copy
import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from stopgrad.contracts import ConfigError
from stopgrad.methods.directpred import DirectPredConfig, directpred
from stopgrad.recipes import directpred as presets
from stopgrad.siamese.family import Siamese
from stopgrad.siamese.predictors import DirectPredictor, direct_copy, direct_pred, second_moment
from stopgrad.training.loop import micro_batches
from tests.methods.test_byol import (
    HEAD,
    Stepper,
    Twin,
    assert_a_dropped_step_leaves_no_trace,
    assert_it_resumes,
    assert_same,
    distances,
    linear,
    losses,
    projected,
    slow_copies,
    total,
)
from tests.methods.toy import batch, clock, known, trunk


def small(crops: int = 2, **changes: Any) -> Siamese:
    settings = {"projector": HEAD, "target_momentum": 0.9, **changes}
    return directpred(trunk(), DirectPredConfig(**settings), known(crops)).double()


def predictor_of(method: Siamese) -> DirectPredictor:
    assert isinstance(method.predictor, DirectPredictor)
    return method.predictor


def features(rows: int = 40, dim: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(rows, dim, generator=generator, dtype=torch.float64) * torch.arange(1, dim + 1) + 0.5


# --- the matrix -------------------------------------------------------------------------------------------------------


def test_the_matrix_is_the_root_of_f_scaled_to_1_plus_epsilon() -> None:
    f = second_moment(features())
    w = direct_pred(f, 0.1)
    root = w - 0.1 * torch.eye(5)
    torch.testing.assert_close(root @ root, f / torch.linalg.matrix_norm(f, 2))


def test_the_matrix_is_symmetric_commutes_with_f_and_has_eigenvalues_from_epsilon_to_1_plus_epsilon() -> None:
    thin = features(rows=3)  # F has two eigenvalues of 0, which rounding puts on either side of it
    f = second_moment(thin)
    w = direct_pred(f, 0.1)
    torch.testing.assert_close(w, w.T)
    torch.testing.assert_close(f @ w, w @ f)
    s = torch.linalg.eigvalsh(w)
    assert s[0].item() == pytest.approx(0.1)
    assert s[-1].item() == pytest.approx(1.1)


def test_without_epsilon_no_direction_is_lost_and_none_is_made_up_for_an_f_of_zeros() -> None:
    s = torch.linalg.eigvalsh(direct_pred(second_moment(features(rows=3)), 0.0))
    assert s[0].item() == pytest.approx(1e-4)
    torch.testing.assert_close(direct_pred(torch.zeros(3, 3), 0.1), 0.1 * torch.eye(3))


def test_the_copy_is_f_as_it_is() -> None:
    f = second_moment(features())
    torch.testing.assert_close(direct_copy(f, 0.2), f + 0.2 * torch.eye(5))


def test_f_is_neither_centred_nor_of_unit_rows_and_is_computed_in_float32_under_autocast() -> None:
    z = features().float()
    expected = torch.from_numpy(sum(np.outer(row, row) for row in z.double().numpy()) / len(z)).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(second_moment(z), expected)


# --- three steps ------------------------------------------------------------------------------------------------------


def written_out(f: Tensor, form: str, epsilon: float) -> Tensor:
    """Eqs. 18 and 19 with numpy, one eigenvector after the other."""
    if form == "directcopy":
        return f + epsilon * torch.eye(len(f), dtype=f.dtype)
    values, vectors = np.linalg.eigh(f.numpy())
    w = np.zeros(f.shape)
    for s, u in zip(values, vectors.T):
        w += max(np.sqrt(max(s, 0.0) / values.max()) + epsilon, 1e-4) * np.outer(u, u)
    return torch.from_numpy(w)


@pytest.mark.parametrize(("form", "every"), [("directpred", 1), ("directpred", 2), ("directcopy", 1)])
def test_three_steps_are_the_papers_written_out(form: str, every: int) -> None:
    method = small(form=form, every=every)
    twin, stepper = Twin(method), Stepper(method)
    name = "predictor.linear.weight"
    assert (name in twin.online) == (every > 1)  # with every=1 no gradient reaches it
    fixed = {name: predictor_of(method).linear.weight.detach().clone()}
    f = None
    for step in range(3):
        views = batch(step)
        z = [projected(crop, twin.online) for crop in views.crops]
        t = [projected(crop, twin.target) for crop in views.crops]
        p = [linear(rows, {**fixed, **twin.online}, "predictor.linear") for rows in z]
        expected = distances(p[0], t[1]) + distances(p[1], t[0])
        now = total([torch.outer(row, row) for row in z[0] + z[1]]).detach() / 12
        f = now if f is None else 0.3 * f + 0.7 * now
        loss, gradients, _ = stepper.step(step, views)
        assert loss == pytest.approx(expected.item(), rel=1e-9)
        assert_same(gradients, twin.step(expected))
        if step % every == 0:
            w = written_out(f, form, 0.1)
            if every == 1:
                fixed[name] = w
            else:
                twin.online[name] = w.requires_grad_()
        twin.follow(0.9)
        assert_same(slow_copies(method), twin.target)
        torch.testing.assert_close(predictor_of(method).correlation.value, f)
        torch.testing.assert_close(predictor_of(method).linear.weight.detach(), {**fixed, **twin.online}[name].detach())


def test_f_moves_once_a_step_by_the_mean_over_its_micro_batches_and_views() -> None:
    method = small()
    seen: list[Tensor] = []
    method.predictor.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    for part in micro_batches(batch(), 2):
        method(part, clock())
    method.after_step(clock())
    assert [len(z) for z in seen] == [3, 3, 3, 3]
    torch.testing.assert_close(predictor_of(method).correlation.value, second_moment(torch.cat(seen)))


def test_forward_leaves_f_and_the_matrix_as_they_are() -> None:
    method = small()
    losses(method, range(1))
    before = copy.deepcopy(predictor_of(method).state_dict())
    method(batch(1), clock(1))
    after = predictor_of(method).state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


# --- settings ---------------------------------------------------------------------------------------------------------

CHANGES: list[dict[str, Any]] = [
    {"output_bias": True},
    {"form": "directcopy"},
    {"epsilon": 0.5},
    {"correlation_momentum": 0.9},
    {"every": 2},
    {"target": "stop_gradient"},
    {"target_momentum": 0.5},
    {"target_schedule": "cosine"},
    {"pairs": "asymmetric"},
]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_every_setting_changes_what_is_computed(change: dict[str, Any]) -> None:
    assert losses(small(**change), range(4)) != losses(small(), range(4))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epsilon": -0.1}, "method.epsilon must be at least 0, got -0.1; the paper uses 0.1"),
        ({"every": 0}, "method.every must be at least 1, got 0; the paper uses 1"),
        ({"correlation_momentum": 2}, "method.correlation_momentum must be in [0, 1], got 2; the paper uses 0.3"),
        ({"target_momentum": -1}, "method.target_momentum must be in [0, 1], got -1; the paper uses 0.996"),
    ],
)
def test_settings_that_mean_nothing_are_errors(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        DirectPredConfig(**change)


@pytest.mark.parametrize("every", [1, 2])
def test_a_dropped_step_leaves_no_trace(every: int) -> None:
    method = small(every=every)
    losses(method, range(1))
    assert_a_dropped_step_leaves_no_trace(method)


@pytest.mark.parametrize("every", [1, 2])
def test_it_resumes_to_the_bit(every: int) -> None:
    assert_it_resumes(small(every=every), small(every=every))


def test_its_row_says_what_it_is_made_of() -> None:
    assert small().parts()["predictor"] == "closed form from the correlation matrix"
    assert small(every=5).parts()["predictor"] == "closed form from the correlation matrix, every 5 steps"
    assert small(form="directcopy").parts()["predictor"] == "the correlation matrix"
    assert small().parts()["target"] == "momentum 0.9"


def test_the_presets_are_the_papers() -> None:
    method = presets.cifar10().method
    assert isinstance(method, DirectPredConfig)
    assert (method.correlation_momentum, method.epsilon, method.target_momentum) == (0.3, 0.1, 0.996)
    assert presets.cifar10().optim.peak_lr(128) == pytest.approx(0.03)
    for crop in presets.cifar10().views.crops:  # data/transforms.py
        assert (crop.scale, crop.saturation, crop.hue, crop.blur) == ((0.08, 1.0), 0.4, 0.1, 0.0)
    assert (presets.imagenet().loop.epochs, presets.imagenet().optim.base_lr) == (300, 0.3)
    assert presets.scenes().backbone.name == "tiny"
