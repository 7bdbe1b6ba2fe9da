"""SwAV against section 3 of its paper, written out in loops; its queue, its frozen prototypes, its processes."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stopgrad.contracts import ConfigError, Views
from stopgrad.methods.settings import HeadConfig
from stopgrad.methods.swav import SwAVConfig, swav
from stopgrad.recipe.typed import build
from stopgrad.recipes import swav as presets
from stopgrad.siamese.assignment import SwappedAssignment
from stopgrad.siamese.family import Siamese
from stopgrad.views.presets import PRESETS as VIEWS
from tests.methods.toy import batch, clock, known, trunk

K = 4
SMALL = {"prototypes": K, "projector": {"hidden": 5, "dim": 3, "norm": "none"}}
QUEUED = {"queue_size": 13, "queue_from_epoch": 1}  # 13 is no multiple of the batch, 6; the first epoch has 5 steps


def small(crops: int = 2, **changes: Any) -> Siamese:
    config = build(SwAVConfig, {**SMALL, **changes})
    config.check(known(crops))
    method = swav(trunk(), config, known(crops)).double()
    objective_of(method).prototypes.normalise()  # to a unit of float64
    return method


def objective_of(method: Siamese) -> SwappedAssignment:
    assert isinstance(method.objective, SwappedAssignment)
    return method.objective


def train(method: Siamese, steps: range, crops: int = 2) -> list[float]:
    optimiser = torch.optim.SGD(method.parameters(), lr=0.1, momentum=0.9)
    losses = []
    for step in steps:
        loss = method(batch(step, crops), clock(step)).loss
        optimiser.zero_grad()
        loss.backward()
        method.before_step(clock(step))
        optimiser.step()
        method.after_step(clock(step))
        losses.append(loss.item())
    return losses


def forward_by_loops(weights: dict[str, Tensor], crop: Tensor) -> list[Tensor]:
    """Unit features of one crop, [B] of [D]."""
    rows = []
    for x in crop.flatten(1):
        h = weights["backbone.linear.weight"] @ x + weights["backbone.linear.bias"]
        hidden = weights["projector.0.weight"] @ h + weights["projector.0.bias"]
        z = weights["projector.2.weight"] @ hidden.clamp(min=0) + weights["projector.2.bias"]
        rows.append(z / (z * z).sum() ** 0.5)
    return rows


def codes_by_loops(scores: list[list[Tensor]], epsilon: float, iterations: int) -> list[list[Tensor]]:
    """Section 7.6 of the reference: scores of N images, K each -> codes of N images."""
    n = len(scores)
    q = [[torch.exp(scores[i][k] / epsilon) for i in range(n)] for k in range(K)]  # K x N, as in the paper
    total = sum(sum(row) for row in q)
    q = [[value / total for value in row] for row in q]
    for _ in range(iterations):
        sums = [sum(row) for row in q]
        q = [[value / sums[k] / K for value in q[k]] for k in range(K)]
        of_image = [sum(q[k][i] for k in range(K)) for i in range(n)]
        q = [[q[k][i] / of_image[i] / n for i in range(n)] for k in range(K)]
    return [[q[k][i] * n for k in range(K)] for i in range(n)]


def loss_by_loops(
    weights: dict[str, Tensor], views: Views, queues: list[list[Tensor]], flow: bool
) -> tuple[Tensor, list[list[Tensor]]]:
    """1/2 sum over global crops i of the mean over the other crops v of -sum_k q_i log p_v; and all features."""
    prototypes = weights["objective.prototypes.weight"]
    features = [forward_by_loops(weights, crop) for crop in views.crops]
    scores = [[[prototype @ z for prototype in prototypes] for z in rows] for rows in features]
    loss: Any = 0.0
    for i in (0, 1):
        earlier = [[prototype @ z for prototype in prototypes] for z in queues[i]]
        q = codes_by_loops(earlier + scores[i], epsilon=0.05, iterations=3)[len(earlier) :]
        others = [v for v in range(len(views.crops)) if v != i]
        for v in others:
            for b in range(len(views.index)):
                denominator: Any = sum(torch.exp(s / 0.1) for s in scores[v][b])
                for k in range(K):
                    wanted = q[b][k] if flow else q[b][k].detach()
                    log_p = scores[v][b][k] / 0.1 - torch.log(denominator)
                    loss = loss - wanted * log_p / len(views.index) / len(others) / 2
    return loss, features


@pytest.mark.parametrize(
    ("crops", "codes", "queue"), [(2, "stop", {}), (4, "stop", {}), (4, "stop", QUEUED), (3, "flow", QUEUED)]
)
def test_losses_gradients_weights_and_queues_are_the_papers_written_out(
    crops: int, codes: str, queue: dict[str, int]
) -> None:
    method = small(crops, codes=codes, **queue)
    optimiser = torch.optim.SGD(method.parameters(), lr=0.1, momentum=0.9)
    weights = {name: p.detach().clone().requires_grad_() for name, p in method.named_parameters()}
    velocity: dict[str, Tensor] = {}
    remembered: list[list[Tensor]] = [[], []]
    for step in range(3, 10):  # prototypes frozen until 5, queue remembered from 5, full after 7, wrapped at 8
        full = bool(queue) and len(remembered[0]) >= 13
        views = batch(step, crops)
        expected, features = loss_by_loops(weights, views, remembered if full else [[], []], codes == "flow")
        theirs = dict(zip(weights, torch.autograd.grad(expected, list(weights.values()))))
        loss = method(views, clock(step)).loss
        optimiser.zero_grad()
        loss.backward()
        assert loss.item() == pytest.approx(expected.item(), rel=1e-9)
        for name, parameter in method.named_parameters():
            torch.testing.assert_close(parameter.grad, theirs[name], rtol=1e-6, atol=1e-10)
        method.before_step(clock(step))
        optimiser.step()
        method.after_step(clock(step))
        for name, weight in weights.items():
            if "prototypes" in name and step < 5:
                continue
            velocity[name] = 0.9 * velocity[name] + theirs[name] if name in velocity else theirs[name]
            weights[name] = (weight.detach() - 0.1 * velocity[name]).requires_grad_()
        rows = weights["objective.prototypes.weight"].detach()
        unit = torch.stack([row / (row * row).sum() ** 0.5 for row in rows])
        weights["objective.prototypes.weight"] = unit.requires_grad_()
        if queue and step >= 5:
            for i in (0, 1):
                remembered[i] = [*remembered[i], *(z.detach() for z in features[i])][-13:]
    for name, parameter in method.named_parameters():
        torch.testing.assert_close(parameter.detach(), weights[name].detach(), rtol=1e-6, atol=1e-10)
    objective = objective_of(method)
    assert len(objective.queues) == (2 if queue else 0)
    for ours, kept in zip(objective.queues, remembered):
        oldest_first = ours.keys.roll(-int(ours.cursor), dims=0)  # type: ignore[operator,arg-type]
        torch.testing.assert_close(oldest_first, torch.stack(kept), rtol=1e-6, atol=1e-10)


@pytest.mark.parametrize("codes", ["stop", "flow"])
def test_a_predictor_is_in_what_predicts_and_not_in_what_is_assigned(codes: str) -> None:
    method, views = small(codes=codes, predictor="mlp", predictor_hidden=4), batch()
    rows = list(objective_of(method).prototypes.weight)
    z = [method.projector(method.backbone(crop)) for crop in views.crops]
    p = [method.predictor(vectors) for vectors in z]

    def scores(vectors: Tensor) -> list[list[Tensor]]:
        return [[row @ v / (v * v).sum() ** 0.5 for row in rows] for v in vectors]

    expected: Any = 0.0
    for i in (0, 1):
        q = codes_by_loops(scores(z[i]), epsilon=0.05, iterations=3)
        for b, of_image in enumerate(scores(p[1 - i])):
            denominator: Any = sum(torch.exp(s / 0.1) for s in of_image)
            for k in range(K):
                wanted = q[b][k] if codes == "flow" else q[b][k].detach()
                expected = expected - wanted * (of_image[k] / 0.1 - torch.log(denominator)) / 6 / 2
    trained = list(method.parameters())
    loss = method(views, clock()).loss
    assert loss.item() == pytest.approx(expected.item(), rel=1e-9)
    ours = torch.autograd.grad(loss, trained, retain_graph=True)
    for a, b in zip(ours, torch.autograd.grad(expected, trained), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-10)


def test_equal_images_cost_ln_k_with_even_codes_and_nothing_to_learn_of_them() -> None:
    method = small()
    views = Views((batch().crops[0][:1].expand(6, -1, -1, -1),) * 2, torch.arange(6))
    with torch.no_grad():  # every prototype alike too: the collapse its authors warn of
        objective_of(method).prototypes.weight.copy_(torch.tensor([1.0, 0.0, 0.0]).expand(K, 3))
    out = method(views, clock())
    assert out.loss.item() == pytest.approx(math.log(K), rel=1e-9)
    assert out.logs["target_entropy"].item() == pytest.approx(math.log(K), rel=1e-9)
    assert out.logs["kl"].item() == pytest.approx(0, abs=1e-9)


def test_the_log_has_the_two_parts_of_the_loss() -> None:
    out = small(3)(batch(crops=3), clock())
    assert out.logs["kl"].item() > 0
    assert (out.logs["kl"] + out.logs["target_entropy"]).item() == pytest.approx(out.loss.item(), rel=1e-9)
    assert not out.logs["kl"].requires_grad


def test_the_order_of_the_batch_means_nothing() -> None:
    views = batch()
    turned = Views(tuple(crop.flip(0) for crop in views.crops), views.index.flip(0))
    assert small()(turned, clock()).loss.item() == pytest.approx(small()(views, clock()).loss.item(), rel=1e-9)


def test_prototypes_rest_for_an_epoch_and_are_unit_rows_always() -> None:
    method = small()
    prototypes = objective_of(method).prototypes
    before = prototypes.weight.detach().clone()
    train(method, range(5))
    torch.testing.assert_close(prototypes.weight.detach(), before, rtol=0, atol=1e-15)
    train(method, range(5, 6))
    assert (prototypes.weight - before).abs().max() > 1e-3
    torch.testing.assert_close(prototypes.weight.norm(dim=1), torch.ones(K, dtype=torch.float64))


def test_one_forward_of_the_backbone_a_size_and_one_of_the_projector_for_all() -> None:
    seen: list[tuple[str, int]] = []

    class Pooled(nn.Module):
        dim = 1

        def forward(self, x: Tensor) -> Tensor:
            seen.append(("backbone", len(x)))
            return x.mean(dim=(2, 3))

    projector = HeadConfig(layers=2, hidden=4, dim=3, output_norm="none")
    method = swav(Pooled(), SwAVConfig(prototypes=K, projector=projector), known(4)).double()
    method.projector.register_forward_hook(lambda module, given, out: seen.append(("projector", len(given[0]))))
    large, local = batch(0), batch(1)
    views = Views(large.crops + tuple(crop[..., :1, :1] for crop in local.crops), large.index)
    assert method(views, clock()).embedding.shape == (24, 3)
    assert seen == [("backbone", 12), ("backbone", 12), ("projector", 24)]


def test_scores_and_codes_are_float32_under_autocast() -> None:
    objective = objective_of(small()).float()
    z = {view: torch.randn(6, 3, generator=torch.Generator().manual_seed(view)).bfloat16() for view in (0, 1)}
    pairs, index = small().pairs, torch.arange(6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        narrow, _ = objective(z, z, {}, pairs, index, clock())
    wide, _ = objective({v: x.float() for v, x in z.items()}, z, {}, pairs, index, clock())
    assert narrow.dtype == torch.float32
    assert narrow.item() == wide.item()


@pytest.mark.parametrize(
    "change",
    [
        {"projector": {"layers": 1, "hidden": 5, "dim": 3, "norm": "none"}},
        {"projector": {"hidden": 6, "dim": 3, "norm": "none"}},
        {"projector": {"hidden": 5, "dim": 2, "norm": "none"}},
        {"projector": {"hidden": 5, "dim": 3, "norm": "batch"}},
        {"projector": {"hidden": 5, "dim": 3, "norm": "none", "output_norm": "layer"}},
        {"prototypes": 5},
        {"predictor": "mlp"},
        {"predictor": "mlp", "predictor_hidden": 4},
        {"temperature": 0.2},
        {"epsilon": 0.1},
        {"iterations": 1},
        {"codes": "flow"},
        {"queue_size": 12},
        {"queue_from_epoch": 1},
        {"frozen_epochs": 0},
    ],
    ids=str,
)
def test_every_setting_changes_what_is_computed(change: dict[str, Any]) -> None:
    reference = {"queue_size": 6, "queue_from_epoch": 0} if "queue_from_epoch" in change else {"queue_from_epoch": 0}
    steps = range(2, 7)
    assert train(small(**{**reference, **change}), steps) != train(small(**reference), steps)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"prototypes": 1}, "method.prototypes must be at least 2, got 1; the paper uses 3000"),
        ({"temperature": 0.0}, "method.temperature must be above 0, got 0.0; the paper uses 0.1"),
        ({"epsilon": -1.0}, "method.epsilon must be above 0, got -1.0; the paper uses 0.05"),
        ({"iterations": 0}, "method.iterations must be at least 1, got 0"),
        ({"queue_size": -1}, "method.queue_size must be at least 0"),
        ({"queue_from_epoch": -1}, "method.queue_from_epoch must be at least 0"),
        ({"frozen_epochs": -1}, "method.frozen_epochs must be at least 0"),
        ({"predictor_hidden": 4}, "predictor_hidden=4 is read by nothing here; .* --set method.predictor=mlp"),
        ({"predictor": "mlp", "predictor_hidden": 0}, "method.predictor_hidden must be at least 1, got 0"),
        ({"codes": "go"}, "method.codes: 'go' is not a choice"),
        ({"queue_size": 5}, "method.queue_size=5 does not hold a batch of 6; type --set method.queue_size=90"),
    ],
    ids=str,
)
def test_a_setting_out_of_range_is_an_error(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        build(SwAVConfig, settings, "method").check(known())


@pytest.mark.parametrize(
    ("settings", "epochs", "said"),
    [
        ({"frozen_epochs": 1}, 1, "frozen_epochs=1 leaves nothing of loop.epochs=1: .* --set method.frozen_epochs=0"),
        (
            {"queue_size": 12, "queue_from_epoch": 8},
            8,
            "queue_from_epoch=8 leaves nothing of loop.epochs=8: .* --set method.queue_from_epoch=4, or .*queue_size=0",
        ),
    ],
)
def test_what_a_run_would_be_over_before_is_an_error(settings: dict[str, Any], epochs: int, said: str) -> None:
    config = build(SwAVConfig, settings, "method")
    with pytest.raises(ConfigError, match=said):
        config.check(replace(known(), epochs=epochs))
    config.check(replace(known(), epochs=epochs + 1))
    config.check(known())  # nobody said how many there are


def test_without_a_queue_it_does_not_matter_when_it_would_begin() -> None:
    SwAVConfig().check(replace(known(), epochs=2))


def test_no_crop_is_no_forward() -> None:
    """What a target asks for whose views all come from the online branch."""
    method = small()
    assert method.encode(batch(), [], method.backbone, method.projector) == {}


def test_one_crop_is_an_error() -> None:
    with pytest.raises(ConfigError, match="swav compares 2 views, got 1"):
        SwAVConfig().check(known(1))


def test_a_step_that_is_not_taken_leaves_nothing_behind() -> None:
    method = small(queue_size=12, queue_from_epoch=0)
    train(method, range(3))
    before = {name: value.clone() for name, value in method.state_dict().items()}
    for step in (3, 4):
        method(batch(step, b=3), clock(3))  # micro-batches
    method.discard()
    method.after_step(clock(3))
    prototypes = "objective.prototypes.weight"  # at unit length again: the same but for a rounding
    torch.testing.assert_close(method.state_dict()[prototypes], before.pop(prototypes), rtol=0, atol=1e-15)
    assert all(torch.equal(method.state_dict()[name], value) for name, value in before.items())


def test_micro_batches_are_remembered_together() -> None:
    method = small(queue_size=12, queue_from_epoch=0)
    views = batch()
    for part in (slice(0, 3), slice(3, 6)):
        method(Views(tuple(crop[part] for crop in views.crops), views.index[part]), clock())
    method.after_step(clock())
    for i, queue in enumerate(objective_of(method).queues):
        expected = nn.functional.normalize(method.projector(method.backbone(views.crops[i])), dim=1)
        torch.testing.assert_close(queue.keys[:6], expected.detach())  # type: ignore[index]


def test_a_restored_twin_goes_on_to_the_bit_with_full_queues_or_emptied_ones() -> None:
    settings = {"queue_size": 13, "queue_from_epoch": 0, "frozen_epochs": 0}
    method, twin, used = (small(**settings) for _ in range(3))
    empty = {name: value.clone() for name, value in method.state_dict().items()}
    train(used, range(6))
    used.load_state_dict(empty)
    assert train(used, range(4)) == train(method, range(4))
    twin.load_state_dict(method.state_dict())
    assert train(twin, range(4, 7)) == train(method, range(4, 7))


def test_the_switchboard_says_what_stands_where() -> None:
    parts = small(3).parts()
    assert parts["predictor"] == parts["target"] == "none"
    assert parts["objective"] == "swapped assignment (prototypes)"
    assert parts["batch norm"] == "one forward a size"
    says = objective_of(small(queue_size=6, codes="flow")).says
    assert says == "swapped assignment (prototypes, queue), gradient through codes"


def test_the_presets_have_the_rates_of_the_released_scripts() -> None:
    best, cheap, cifar = presets.imagenet(), presets.imagenet_small(), presets.cifar10()
    for recipe, peak, last in ((best, 4.8, 0.0048), (cheap, 0.6, 0.0006), (cifar, 0.6, 0.0)):
        rate = recipe.optim.peak_lr(recipe.loop.batch_size)
        assert rate == pytest.approx(peak)
        assert rate * recipe.optim.end == pytest.approx(last)
    assert best.optim.warmup_from * 4.8 == pytest.approx(0.3)
    assert best.known().crops == (224, 224, 96, 96, 96, 96, 96, 96)
    assert cheap.known().crops == (160, 160, 96, 96, 96, 96)
    assert not best.optim.exclude_1d
    assert {crop.scale for crop in cheap.views.crops} == {(0.14, 1.0), (0.05, 0.14)}
    assert cifar.views.crops == VIEWS["swav_cifar"]
    assert presets.scenes().method.queue_size == 0  # type: ignore[attr-defined]


def test_the_preset_for_small_sets_is_the_papers_for_small_batches() -> None:
    small, cheap = presets.small(), presets.imagenet_small()
    assert (small.method, small.optim, small.views) == (cheap.method, cheap.optim, cheap.views)
    assert small.method.queue_size == 3840  # type: ignore[attr-defined]
