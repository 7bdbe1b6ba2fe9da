"""UniGrad: its gradient as the paper writes it, three steps in loops, and what F is."""

import re
from typing import Any

import pytest
import torch
from torch import Tensor

from stopgrad.contracts import ConfigError, Views
from stopgrad.methods.settings import HeadConfig
from stopgrad.methods.unigrad import UniGradConfig, unigrad
from stopgrad.recipes import unigrad as presets
from stopgrad.siamese.family import Siamese
from stopgrad.siamese.gradients import CorrelationGradient
from stopgrad.siamese.pairs import Pairs
from stopgrad.training.loop import micro_batches
from tests.methods.test_byol import (
    HEAD,
    Rows,
    Stepper,
    Twin,
    assert_a_dropped_step_leaves_no_trace,
    assert_it_resumes,
    assert_same,
    linear,
    losses,
    normed_relu,
    slow_copies,
    total,
    unit,
)
from tests.methods.toy import batch, clock, known, trunk

WEIGHT = 5.0
BOTH = Pairs(((0, 1), (1, 0)))


def small(crops: int = 2, **changes: Any) -> Siamese:
    settings = {"projector": HEAD, "target_momentum": 0.9, "negative_weight": WEIGHT, **changes}
    return unigrad(trunk(), UniGradConfig(**settings), known(crops)).double()


def objective_of(method: Siamese) -> CorrelationGradient:
    assert isinstance(method.objective, CorrelationGradient)
    return method.objective


def spread(u: Tensor, f: Tensor) -> Tensor:
    """u'Fu"""
    return torch.stack([u[i] * f[i, j] * u[j] for i in range(len(u)) for j in range(len(u))]).sum()


def outer_mean(rows: Rows) -> Tensor:
    return total([torch.outer(unit(row), unit(row)) for row in rows]) / len(rows)


def pulled(z: Rows, t: Rows, f: Tensor, weight: float) -> Tensor:
    """-cos + weight / 2 u'Fu, mean over the images: the paper's objective, whose gradient the method has."""
    each = [-(unit(a) * unit(b)).sum() + weight / 2 * spread(unit(a), f) for a, b in zip(z, t)]
    return total(each) / len(each)


def test_three_steps_are_the_papers_written_out() -> None:
    method = small()
    twin, stepper = Twin(method), Stepper(method)

    def projected(crop: Tensor, weights: dict[str, Tensor]) -> Rows:
        rows = linear([image.flatten() for image in crop], weights, "backbone.linear")
        hidden = normed_relu(linear(rows, weights, "projector.0"), weights, "projector.1")
        return linear(hidden, weights, "projector.3")

    f = None
    for step in range(3):
        views = batch(step)
        z = [projected(crop, twin.online) for crop in views.crops]
        t = [projected(crop, twin.target) for crop in views.crops]
        now = outer_mean([*t[0], *t[1]])
        f = now if f is None else 0.99 * f + 0.01 * now  # before it is used
        expected = 0.5 * pulled(z[0], t[1], f, WEIGHT) + 0.5 * pulled(z[1], t[0], f, WEIGHT)
        loss, gradients, logs = stepper.step(step, views)
        cosine = total([(unit(a) * unit(b)).sum() for a, b in zip([*z[0], *z[1]], [*t[1], *t[0]])]) / 12
        square = total([spread(unit(a), f) for a in [*z[0], *z[1]]]) / 12
        assert logs["similarity"].item() == pytest.approx(cosine.item())
        assert logs["objective"].item() == pytest.approx(expected.item())
        assert loss == pytest.approx((-cosine + WEIGHT * square).item())  # the surrogate's value, as in the code
        assert_same(gradients, twin.step(expected))
        twin.follow(1 - 0.1 * (torch.cos(torch.tensor(torch.pi * step / 10)).item() + 1) / 2)
        slow = slow_copies(method)
        assert set(slow) == set(twin.target)
        for name, value in slow.items():
            torch.testing.assert_close(value, twin.target[name], rtol=1e-6, atol=1e-8)
        torch.testing.assert_close(objective_of(method).correlation.value, f)


def test_the_trace_of_f_is_1_and_it_has_no_negative_eigenvalue() -> None:
    method = small()
    for step in range(3):
        losses(method, range(step, step + 1))
        f = objective_of(method).correlation.value
        assert f.trace().item() == pytest.approx(1.0)
        torch.testing.assert_close(f, f.T)
        assert torch.linalg.eigvalsh(f).min() > -1e-9


def pushed(rows: Tensor, f: Tensor, weight: float) -> Tensor:
    """Gradient of the objective at `rows` where F is `f` and stays it, and the target is nearly nowhere."""
    objective = CorrelationGradient(rows.shape[1], weight, momentum=1.0).double()
    objective.correlation.value.copy_(f)
    objective.correlation.counts.fill_(True)
    z = rows.clone().requires_grad_()
    views = {0: z, 1: z}
    loss, _ = objective(views, views, {0: rows, 1: rows}, BOTH, torch.arange(len(rows)), clock())
    gradient: Tensor = torch.autograd.grad(loss, z)[0]
    return gradient


def test_where_features_lie_alike_in_all_directions_nothing_is_pushed() -> None:
    rows = torch.randn(6, 4, dtype=torch.float64)
    alike = torch.eye(4, dtype=torch.float64) / 4
    assert pushed(rows, alike, 100.0).abs().max() < 1e-12
    uneven = torch.diag(torch.tensor([0.7, 0.1, 0.1, 0.1], dtype=torch.float64))
    assert pushed(rows, uneven, 100.0).abs().max() > 0.1


def test_a_collapse_is_a_fixed_point() -> None:
    one = torch.tensor([[0.6, 0.8, 0.0]], dtype=torch.float64).expand(6, 3)
    assert pushed(one, one.T @ one / 6, 100.0).abs().max() < 1e-12


def test_f_moves_once_a_step_by_the_mean_over_its_micro_batches() -> None:
    method = small()
    losses(method, range(1))
    before = objective_of(method).correlation.value.clone()
    seen: list[Tensor] = []
    method.target.target_projector.register_forward_hook(lambda _, __, out: seen.append(out))  # type: ignore[union-attr]
    for part in micro_batches(batch(1), 2):
        method(part, clock(1))
    torch.testing.assert_close(objective_of(method).correlation.value, before)
    method.after_step(clock(1))
    expected = 0.99 * before + 0.01 * outer_mean(list(torch.cat(seen)))
    torch.testing.assert_close(objective_of(method).correlation.value, expected)


def test_local_crops_meet_both_global_targets_and_are_not_in_f() -> None:
    method, views = small(3), batch(crops=3)
    z = [method.projector(method.backbone(crop)) for crop in views.crops]
    f = outer_mean([*z[0], *z[1]]).detach()
    loss, logs = method(views, clock()).loss, method(views, clock()).logs
    expected = sum(pulled(list(z[i]), list(z[j]), f, WEIGHT).item() for i, j in ((0, 1), (1, 0), (2, 0), (2, 1))) / 4
    assert logs["objective"].item() == pytest.approx(expected)
    assert loss.isfinite()


CHANGES: list[dict[str, Any]] = [
    {"projector": HeadConfig(layers=3, hidden=12, dim=3, output_norm="none")},
    {"negative_weight": 1.0},
    {"negative_weight": 0.0},
    {"correlation_momentum": 0.5},
    {"target": "stop_gradient"},
    {"target_momentum": 0.5},
    {"cut_mix": 1.0},
    {"negatives": "online"},
    {"form": "contrastive"},
    {"form": "asymmetric"},
    {"form": "barlow_twins"},
    {"form": "barlow_twins_identity"},
    {"form": "decorrelation_target"},
    {"form": "vicreg"},
    {"form": "decorrelation_online"},
]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_every_setting_changes_what_is_computed(change: dict[str, Any]) -> None:
    assert losses(small(**change), range(3)) != losses(small(), range(3))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"negative_weight": -1.0}, "method.negative_weight must be at least 0, got -1.0; the paper uses 100"),
        ({"correlation_momentum": 1.1}, "method.correlation_momentum must be in [0, 1], got 1.1; the paper uses 0.99"),
        ({"target_momentum": 2}, "method.target_momentum must be in [0, 1], got 2; the paper uses 0.996"),
    ],
)
def test_settings_that_mean_nothing_are_errors(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        UniGradConfig(**change)


def test_the_projector_has_a_bias_and_no_norm_at_its_end_and_there_is_no_predictor() -> None:
    method = small()
    assert method.projector[3].bias is not None  # type: ignore[index]
    assert method.projector[0].bias is None  # type: ignore[index]
    assert len(method.projector) == 4  # type: ignore[arg-type]
    assert not list(method.predictor.parameters())


def test_the_gradient_reaches_the_online_side_alone() -> None:
    method, views = small(target="stop_gradient"), batch()
    crops = tuple(crop.requires_grad_() for crop in views.crops)
    z = {view: method.projector(method.backbone(crop)) for view, crop in enumerate(crops)}
    one_way = Pairs(((0, 1),))
    t = method.target(Views(crops, views.index), z, method, one_way.targets, clock())
    loss, _ = method.objective(z, z, t, one_way, views.index, clock())
    online, target = torch.autograd.grad(loss, crops, allow_unused=True)
    assert online.abs().sum() > 0
    assert target is None


def test_a_dropped_step_leaves_no_trace() -> None:
    method = small()
    losses(method, range(1))
    assert_a_dropped_step_leaves_no_trace(method)


def test_it_resumes_to_the_bit() -> None:
    assert_it_resumes(small(), small())


def test_its_row_says_what_it_is_made_of() -> None:
    row = small().parts()
    assert (row["predictor"], row["target"]) == ("none", "momentum 0.9 to 1")
    assert row["objective"] == "correlation gradient (moving average F)"


def test_the_presets_are_the_papers() -> None:
    recipe, method = presets.imagenet(), presets.imagenet().method
    assert isinstance(method, UniGradConfig)
    assert (method.negative_weight, method.correlation_momentum, method.target_momentum) == (100, 0.99, 0.996)
    assert (method.projector.layers, method.projector.dim, method.projector.output_norm) == (3, 2048, "none")
    assert recipe.optim.peak_lr(recipe.loop.batch_size) == pytest.approx(0.2)
    assert presets.cifar10().backbone.name == "resnet18"
    assert presets.scenes().backbone.name == "tiny"
