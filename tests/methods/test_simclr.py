"""SimCLR against the paper written as loops, its closed forms, and what each setting does."""

import copy
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stopgrad import dist
from stopgrad.contracts import ConfigError, Known, Views
from stopgrad.losses import margin_queries, nt_logistic_queries, nt_xent, nt_xent_queries
from stopgrad.methods.simclr import SimCLRConfig, simclr
from stopgrad.nn.batch_norm import statistics
from stopgrad.recipe.typed import build
from stopgrad.recipes import simclr as presets
from stopgrad.siamese.family import Siamese, Vectors
from stopgrad.siamese.in_batch import InBatch
from stopgrad.siamese.pairs import pairs_of
from stopgrad.views.presets import PRESETS as VIEWS
from tests.methods.in_batch import B, backbone, batch, clock, known, vectors

SMALL: dict[str, Any] = {"projector": {"layers": 2, "hidden": 12, "dim": 6, "norm": "none", "output_norm": "none"}}
MULTI_CROP = (16, 16, 8)
LR = 0.1


def small(crops: tuple[int, ...] = (16, 16), **changes: Any) -> Siamese:
    return simclr(backbone(), build(SimCLRConfig, {**SMALL, **changes}), known(crops)).double()


def compared(vectors: Vectors, temperature: float = 0.5) -> float:
    """The objective where predictions are targets, as they are without a predictor."""
    objective = InBatch(nt_xent_queries, "NT-Xent", temperature)
    pairs = pairs_of("symmetric", len(vectors))
    loss, _ = objective(vectors, vectors, vectors, pairs, torch.arange(len(vectors[0])), clock(0))
    return float(loss)


# --- closed forms and invariants --------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [2, 5, 64])
def test_equal_embeddings_lose_the_log_of_2n_minus_1(n: int) -> None:
    assert compared(dict.fromkeys(range(2), torch.ones(n, 6))) == pytest.approx(math.log(2 * n - 1), rel=1e-6)


def test_for_two_views_the_objective_is_nt_xent() -> None:
    z = vectors()
    assert compared(z, 0.3) == pytest.approx(float(nt_xent(z[0], z[1], 0.3)), abs=1e-12)


def test_neither_length_order_nor_the_views_names_matter() -> None:
    z = vectors()
    expected = pytest.approx(compared(z), abs=1e-12)
    order = torch.tensor([3, 0, 4, 2, 1])
    assert compared({v: 7 * z_v for v, z_v in z.items()}) == expected
    assert compared({v: z_v[order] for v, z_v in z.items()}) == expected
    assert compared({0: z[1], 1: z[0]}) == expected
    assert compared({0: z[0], 1: z[1][order]}) != expected


def test_equal_views_of_orthogonal_images_lose_almost_nothing_and_never_less() -> None:
    far = torch.eye(6, dtype=torch.float64)
    assert 0 < compared({0: far, 1: far}, 0.05) < 1e-6
    assert all(compared(vectors(seed), temperature) >= 0 for seed in range(5) for temperature in (0.05, 1.0))


def test_one_image_has_no_negative() -> None:
    with pytest.raises(ConfigError, match=r"batch of 1: .* use 2 or more"):
        compared(vectors(n=1))


# --- the paper as loops -----------------------------------------------------------------------------------------------


def unit(row: Tensor) -> Tensor:
    return row / torch.sqrt(sum(x * x for x in row))


def equation_1(z0: Tensor, z1: Tensor, temperature: float) -> Tensor:
    """The 2N embeddings in Algorithm 1's order: 2k - 1 and 2k are two views of image k."""
    z = [unit(row) for pair in zip(z0, z1) for row in pair]
    losses = []
    for i in range(len(z)):
        j = i + 1 if i % 2 == 0 else i - 1
        denominator = sum(torch.exp(z[i] @ z[k] / temperature) for k in range(len(z)) if k != i)
        losses.append(-torch.log(torch.exp(z[i] @ z[j] / temperature) / denominator))
    return sum(losses) / len(losses)  # type: ignore[return-value]


def over_pairs(p: Vectors, t: Vectors, pairs: list[tuple[int, int]], temperature: float) -> Tensor:
    """An anchor of view o: its positive in view g, the other images of g, and of o where o is a target."""
    losses = []
    for o, g in pairs:
        for i in range(B):
            s = [torch.exp(unit(p[o][i]) @ unit(row) / temperature) for row in t[g]]
            own = [torch.exp(unit(p[o][i]) @ unit(t[o][k]) / temperature) for k in range(B) if k != i and o in t]
            losses.append(-torch.log(s[i] / (sum(s) + sum(own))))
    return sum(losses) / len(losses)  # type: ignore[return-value]


def head(module: nn.Module, trunk: nn.Module, crops: tuple[Tensor, ...]) -> Vectors:
    """Two global views in one batch of 2N, each local view in one of its own: statistics are a crop size's."""
    together = module(trunk(torch.cat(crops[:2])))
    return {0: together[:B], 1: together[B:]} | {2 + i: module(trunk(crop)) for i, crop in enumerate(crops[2:])}


class Oracle:
    """The same weights, trained by loops."""

    def __init__(self, method: Siamese) -> None:
        own = copy.deepcopy(method)
        self.backbone, self.projector, self.predictor = own.backbone, own.projector, own.predictor
        self.slow = copy.deepcopy(nn.ModuleList([own.backbone, own.projector]))

    def parameters(self) -> list[Tensor]:
        return [p for m in (self.backbone, self.projector, self.predictor) for p in m.parameters()]

    def loss(self, views: Views, changes: dict[str, Any]) -> Tensor:
        temperature = changes.get("temperature", 0.1)
        z = head(self.projector, self.backbone, views.crops)
        if not changes:
            return equation_1(z[0], z[1], temperature)
        t = {v: z[v] for v in (0, 1)}
        if changes.get("target") == "stop_gradient":
            t = {v: t_v.detach() for v, t_v in t.items()}
        if changes.get("target") == "momentum":
            with torch.no_grad():
                t = head(self.slow[1], self.slow[0], views.crops[:2])
        p = {v: self.predictor(z_v) for v, z_v in z.items()}
        pairs = [(o, g) for o in z for g in (0, 1) if o != g]
        times = 2 if changes.get("directions") == "sum" else 1
        return times * over_pairs(p, t, pairs, temperature)

    def step(self, gradients: list[Tensor], step: int) -> None:
        with torch.no_grad():
            for parameter, gradient in zip(self.parameters(), gradients):
                parameter -= LR * gradient
            m = 1 - (1 - 0.9) * (math.cos(math.pi * step / 10) + 1) / 2
            fast = [*self.backbone.parameters(), *self.projector.parameters()]
            for slow, parameter in zip(self.slow.parameters(), fast):
                slow.copy_(m * slow + (1 - m) * parameter)


CASES: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "the paper": ((16, 16), {}),
    "temperature": ((16, 16), {"temperature": 0.5}),
    "released sum": ((16, 16), {"directions": "sum"}),
    "a predictor": ((16, 16), {"predictor": "mlp", "predictor_hidden": 5}),
    "a predictor and stop-gradient": (
        (16, 16),
        {"predictor": "mlp", "predictor_hidden": 5, "target": "stop_gradient"},
    ),
    "momentum": ((16, 16), {"target": "momentum", "target_momentum": 0.9}),
    "multi-crop": (MULTI_CROP, {"temperature": 0.3}),
    "multi-crop and momentum": (MULTI_CROP, {"target": "momentum", "target_momentum": 0.9, "temperature": 0.3}),
}


@pytest.mark.parametrize("case", CASES)
def test_three_steps_are_the_papers_written_as_loops(case: str) -> None:
    crops, changes = CASES[case]
    method = small(crops, **changes)
    oracle = Oracle(method)
    trained = [p for p in method.parameters() if p.requires_grad]
    for step in range(3):
        views = batch(step, crops)
        ours, theirs = method(views, clock(step)).loss, oracle.loss(views, changes)
        assert ours.item() == pytest.approx(theirs.item(), abs=1e-10)
        found = torch.autograd.grad(ours, trained)
        gradients = list(torch.autograd.grad(theirs, oracle.parameters()))
        for a, b in zip(found, gradients, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9)
        with torch.no_grad():
            for parameter, gradient in zip(trained, found):
                parameter -= LR * gradient
        method.after_step(clock(step))
        oracle.step(gradients, step)


@pytest.mark.parametrize("crops", [(16, 16), MULTI_CROP], ids=str)
def test_processes_with_a_part_of_the_batch_each_have_the_loss_of_all(
    crops: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = vectors(n=6, views=len(crops))
    parts = [{v: z_v[2 * rank : 2 * rank + 2] for v, z_v in whole.items()} for rank in range(3)]
    losses = []
    for rank, part in enumerate(parts):

        def gather(x: Tensor) -> Tensor:
            view = next(v for v in whole if torch.equal(x, part[v]))  # noqa: B023  # called before the next round
            return whole[view]

        monkeypatch.setattr(dist, "gather", gather)
        monkeypatch.setattr(dist, "rank", lambda rank=rank: rank)
        losses.append(compared(part))
    monkeypatch.undo()
    assert sum(losses) / 3 == pytest.approx(compared(whole), abs=1e-12)


# --- heads, settings, state -------------------------------------------------------------------------------------------


def test_the_default_projector_is_the_papers_two_layers_without_norm() -> None:
    head = small().projector
    assert [type(layer).__name__ for layer in head] == ["Linear", "ReLU", "Linear"]  # type: ignore[attr-defined]
    assert all(head[i].bias is not None for i in (0, 2))  # type: ignore[index]
    assert SimCLRConfig().projector.widths(2048) == [2048, 2048, 128]


def test_the_released_projector_ends_in_a_scale_without_an_offset() -> None:
    projector = presets.cifar10().method.projector  # type: ignore[attr-defined]
    assert projector.widths(512) == [512, 512, 512, 128]
    head = small(projector={"layers": 3, "hidden": 12, "dim": 6, "norm": "batch", "output_norm": "batch"}).projector
    assert all(layer.bias is None for layer in head if isinstance(layer, nn.Linear))  # type: ignore[attr-defined]
    trained = {name for name, parameter in head.named_parameters() if parameter.requires_grad}
    assert trained == {"0.weight", "1.weight", "1.bias", "3.weight", "4.weight", "4.bias", "6.weight", "7.weight"}
    assert not head[-1].bias.any()  # type: ignore[index]


CHANGES: list[dict[str, Any]] = [
    {"projector": {**SMALL["projector"], "layers": 1}},
    {"projector": {**SMALL["projector"], "hidden": 8}},
    {"projector": {**SMALL["projector"], "dim": 5}},
    {"projector": {**SMALL["projector"], "norm": "batch"}},
    {"projector": {**SMALL["projector"], "output_norm": "batch"}},
    {"project": False},
    {"temperature": 0.2},
    {"loss": "nt_logistic"},
    {"loss": "nt_logistic", "semi_hard": True},
    {"loss": "margin"},
    {"loss": "margin", "margin": 0.8},
    {"loss": "margin", "semi_hard": True},
    {"directions": "sum"},
    {"predictor": "mlp", "predictor_hidden": 5},
    {"predictor": "mlp", "predictor_hidden": 7},
    {"target": "stop_gradient"},
    {"target": "momentum"},
    {"target": "momentum", "target_momentum": 0.5},
]


def train(method: Siamese, steps: range) -> list[float]:
    losses = []
    trained = [p for p in method.parameters() if p.requires_grad]
    for step in steps:
        loss = method(batch(step), clock(step)).loss
        for parameter, gradient in zip(trained, torch.autograd.grad(loss, trained)):
            parameter.data -= LR * gradient
        method.after_step(clock(step))
        losses.append(loss.item())
    return losses


def test_every_setting_changes_what_is_computed() -> None:
    found = [train(small(**change), range(3)) for change in [{}, *CHANGES]]
    assert all(a != b for i, a in enumerate(found) for b in found[:i])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"temperature": 0.0}, r"method.temperature must be above 0, got 0.0; the paper uses 0.1"),
        ({"predictor_hidden": 0}, r"method.predictor_hidden must be at least 1, got 0"),
        ({"target_momentum": 1.5}, r"method.target_momentum must be in \[0, 1\], got 1.5"),
        ({"target": "bank"}, r"method.target.*bank"),
        ({"margin": 0.8}, r"margin=0.8 is read by nothing here; .* --set method.loss=margin"),
        ({"loss": "margin", "margin": 0.0}, r"method.margin must be above 0, got 0.0"),
        ({"semi_hard": True}, r"semi_hard=True is read by nothing here; .* --set method.loss=nt_logistic"),
        ({"target_momentum": 0.9}, r"target_momentum=0.9 is read by nothing here; .* --set method.target=momentum"),
        ({"predictor_hidden": 64}, r"predictor_hidden=64 is read by nothing here; .* --set method.predictor=mlp"),
    ],
)
def test_a_setting_that_means_nothing_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(SimCLRConfig, change, "method")


@pytest.mark.parametrize(("crops", "message"), [((16,), "got 1; add one"), ((16, 12), "got 16 and 12 pixels")])
def test_views_that_it_cannot_compare_are_refused(crops: tuple[int, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SimCLRConfig().check(Known(crops=crops, batch_size=8, accumulate=1, backbone="tiny"))


def test_multi_crop_goes_through() -> None:
    SimCLRConfig().check(Known(crops=(16, 16, 8, 8), batch_size=8, accumulate=1, backbone="tiny"))


@pytest.mark.parametrize(
    ("changes", "compare", "says"),
    [
        ({"loss": "nt_logistic", "temperature": 0.5}, partial(nt_logistic_queries, temperature=0.5), "NT-Logistic"),
        (
            {"loss": "margin", "margin": 0.8, "semi_hard": True},
            partial(margin_queries, margin=0.8, semi_hard=True),
            "margin triplet, semi-hard",
        ),
    ],
)
def test_other_losses_compare_both_ways_among_both_views(
    changes: dict[str, Any], compare: Callable[..., Tensor], says: str
) -> None:
    method, views = small(**changes), batch(0)
    z = head(method.projector, method.backbone, views.crops)
    expected = (compare(z[0], z[1], z[0]) + compare(z[1], z[0], z[1])) / 2
    assert method(views, clock(0)).loss.item() == pytest.approx(expected.item(), abs=1e-12)
    assert method.parts()["objective"] == says
    # one term draws and pushes at once: what draws is told apart along the target
    pairs = method.pairs
    assert method.objective.attraction(z, z, z, pairs, views.index, clock(0)) is None  # type: ignore[operator]


@pytest.mark.parametrize("target", ["shared", "momentum"])
def test_a_step_that_is_not_taken_leaves_nothing_but_batch_statistics(target: str) -> None:
    method = small(target=target)
    moved = {id(buffer) for buffer in statistics(method)}
    before = {name: value.clone() for name, value in method.state_dict().items()}
    for step in range(2):
        method(batch(step), clock(0))
    method.discard()
    kept = [name for name, value in method.state_dict(keep_vars=True).items() if id(value) not in moved]
    assert kept
    assert all(torch.equal(method.state_dict()[name], before[name]) for name in kept)


@pytest.mark.parametrize("target", ["shared", "momentum"])
def test_a_resumed_twin_goes_on_to_the_bit(target: str) -> None:
    method, twin = small(target=target), small(target=target)
    train(method, range(2))
    twin.load_state_dict(method.state_dict())
    assert train(twin, range(2, 4)) == train(method, range(2, 4))


def test_the_log_has_the_cosine_of_a_view_with_the_other() -> None:
    method, views = small(), batch(0)
    z = method.projector(method.backbone(torch.cat(views.crops)))
    expected = torch.stack([unit(a) @ unit(b) for a, b in zip(z[:B], z[B:])]).mean()
    assert method(views, clock(0)).logs["agreement"].item() == pytest.approx(expected.item(), abs=1e-10)


def test_what_it_is_made_of_in_words() -> None:
    assert small().parts() == {
        "predictor": "none",
        "target": "shared (gradient flows)",
        "objective": "NT-Xent",
        "pairs": "(0,1) (1,0)",
        "batch norm": "one forward a size",
        "keeps": "online",
    }


# --- presets ----------------------------------------------------------------------------------------------------------


def test_the_presets_have_the_published_rates() -> None:
    imagenet, cifar10 = presets.imagenet(), presets.cifar10()
    assert imagenet.optim.peak_lr(imagenet.loop.batch_size) == pytest.approx(4.8)  # section 2.2
    assert cifar10.optim.peak_lr(cifar10.loop.batch_size) == pytest.approx(2.0)  # README: 1.0 for 256
    assert presets.scenes().method.name == "simclr"
    assert [crop.hue for crop in imagenet.views.crops] == [0.2, 0.2]  # strength 1
    assert [crop.hue for crop in cifar10.views.crops] == [0.1, 0.1]  # 1/2
    assert cifar10.views.crops == VIEWS["simclr_cifar"]
