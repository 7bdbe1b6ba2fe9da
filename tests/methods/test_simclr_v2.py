"""SimCLR v2 against the paper written as loops, with its queue and its slow copy; closed forms; what a setting does."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stopgrad import dist
from stopgrad.contracts import ConfigError, Known, Views
from stopgrad.losses import nt_xent
from stopgrad.methods import METHODS
from stopgrad.methods.settings import HeadConfig
from stopgrad.methods.simclr_v2 import SimCLRv2Config, simclr_v2
from stopgrad.nn.batch_norm import statistics
from stopgrad.nn.memory import Queue
from stopgrad.recipe.typed import build
from stopgrad.recipes import simclr_v2 as presets
from stopgrad.siamese.batch_and_queue import BatchAndQueue
from stopgrad.siamese.family import Siamese, Vectors
from stopgrad.siamese.pairs import pairs_of
from stopgrad.views.presets import PRESETS as VIEWS
from tests.methods.in_batch import vectors
from tests.methods.small import small as small_method
from tests.methods.toy import batch, clock, gradients, known, trunk

HEAD = {"layers": 3, "hidden": 0, "dim": 3, "norm": "batch", "output_norm": "batch"}
B, ROWS, RATE = 6, 26, 0.3  # a step writes 12 rows: the queue wraps within the third
SMALL: dict[str, Any] = {"projector": HEAD, "queue_size": ROWS, "momentum": 0.9}
NO_QUEUE: dict[str, Any] = {"queue_size": 0, "momentum": 0.999}


def small(crops: int = 2, **changes: Any) -> Siamese:
    config = build(SimCLRv2Config, {**SMALL, **changes}, "method")
    config.check(known(crops))
    method = simclr_v2(trunk(), config, known(crops)).double()
    for parameter in method.parameters():  # no scale of the online norms is 1, and the copy differs from them
        if parameter.ndim == 1 and parameter.requires_grad:
            parameter.data.copy_(torch.linspace(0.5, 1.5, len(parameter)))
    return method


def objective_of(method: Siamese) -> BatchAndQueue:
    assert isinstance(method.objective, BatchAndQueue)
    return method.objective


def queue_of(method: Siamese) -> Tensor:
    return objective_of(method).queue.keys


def train(method: Siamese, steps: range, crops: int = 2) -> list[float]:
    losses = []
    for step in steps:
        loss = method(batch(step, crops), clock(step)).loss
        for name, gradient in gradients(loss, method).items():
            method.get_parameter(name).data -= RATE * gradient
        method.after_step(clock(step))
        losses.append(loss.item())
    return losses


def compared(z: Vectors, past: Tensor, temperature: float = 0.5) -> float:
    """The objective where predictions are targets, as they are here; past: [K, D]."""
    objective = BatchAndQueue(Queue(len(past), past.shape[1], seed=0), temperature).to(past.dtype)
    objective.queue.keys.copy_(past)
    loss, _ = objective(z, z, z, pairs_of("symmetric", len(z)), torch.arange(len(z[0])), clock())
    return float(loss)


def unit_rows(count: int, seed: int = 9) -> Tensor:
    made = torch.randn(count, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return F.normalize(made, dim=1)


# --- closed forms and invariants --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "k"), [(2, 1), (5, 7), (64, 100)])
def test_equal_embeddings_lose_the_log_of_2n_minus_1_and_the_queue(n: int, k: int) -> None:
    alike = torch.ones(n, 6)
    assert compared({0: alike, 1: alike}, torch.ones(k, 6) / math.sqrt(6)) == pytest.approx(
        math.log(2 * n - 1 + k), rel=1e-6
    )


def test_a_queue_at_right_angles_counts_once_a_row() -> None:
    alike = torch.eye(6, dtype=torch.float64)[:1].expand(5, 6)
    e, past = math.exp(1 / 0.5), torch.eye(6, dtype=torch.float64)[1:4]
    assert compared({0: alike, 1: alike}, past) == pytest.approx(math.log((9 * e + 3) / e), rel=1e-12)


def test_a_queue_of_what_nobody_resembles_leaves_nt_xent() -> None:
    ahead = torch.eye(6, dtype=torch.float64)[:1]
    z = {v: 0.3 * z_v + ahead for v, z_v in vectors().items()}
    assert compared(z, -ahead.expand(4, 6), 0.05) == pytest.approx(float(nt_xent(z[0], z[1], 0.05)), abs=1e-9)
    assert compared(z, ahead.expand(4, 6), 0.05) > float(nt_xent(z[0], z[1], 0.05)) + 0.1


def test_neither_length_order_nor_the_views_names_matter() -> None:
    z, past = vectors(), unit_rows(7)
    expected = pytest.approx(compared(z, past), abs=1e-12)
    order = torch.tensor([3, 0, 4, 2, 1])
    assert compared({v: 7 * z_v for v, z_v in z.items()}, past) == expected
    assert compared({v: z_v[order] for v, z_v in z.items()}, past) == expected
    assert compared({0: z[1], 1: z[0]}, past) == expected
    assert compared(z, past.flip(0)) == expected
    assert compared({0: z[0], 1: z[1][order]}, past) != expected


def test_more_negatives_cost_more_and_a_perfect_guess_costs_nothing() -> None:
    z, past = vectors(), unit_rows(7)
    assert float(nt_xent(z[0], z[1], 0.5)) < compared(z, past[:3]) < compared(z, past)
    far = torch.eye(6, dtype=torch.float64)
    assert 0 < compared({0: far[:5], 1: far[:5]}, far[5:], 0.05) < 1e-6


# --- the paper as loops -----------------------------------------------------------------------------------------------

Weights = dict[str, Tensor]
TRUNK = ("backbone.linear.weight", "backbone.linear.bias")
NORMED = ("projector.0.weight", "projector.3.weight", "projector.6.weight")  # a norm behind each, no bias in any
SCALES = ("projector.1.weight", "projector.4.weight", "projector.7.weight")
SHIFTS = ("projector.1.bias", "projector.4.bias")  # none behind the last


def encoded(w: Weights, images: list[Tensor]) -> list[Tensor]:
    """Unit embeddings of all images, which share the statistics of batch norm."""
    rows = [w[TRUNK[0]] @ image.flatten() + w[TRUNK[1]] for image in images]
    for layer in range(3):
        rows = [w[NORMED[layer]] @ row for row in rows]
        mean: Any = sum(rows) / len(rows)
        variance: Any = sum((row - mean) ** 2 for row in rows) / len(rows)
        rows = [w[SCALES[layer]] * (row - mean) / (variance + 1e-5) ** 0.5 for row in rows]
        if layer < 2:
            rows = [(row + w[SHIFTS[layer]]).clamp(min=0) for row in rows]
    return [row / (row @ row) ** 0.5 for row in rows]


def anchored(z: list[list[Tensor]], queue: list[Tensor], temperature: float) -> Tensor:
    """z: view -> unit embeddings, two global views first. Every view's anchors against each other global view."""
    losses: list[Tensor] = []
    for o, anchors in enumerate(z):
        for g in (view for view in (0, 1) if view != o):
            for i, anchor in enumerate(anchors):
                others = [row for k, row in enumerate(z[g]) if k != i] + queue
                others += [row for k, row in enumerate(anchors) if k != i and o < 2]
                positive = torch.exp(anchor @ z[g][i] / temperature)
                rest: Any = sum(torch.exp(anchor @ row / temperature) for row in others)
                losses.append(-torch.log(positive / (positive + rest)))
    return sum(losses[1:], losses[0]) / len(losses)


CASES: dict[str, tuple[int, dict[str, Any]]] = {
    "the paper": (2, {}),
    "without the queue": (2, NO_QUEUE),
    "the released sum": (2, {"directions": "sum"}),
    "the released sum without the queue": (2, {"directions": "sum", **NO_QUEUE}),
    "temperature": (2, {"temperature": 0.5, "momentum": 0.5}),
    "a local crop": (3, {"temperature": 0.3}),
}


@pytest.mark.parametrize("case", CASES)
def test_losses_gradients_queue_and_slow_copy_are_the_papers_over_three_steps(case: str) -> None:
    crops, changes = CASES[case]
    method = small(crops, **changes)
    config = build(SimCLRv2Config, {**SMALL, **changes}, "method")
    names = TRUNK + NORMED + SCALES + SHIFTS
    w = {name: method.get_parameter(name).detach().clone().requires_grad_() for name in names}
    copied = dict(method.named_parameters())
    slow = {name: copied.get(f"target.target_{name}", w[name]).detach().clone() for name in names}
    queue = [row.clone() for row in queue_of(method)] if config.queue_size else []
    place = 0
    for step in range(3):
        views = batch(step, crops)
        output = method(views, clock(step))
        found = gradients(output.loss, method)
        rows = encoded(w, [image for crop in views.crops for image in crop])
        z = [rows[B * v : B * v + B] for v in range(crops)]
        expected = anchored(z, queue, config.temperature) * (2 if config.directions == "sum" else 1)
        wanted = dict(zip(w, torch.autograd.grad(expected, list(w.values()))))
        assert output.loss.item() == pytest.approx(expected.item(), rel=1e-10)
        alike: Any = sum(a @ b for a, b in zip(z[0], z[1])) / B
        if crops == 2:
            assert output.logs["agreement"].item() == pytest.approx(alike.item(), rel=1e-10)
        assert found.keys() == wanted.keys()
        for name, gradient in found.items():
            torch.testing.assert_close(gradient, wanted[name], rtol=1e-8, atol=1e-12)
        new = encoded(slow, [image for crop in views.crops[:2] for image in crop])
        with torch.no_grad():
            for name, value in w.items():
                value -= RATE * wanted[name]
                method.get_parameter(name).data -= RATE * found[name]
                slow[name] = config.momentum * slow[name] + (1 - config.momentum) * value
        method.after_step(clock(step))
        if config.queue_size:
            for row in new:
                queue[place % ROWS] = row
                place += 1
            torch.testing.assert_close(queue_of(method), torch.stack(queue), rtol=1e-10, atol=1e-12)
            for name, value in slow.items():
                copy = method.get_parameter(f"target.target_{name}").detach()
                torch.testing.assert_close(copy, value, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("views", [2, 3])
def test_processes_with_a_part_of_the_batch_each_have_the_loss_of_all(
    views: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, past = vectors(n=6, views=views), unit_rows(5)
    parts = [{v: z_v[2 * rank : 2 * rank + 2] for v, z_v in whole.items()} for rank in range(3)]
    losses = []
    for rank, part in enumerate(parts):

        def gather(x: Tensor) -> Tensor:
            view = next(v for v in whole if torch.equal(x, part[v]))  # noqa: B023  # called before the next round
            return whole[view]

        monkeypatch.setattr(dist, "gather", gather)
        monkeypatch.setattr(dist, "rank", lambda rank=rank: rank)
        losses.append(compared(part, past))
    monkeypatch.undo()
    assert sum(losses) / 3 == pytest.approx(compared(whole, past), abs=1e-12)


# --- queue, copy, state -----------------------------------------------------------------------------------------------


def test_this_steps_rows_are_none_of_its_negatives_and_stay_unit_rows_later() -> None:
    method = small()
    before = queue_of(method).clone()
    method(batch(), clock())
    assert torch.equal(queue_of(method), before)
    method.after_step(clock())
    assert torch.equal(queue_of(method)[2 * B :], before[2 * B :])
    assert not torch.isclose(queue_of(method)[: 2 * B], before[: 2 * B]).all(dim=1).any()
    torch.testing.assert_close(queue_of(method)[: 2 * B].norm(dim=1), torch.ones(2 * B, dtype=torch.float64))


def test_the_slow_copy_and_the_queue_learn_nothing_by_gradient_and_are_saved() -> None:
    method = small()
    method(batch(), clock()).loss.backward()
    slow = dict(method.get_submodule("target").named_parameters())
    assert slow
    assert all(not parameter.requires_grad and parameter.grad is None for parameter in slow.values())
    assert {f"target.{name}" for name in slow} | {"objective.queue.keys"} <= set(method.state_dict())
    assert not queue_of(method).requires_grad


def test_without_a_queue_there_is_no_copy_to_pay_for() -> None:
    state = small(**NO_QUEUE).state_dict()
    assert not [name for name in state if name.startswith(("target.", "objective."))]


def without_statistics(method: Siamese) -> dict[str, Tensor]:
    moving = {id(buffer) for buffer in statistics(method)}
    return {name: value.clone() for name, value in method.state_dict(keep_vars=True).items() if id(value) not in moving}


def micro_batches() -> list[Views]:
    views = batch()
    return [Views(tuple(crop.chunk(2)[i] for crop in views.crops), views.index.chunk(2)[i]) for i in range(2)]


def test_a_step_that_is_not_taken_leaves_no_trace_but_batch_norms_statistics() -> None:
    method = small()
    before = without_statistics(method)
    for views in micro_batches():
        method(views, clock())
    method.discard()
    after = without_statistics(method)
    assert before.keys() == after.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    method.after_step(clock())  # moves the copy, but nothing is left to be written
    assert torch.equal(queue_of(method), before["objective.queue.keys"])


def test_the_rows_of_all_micro_batches_join_the_queue() -> None:
    method = small()
    before = queue_of(method).clone()
    for views in micro_batches():
        method(views, clock())
    method.after_step(clock())
    assert (queue_of(method) != before).any(dim=1).sum() == 2 * B
    assert torch.equal(queue_of(method)[2 * B :], before[2 * B :])


@pytest.mark.parametrize("changes", [{}, NO_QUEUE], ids=["queue", "none"])
def test_a_restored_method_continues_to_the_bit(changes: dict[str, Any]) -> None:
    method, twin = small(**changes), small(**changes)
    train(method, range(3))
    twin.load_state_dict(method.state_dict())
    assert train(method, range(3, 6)) == train(twin, range(3, 6))


# --- heads and settings -----------------------------------------------------------------------------------------------


def test_the_projector_is_three_layers_as_wide_as_the_backbone_with_a_norm_behind_each() -> None:
    head = SimCLRv2Config().projector
    assert [head.widths(width) for width in (2048, 512)] == [[2048, 2048, 2048, 128], [512, 512, 512, 128]]
    projector = small().projector
    kinds = [type(layer).__name__ for layer in projector.children()]
    assert kinds == ["Linear", "BatchNorm", "ReLU", "Linear", "BatchNorm", "ReLU", "Linear", "BatchNorm"]
    assert all(layer.bias is None for layer in projector.children() if isinstance(layer, nn.Linear))
    trained = {f"projector.{name}" for name, value in projector.named_parameters() if value.requires_grad}
    assert trained == {*NORMED, *SCALES, *SHIFTS}
    method = small()
    train(method, range(2))
    assert not method.get_parameter("projector.7.bias").any()  # a scale, no offset


@pytest.mark.parametrize(
    "name", [name for name, (_, config) in METHODS.items() if "projector" in config.__dataclass_fields__]
)
def test_a_hidden_width_of_0_is_the_backbones_in_every_method(name: str) -> None:
    method = small_method(name, projector={"layers": 3, "hidden": 0, "dim": 12})
    linear = [
        layer
        for key, layer in method.named_modules()
        if "projector" in key.partition(".")[0] and isinstance(layer, nn.Linear)
    ]
    assert len(linear) in (3, 6)  # CMC has a projector for each half of its backbone
    for first, second, last in zip(*[iter(linear)] * 3):
        assert first.in_features * (len(linear) // 3) == method.backbone.dim
        assert first.out_features == second.out_features == first.in_features
        assert last.out_features == 12


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden": -1}, "projector.hidden must be at least 1, or 0 for the backbone's width, got -1"),
        ({"layers": 0}, "projector.layers must be at least 1, got 0"),
        ({"dim": 0}, "projector.dim must be at least 1, got 0"),
    ],
)
def test_a_head_without_layers_or_width_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(HeadConfig(), **change)


CHANGES: list[dict[str, Any]] = [
    {"projector": {**HEAD, "layers": 2}},
    {"projector": {**HEAD, "hidden": 5}},
    {"projector": {**HEAD, "dim": 2}},
    {"projector": {**HEAD, "norm": "none"}},
    {"projector": {**HEAD, "output_norm": "none"}},
    {"temperature": 0.2},
    {"directions": "sum"},
    {"queue_size": ROWS + 1},
    {"momentum": 0.5},
    NO_QUEUE,
]


def test_every_setting_changes_what_is_computed() -> None:
    found = [train(small(**change), range(3)) for change in [{}, *CHANGES]]
    assert all(a != b for i, a in enumerate(found) for b in found[:i])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"temperature": 0.0}, "method.temperature must be above 0, got 0.0; the paper uses 0.1"),
        ({"momentum": 1.5}, r"method.momentum must be in \[0, 1\], got 1.5; the paper uses 0.999"),
        ({"queue_size": -1}, "method.queue_size must be at least 0, got -1; the paper uses 65536"),
        ({"queue_size": 0, "momentum": 0.9}, "momentum=0.9 is read by nothing here; .* method.queue_size=65536"),
        ({"directions": "both"}, "method.directions.*both"),
    ],
)
def test_a_setting_that_means_nothing_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(SimCLRv2Config, change, "method")


def fits(config: SimCLRv2Config, crops: tuple[int, ...] = (16, 16), batch_size: int = 256) -> None:
    config.check(Known(crops=crops, batch_size=batch_size, accumulate=1, backbone="tiny"))


def test_a_queue_holds_both_views_of_a_step() -> None:
    fits(SimCLRv2Config(queue_size=512))
    fits(SimCLRv2Config(queue_size=0))
    with pytest.raises(ConfigError, match=r"queue_size=511 is below the 512 .*batch_size=256.*queue_size=1024 or more"):
        fits(SimCLRv2Config(queue_size=511))


@pytest.mark.parametrize(("crops", "message"), [((16,), "got 1; add one"), ((16, 12), "got 16 and 12 pixels")])
def test_views_that_it_cannot_compare_are_refused(crops: tuple[int, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        fits(SimCLRv2Config(), crops)


def test_multi_crop_goes_through() -> None:
    fits(SimCLRv2Config(), (16, 16, 8, 8))


@pytest.mark.parametrize(
    ("changes", "target", "objective"),
    [
        ({}, "shared (gradient flows), the queue's from momentum 0.9", "NT-Xent (batch and queue)"),
        (NO_QUEUE, "shared (gradient flows)", "NT-Xent"),
    ],
    ids=["queue", "none"],
)
def test_what_it_is_made_of_in_words(changes: dict[str, Any], target: str, objective: str) -> None:
    assert small(**changes).parts() == {
        "predictor": "none",
        "target": target,
        "objective": objective,
        "pairs": "(0,1) (1,0)",
        "batch norm": "one forward a size",
        "keeps": "online",
    }
    assert small(**changes).syncs_batch_norm


def test_half_precision_gives_the_loss_in_full() -> None:
    method = small(projector={**HEAD, "output_norm": "none"}).float()  # its last layer gives halves
    views = batch()
    views = Views(tuple(crop.float() for crop in views.crops), views.index)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = method(views, clock()).loss
    method.after_step(clock())
    assert loss.dtype == queue_of(method).dtype == torch.float32
    assert loss.isfinite()
    torch.testing.assert_close(queue_of(method).norm(dim=1), torch.ones(ROWS))


# --- presets ----------------------------------------------------------------------------------------------------------


def test_the_presets_have_the_published_rates() -> None:
    imagenet, cifar10 = presets.imagenet(), presets.cifar10()
    assert imagenet.optim.peak_lr(imagenet.loop.batch_size) == pytest.approx(0.1 * 4096**0.5)
    assert imagenet.optim.warmup_epochs == 0.05 * imagenet.loop.epochs
    assert cifar10.optim.peak_lr(cifar10.loop.batch_size) == pytest.approx(2.0)  # README: 1.0 for 256
    assert imagenet.method == SimCLRv2Config(directions="sum")
    assert [crop.hue for crop in imagenet.views.crops] == [0.2, 0.2]  # type: ignore[union-attr]  # strength 1
    assert cifar10.views.crops == VIEWS["simclr_cifar"]  # type: ignore[union-attr]
    assert [preset().method.name for preset in (presets.scenes, presets.imagenet_sk)] == ["simclr_v2"] * 2


def test_selective_kernels_are_all_that_the_second_imagenet_preset_changes() -> None:
    plain, selective = presets.imagenet(), presets.imagenet_sk()
    assert replace(selective, backbone=plain.backbone) == plain
    assert selective.backbone.name == "skresnet50d"
