"""BYOL against section 3.1 of the paper, written out in loops; the loops serve DirectPred and UniGrad as well."""

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from stopgrad.contracts import ConfigError, Views
from stopgrad.methods.byol import BYOLConfig, byol
from stopgrad.methods.settings import HeadConfig
from stopgrad.nn.batch_norm import statistics
from stopgrad.nn.heads import SymmetricLinear
from stopgrad.optim.config import OptimConfig
from stopgrad.optim.groups import build_optimiser, set_rates
from stopgrad.recipes import byol as presets
from stopgrad.siamese.family import Siamese
from stopgrad.siamese.targets import Momentum
from stopgrad.training.loop import micro_batches
from stopgrad.views.presets import PRESETS as VIEWS
from tests.methods.toy import batch, clock, known, trunk

Rows = Sequence[Tensor]  # one vector an image
RATE = 0.05
HEAD = HeadConfig(layers=2, hidden=12, dim=3, output_norm="none")  # so wide that no row is cut to 0 by the ReLU


def small(crops: int = 2, **changes: Any) -> Siamese:
    settings = {"projector": HEAD, "predictor_hidden": 9, "target_momentum": 0.9, **changes}
    return byol(trunk(), BYOLConfig(**settings), known(crops)).double()


# --- the loops --------------------------------------------------------------------------------------------------------


def linear(rows: Rows, weights: Mapping[str, Tensor], name: str) -> list[Tensor]:
    weight, bias = weights[f"{name}.weight"], weights.get(f"{name}.bias")
    made = [torch.stack([(line * row).sum() for line in weight]) for row in rows]
    return made if bias is None else [row + bias for row in made]


def normed_relu(rows: Rows, weights: Mapping[str, Tensor], name: str) -> list[Tensor]:
    """Batch norm with the batch's own statistics, then ReLU."""
    mean = total(rows) / len(rows)
    variance = total([(row - mean) ** 2 for row in rows]) / len(rows)
    normed = [(row - mean) / (variance + 1e-5) ** 0.5 for row in rows]
    affine = [row * weights[f"{name}.weight"] + weights[f"{name}.bias"] for row in normed]
    return [row * (row > 0) for row in affine]


def total(rows: Rows) -> Tensor:
    added = torch.zeros_like(rows[0])
    for row in rows:
        added = added + row
    return added


def mlp_of_two(rows: Rows, weights: Mapping[str, Tensor], name: str) -> list[Tensor]:
    return linear(normed_relu(linear(rows, weights, f"{name}.0"), weights, f"{name}.1"), weights, f"{name}.3")


def projected(crop: Tensor, weights: Mapping[str, Tensor]) -> list[Tensor]:
    rows = [image.flatten() for image in crop]
    return mlp_of_two(linear(rows, weights, "backbone.linear"), weights, "projector")


def unit(row: Tensor) -> Tensor:
    return row / (row**2).sum() ** 0.5


def distances(p: Rows, t: Rows) -> Tensor:
    """Squared distance of unit vectors, mean over the images."""
    return total([((unit(a) - unit(b)) ** 2).sum() for a, b in zip(p, t)]) / len(p)


class Twin:
    """The weights of a method, moved by nothing but the loops: plain gradient descent and the target's average."""

    def __init__(self, method: Siamese) -> None:
        self.online = {
            name: parameter.detach().clone().requires_grad_()
            for name, parameter in method.named_parameters()
            if parameter.requires_grad
        }
        self.target = {
            name: value.detach().clone() for name, value in self.online.items() if not name.startswith("predictor")
        }

    def step(self, loss: Tensor) -> dict[str, Tensor]:
        """Returns the gradients."""
        gradients = torch.autograd.grad(loss, list(self.online.values()))
        with torch.no_grad():
            for value, gradient in zip(self.online.values(), gradients):
                value -= RATE * gradient
        return dict(zip(self.online, gradients))

    def follow(self, m: float) -> None:
        for name, slow in self.target.items():
            self.target[name] = m * slow + (1 - m) * self.online[name].detach()


class Stepper:
    """The method itself, with torch's SGD at the same rate."""

    def __init__(self, method: Siamese) -> None:
        self.method = method
        self.optimiser = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=RATE)

    def step(self, step: int, views: Views) -> tuple[float, dict[str, Tensor], dict[str, Tensor]]:
        """Returns the loss, the gradients and the logs of a step that was taken."""
        out = self.method(views, clock(step))
        self.optimiser.zero_grad()
        out.loss.backward()
        gradients = {name: p.grad.clone() for name, p in self.method.named_parameters() if p.grad is not None}
        self.optimiser.step()
        self.method.after_step(clock(step))
        return out.loss.item(), gradients, dict(out.logs)


def losses(method: Siamese, steps: range) -> list[float]:
    stepper = Stepper(method)
    return [stepper.step(step, batch(step, method.pairs.views))[0] for step in steps]


def assert_same(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> None:
    assert set(ours) == set(theirs)
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], rtol=1e-7, atol=1e-10)


def slow_copies(method: Siamese) -> dict[str, Tensor]:
    """The target's parameters by the names the online ones have."""
    return {
        name.removeprefix("target.target_"): parameter.detach()
        for name, parameter in method.named_parameters()
        if name.startswith("target.")
    }


def remembered(method: Siamese) -> dict[str, Tensor]:
    """The state but for batch norm's statistics, which the loop puts back itself."""
    moved = {id(buffer) for buffer in statistics(method)}
    state = method.state_dict(keep_vars=True)
    return {name: value.detach().clone() for name, value in state.items() if id(value) not in moved}


def assert_a_dropped_step_leaves_no_trace(method: Siamese) -> None:
    """Two micro-batches, then `discard`: nothing has changed, and the next step is that of one that never saw them."""
    twin, before = copy.deepcopy(method), remembered(method)
    for part in micro_batches(batch(5), 2):
        method(part, clock(1))
    method.discard()
    after = remembered(method)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert losses(method, range(1, 3)) == losses(twin, range(1, 3))
    after, expected = remembered(method), remembered(twin)
    assert all(torch.equal(expected[name], after[name]) for name in expected)


def assert_it_resumes(method: Siamese, twin: Siamese) -> None:
    """Loaded into another one, the state gives the same losses to the bit."""
    losses(method, range(2))
    twin.load_state_dict(method.state_dict())
    assert losses(method, range(2, 5)) == losses(twin, range(2, 5))


# --- the method -------------------------------------------------------------------------------------------------------


def test_three_steps_are_the_papers_written_out() -> None:
    method = small()
    twin, stepper = Twin(method), Stepper(method)
    for step in range(3):
        views = batch(step)
        p, t = [], []
        for crop in views.crops:
            p.append(mlp_of_two(projected(crop, twin.online), twin.online, "predictor"))
            t.append(projected(crop, twin.target))
        expected = distances(p[0], t[1]) + distances(p[1], t[0])
        loss, gradients, _ = stepper.step(step, views)
        assert loss == pytest.approx(expected.item(), rel=1e-9)
        assert_same(gradients, twin.step(expected))
        twin.follow(1 - (1 - 0.9) * (math.cos(math.pi * step / 10) + 1) / 2)
        assert_same(slow_copies(method), twin.target)


def test_the_loss_is_between_0_and_8_and_0_where_predictions_meet_their_targets() -> None:
    method, views = small(predictor="none"), batch()
    same = Views((views.crops[0], views.crops[0]), views.index)
    assert method(same, clock()).loss.item() == pytest.approx(0.0, abs=1e-12)  # the target still is the network
    with torch.no_grad():
        method.projector[3].weight.neg_()  # type: ignore[index]
    assert method(same, clock()).loss.item() == pytest.approx(8.0)


def test_the_targets_parameters_have_no_gradient_and_its_statistics_are_its_own() -> None:
    method = small()
    losses(method, range(3))
    target = method.target
    assert isinstance(target, Momentum)
    assert all(not p.requires_grad and p.grad is None for p in target.parameters())
    online, slow = method.projector[1].running_mean, target.target_projector[1].running_mean  # type: ignore[index]
    assert not torch.equal(online, slow)


def test_a_momentum_of_1_freezes_the_target() -> None:
    frozen = small(target_momentum=1.0)
    before = slow_copies(frozen)
    before = {name: value.clone() for name, value in before.items()}
    losses(frozen, range(2))
    assert all(torch.equal(value, before[name]) for name, value in slow_copies(frozen).items())


def test_biases_stand_where_the_reference_has_them() -> None:
    method = small()
    for head in (method.projector, method.predictor):
        assert head[0].bias is not None  # type: ignore[index]
        assert head[3].bias is None  # type: ignore[index]
        assert len(head) == 4  # type: ignore[arg-type]


def test_without_a_slow_copy_the_target_is_the_projection_with_or_without_its_gradient() -> None:
    views = batch()
    expected = None
    gradients = {}
    for target in ("stop_gradient", "shared"):
        method = small(target=target)
        loss = method(views, clock()).loss
        expected = expected or loss.item()
        assert loss.item() == pytest.approx(expected)
        gradients[target] = torch.autograd.grad(loss, method.projector[3].weight)[0]  # type: ignore[index]
    assert not torch.allclose(gradients["stop_gradient"], gradients["shared"])


def test_of_more_crops_the_two_directions_are_added_and_local_crops_averaged_in() -> None:
    method, views = small(3), batch(crops=3)
    z = [method.projector(method.backbone(crop)) for crop in views.crops]
    p = [method.predictor(row) for row in z]
    pairs = ((0, 1), (1, 0), (2, 0), (2, 1))
    expected = 2 * total([distances(list(p[i]), list(z[j])) for i, j in pairs]) / 4
    assert method(views, clock()).loss.item() == pytest.approx(expected.item(), rel=1e-9)


def test_one_direction_alone_is_not_doubled() -> None:
    method, views = small(pairs="asymmetric"), batch()
    z = [method.projector(method.backbone(crop)) for crop in views.crops]
    expected = distances(list(method.predictor(z[0])), list(z[1]))
    assert method(views, clock()).loss.item() == pytest.approx(expected.item(), rel=1e-9)


CHANGES: list[dict[str, Any]] = [
    {"projector": HeadConfig(layers=1, hidden=12, dim=3, output_norm="none")},
    {"projector": HeadConfig(layers=2, hidden=13, dim=3, output_norm="none")},
    {"projector": HeadConfig(layers=2, hidden=12, dim=4, output_norm="none")},
    {"projector": HeadConfig(layers=2, hidden=12, dim=3, norm="none", output_norm="none")},
    {"projector": HeadConfig(layers=2, hidden=12, dim=3, output_norm="batch")},
    {"predictor": "none"},
    {"predictor": "linear"},
    {"predictor": "symmetric"},
    {"predictor_norm": "group"},
    {"predictor_hidden": 5},
    {"predictor_norm": "none"},
    {"predictor_norm": "layer"},
    {"target": "stop_gradient"},
    {"target": "shared"},
    {"target_momentum": 0.5},
    {"pairs": "asymmetric"},
]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_every_setting_changes_what_is_computed(change: dict[str, Any]) -> None:
    assert losses(small(**change), range(3)) != losses(small(), range(3))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"predictor_hidden": 0}, "method.predictor_hidden must be at least 1, got 0; the paper uses 4096"),
        ({"predictor_rate": 0.0}, "method.predictor_rate must be above 0, got 0.0"),
        ({"target_momentum": 1.5}, r"method.target_momentum must be in \[0, 1\], got 1.5; the paper uses 0.996"),
    ],
)
def test_settings_that_mean_nothing_are_errors(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        BYOLConfig(**change)


def test_one_crop_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"views\.crops: byol compares 2 views, got 1; add one"):
        BYOLConfig().check(known(1))


def test_a_dropped_step_leaves_no_trace() -> None:
    method = small()
    losses(method, range(1))
    assert_a_dropped_step_leaves_no_trace(method)


def test_it_resumes_to_the_bit() -> None:
    assert_it_resumes(small(), small())


def test_its_row_says_what_it_is_made_of() -> None:
    row = small().parts()
    assert (row["predictor"], row["target"]) == ("MLP", "momentum 0.9 to 1")
    assert (row["objective"], row["pairs"]) == ("squared distance of unit vectors", "(0,1) (1,0)")


def test_the_presets_are_the_papers() -> None:
    recipe = presets.imagenet()
    method = recipe.method
    assert isinstance(method, BYOLConfig)
    assert (method.projector.hidden, method.projector.dim, method.predictor_hidden) == (4096, 256, 4096)
    assert (method.target_momentum, BYOLConfig().target_momentum) == (0.99, 0.996)
    assert (recipe.loop.epochs, recipe.loop.batch_size, recipe.optim.base_lr) == (100, 4096, 0.45)
    assert (recipe.optim.name, recipe.optim.exclude_1d, recipe.optim.trust_clip) == ("lars", True, False)
    assert presets.cifar10().optim.trust_clip
    assert presets.cifar10().views.crops == VIEWS["byol_cifar"]
    assert presets.scenes().backbone.name == "tiny"


def test_a_raised_rate_is_the_predictor_s_alone() -> None:
    assert small().rates() == {}
    method = small(predictor_rate=10.0)
    config = OptimConfig(base_lr=0.1, weight_decay=0.0, momentum=0.0)
    optimiser = build_optimiser(method, config, 256, method.constant_lr(), method.undecayed(), method.rates())
    set_rates(optimiser, config, 256, clock(0))
    rates = {id(p): group["lr"] for group in optimiser.param_groups for p in group["params"]}
    for name, parameter in method.named_parameters():
        if parameter.requires_grad:
            assert rates[id(parameter)] == pytest.approx(1.0 if name.startswith("predictor.") else 0.1), name


def test_one_matrix_predicts_and_the_symmetric_one_stays_so() -> None:
    method = small(predictor="symmetric")
    z = torch.randn(4, 3, dtype=torch.float64)
    losses(method, range(3))
    predictor = method.predictor
    assert isinstance(predictor, SymmetricLinear)
    torch.testing.assert_close(predictor(z), z @ predictor.matrix)  # W z and W^T z are the same
    assert not torch.allclose(predictor.weight, predictor.weight.T)
    linear = small(predictor="linear")
    assert (linear.parts()["predictor"], method.parts()["predictor"]) == ("a matrix", "a symmetric matrix")
    assert [name for name, _ in linear.predictor.named_parameters()] == ["weight"]
