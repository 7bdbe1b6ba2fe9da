"""MoCo v3 against its Algorithm 1 written as loops, its closed forms, and what each setting does."""

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stopgrad import dist
from stopgrad.contracts import ConfigError, Known, Views
from stopgrad.methods.moco_v3 import MoCoV3Config, moco_v3
from stopgrad.nn.backbones import build_backbone
from stopgrad.nn.batch_norm import statistics
from stopgrad.nn.config import BackboneConfig
from stopgrad.recipe.typed import build
from stopgrad.recipes import moco_v3 as presets
from stopgrad.siamese.family import Siamese, Vectors
from stopgrad.siamese.in_batch import InBatch, info_nce_among_keys
from stopgrad.siamese.pairs import pairs_of
from stopgrad.views.presets import PRESETS as VIEWS
from tests.methods.in_batch import B, backbone, batch, clock, known, vectors

SMALL: dict[str, Any] = {"projector": {"hidden": 12, "dim": 6}, "predictor_hidden": 5}
MULTI_CROP = (16, 16, 8)
LR = 0.1


def small(crops: tuple[int, ...] = (16, 16), **changes: Any) -> Siamese:
    return moco_v3(backbone(), build(MoCoV3Config, {**SMALL, **changes}), known(crops)).double()


def compared(p: Vectors, t: Vectors, temperature: float) -> float:
    """As the method has it: 2 temperature, and the sum of two directions."""
    objective = InBatch(info_nce_among_keys, "InfoNCE", temperature, 4 * temperature)
    loss, _ = objective(p, p, t, pairs_of("symmetric", 2), torch.arange(len(p[0])), clock(0))
    return float(loss)


# --- closed forms and invariants --------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.2, 1.0])
def test_equal_keys_lose_4_temperature_log_n(temperature: float) -> None:
    same = dict.fromkeys(range(2), torch.ones(7, 6, dtype=torch.float64))
    assert compared(vectors(n=7), same, temperature) == pytest.approx(4 * temperature * math.log(7), rel=1e-6)


def test_the_least_that_two_images_can_lose_is_for_opposite_keys() -> None:
    opposite = torch.tensor([[1.0, 0], [-1.0, 0]], dtype=torch.float64)
    views = {0: opposite, 1: opposite}
    least = 2 * 2 * 0.2 * math.log(1 + math.exp(-2 / 0.2))
    assert compared(views, views, 0.2) == pytest.approx(least, rel=1e-9)


def test_neither_length_nor_order_matters_and_the_queries_own_view_is_no_negative() -> None:
    p, t = vectors(0, n=6), vectors(1, n=6)
    expected = pytest.approx(compared(p, t, 0.5), abs=1e-12)
    order = torch.tensor([3, 0, 4, 2, 1, 5])
    assert compared({v: 7 * x for v, x in p.items()}, {v: 3 * x for v, x in t.items()}, 0.5) == expected
    assert compared({v: x[order] for v, x in p.items()}, {v: x[order] for v, x in t.items()}, 0.5) == expected
    assert compared(p, {v: x[order] for v, x in t.items()}, 0.5) != expected
    one_direction = InBatch(info_nce_among_keys, "", 0.5)
    pairs = pairs_of("asymmetric", 2)
    with_own, _ = one_direction(p, p, t, pairs, torch.arange(6), clock(0))
    without, _ = one_direction(p, p, {1: t[1]}, pairs, torch.arange(6), clock(0))
    assert with_own == without


def test_one_image_has_no_negative() -> None:
    with pytest.raises(ConfigError, match=r"batch of 1: .* use 2 or more"):
        compared(vectors(n=1), vectors(n=1), 0.5)


# --- Algorithm 1 as loops ---------------------------------------------------------------------------------------------


def unit(row: Tensor) -> Tensor:
    return row / torch.sqrt(sum(x * x for x in row))


def ctr(q: Tensor, k: Tensor, temperature: float) -> Tensor:
    total = q.new_zeros(())
    for i in range(B):
        e = [torch.exp(unit(q[i]) @ unit(k[j]) / temperature) for j in range(B)]
        total = total - torch.log(e[i] / sum(e))
    return 2 * temperature * total / B


class Algorithm1:
    """The same weights, trained by loops; each view is a forward of its own."""

    def __init__(self, method: Siamese, schedule: str) -> None:
        self.own = copy.deepcopy(method)
        self.slow = copy.deepcopy(nn.ModuleList([self.own.backbone, self.own.projector]))
        self.schedule = schedule

    def parameters(self) -> list[Tensor]:
        return [p for m in (self.own.backbone, self.own.projector, self.own.predictor) for p in m.parameters()]

    def loss(self, views: Views, temperature: float) -> Tensor:
        q = [self.own.predictor(self.own.projector(self.own.backbone(x))) for x in views.crops]
        with torch.no_grad():
            k = [self.slow[1](self.slow[0](x)) for x in views.crops[:2]]
        if len(q) == 2:
            return ctr(q[0], k[1], temperature) + ctr(q[1], k[0], temperature)
        pairs = [(v, g) for v in range(len(q)) for g in (0, 1) if v != g]  # twice the mean: of two views it is the sum
        return 2 * sum(ctr(q[v], k[g], temperature) for v, g in pairs) / len(pairs)  # type: ignore[return-value]

    def step(self, gradients: list[Tensor], step: int) -> None:
        with torch.no_grad():
            for parameter, gradient in zip(self.parameters(), gradients):
                parameter -= LR * gradient
            m = 0.9
            if self.schedule == "cosine":
                m = 1 - (1 - m) * (math.cos(math.pi * step / 10) + 1) / 2
            fast = [*self.own.backbone.parameters(), *self.own.projector.parameters()]
            for slow, parameter in zip(self.slow.parameters(), fast):
                slow.copy_(m * slow + (1 - m) * parameter)


CASES: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "a ResNet's": ((16, 16), {"target_momentum": 0.9}),
    "a ViT's": (
        (16, 16),
        {
            "target_momentum": 0.9,
            "temperature": 0.2,
            "projector": {"layers": 3, "hidden": 12, "dim": 6},
            "predictor_output_norm": "batch_no_affine",
        },
    ),
    "a constant momentum": ((16, 16), {"target_momentum": 0.9, "target_schedule": "constant"}),
    "no predictor": ((16, 16), {"target_momentum": 0.9, "predictor": "none"}),
    "multi-crop": (MULTI_CROP, {"target_momentum": 0.9, "temperature": 0.5}),
}


@pytest.mark.parametrize("case", CASES)
def test_three_steps_are_algorithm_1_written_as_loops(case: str) -> None:
    crops, changes = CASES[case]
    method = small(crops, **changes)
    oracle = Algorithm1(method, changes.get("target_schedule", "cosine"))
    trained = [p for p in method.parameters() if p.requires_grad]
    for step in range(3):
        views = batch(step, crops)
        ours, theirs = method(views, clock(step)).loss, oracle.loss(views, changes.get("temperature", 1.0))
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
    slow = [*method.target.target_backbone.parameters(), *method.target.target_projector.parameters()]  # type: ignore[union-attr]
    for a, b in zip(slow, oracle.slow.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
    for a, b in zip(statistics(method.target), statistics(oracle.slow), strict=True):
        torch.testing.assert_close(a, b)


def test_processes_with_a_part_of_the_batch_each_have_the_loss_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    p, t = vectors(0, n=6), vectors(1, n=6)
    losses = []
    for rank in range(3):
        rows = slice(2 * rank, 2 * rank + 2)
        part = {v: t_v[rows] for v, t_v in t.items()}

        def gather(x: Tensor, part: Vectors = part) -> Tensor:
            return t[0 if torch.equal(x, part[0]) else 1]

        monkeypatch.setattr(dist, "gather", gather)
        monkeypatch.setattr(dist, "rank", lambda rank=rank: rank)
        losses.append(compared({v: p_v[rows] for v, p_v in p.items()}, part, 0.5))
    monkeypatch.undo()
    assert sum(losses) / 3 == pytest.approx(compared(p, t, 0.5), abs=1e-12)


# --- heads, settings, state -------------------------------------------------------------------------------------------


def layers(head: Any) -> list[str]:
    return [type(layer).__name__ for layer in head]


def test_no_linear_layer_of_a_head_has_a_bias_with_or_without_norms() -> None:
    for change in ({}, {"predictor_norm": "none", "projector": {**SMALL["projector"], "norm": "none"}}):
        method = small(**change)
        linear = [m for head in (method.projector, method.predictor) for m in head.modules()]
        assert all(m.bias is None for m in linear if isinstance(m, nn.Linear))


def test_the_heads_of_a_resnet_and_of_a_vit_are_the_references() -> None:
    resnet = small()
    assert layers(resnet.projector) == ["Linear", "BatchNorm", "ReLU", "Linear", "BatchNorm"]
    assert not resnet.projector[-1].affine  # type: ignore[index]
    assert layers(resnet.predictor) == ["Linear", "BatchNorm", "ReLU", "Linear"]
    assert MoCoV3Config().projector.widths(2048) == [2048, 4096, 256]
    vit = presets.imagenet_vit().method
    assert isinstance(vit, MoCoV3Config)
    assert vit.projector.widths(384) == [384, 4096, 4096, 256]
    method = small(projector={"layers": 3, "hidden": 12, "dim": 6}, predictor_output_norm=vit.predictor_output_norm)
    assert layers(method.projector) == ["Linear", "BatchNorm", "ReLU"] * 2 + ["Linear", "BatchNorm"]
    assert layers(method.predictor) == ["Linear", "BatchNorm", "ReLU", "Linear", "BatchNorm"]
    assert not method.predictor[-1].affine  # type: ignore[index]


def test_the_copy_has_no_predictor_and_gets_no_gradient() -> None:
    method = small()
    method(batch(0), clock(0)).loss.backward()
    assert method.target.target_predictor is None
    assert all(p.grad is None and not p.requires_grad for p in method.target.parameters())


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


CHANGES: list[dict[str, Any]] = [
    {"projector": {"layers": 3, "hidden": 12, "dim": 6}},
    {"projector": {"hidden": 9, "dim": 6}},
    {"projector": {"hidden": 12, "dim": 5}},
    {"projector": {"hidden": 12, "dim": 6, "norm": "none"}},
    {"projector": {"hidden": 12, "dim": 6, "output_norm": "none"}},
    {"predictor": "none"},
    {"predictor_hidden": 7},
    {"predictor_norm": "none"},
    {"predictor_output_norm": "batch_no_affine"},
    {"temperature": 0.2},
    {"target_momentum": 0.5},
    {"target_schedule": "constant"},
]


def test_every_setting_changes_what_is_computed() -> None:
    found = [train(small(**change), range(3)) for change in [{}, *CHANGES]]
    assert all(a != b for i, a in enumerate(found) for b in found[:i])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"temperature": -1.0}, r"method.temperature must be above 0, got -1.0; the paper uses 1"),
        ({"predictor_hidden": 0}, r"method.predictor_hidden must be at least 1, got 0"),
        ({"target_momentum": -0.1}, r"method.target_momentum must be in \[0, 1\], got -0.1"),
        ({"target_schedule": "linear"}, r"method.target_schedule.*linear"),
    ],
)
def test_a_setting_that_means_nothing_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(MoCoV3Config, change, "method")


@pytest.mark.parametrize(("crops", "message"), [((16,), "got 1; add one"), ((16, 12), "got 16 and 12 pixels")])
def test_views_that_it_cannot_compare_are_refused(crops: tuple[int, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MoCoV3Config().check(Known(crops=crops, batch_size=8, accumulate=1, backbone="tiny"))


def test_a_step_that_is_not_taken_leaves_nothing_but_batch_statistics() -> None:
    method = small()
    moved = {id(buffer) for buffer in statistics(method)}
    before = {name: value.clone() for name, value in method.state_dict().items()}
    for step in range(2):
        method(batch(step), clock(0))
    method.discard()
    kept = [name for name, value in method.state_dict(keep_vars=True).items() if id(value) not in moved]
    assert any(name.startswith("target.") for name in kept)
    assert all(torch.equal(method.state_dict()[name], before[name]) for name in kept)


def test_a_resumed_twin_goes_on_to_the_bit() -> None:
    method, twin = small(), small()
    train(method, range(2))
    twin.load_state_dict(method.state_dict())
    assert train(twin, range(2, 4)) == train(method, range(2, 4))


def test_what_it_is_made_of_in_words() -> None:
    assert small().parts() == {
        "predictor": "MLP",
        "target": "momentum 0.99 to 1",
        "objective": "InfoNCE (in the batch)",
        "pairs": "(0,1) (1,0)",
        "batch norm": "one forward a view",
        "keeps": "online",
    }


# --- presets ----------------------------------------------------------------------------------------------------------


def test_the_presets_have_the_published_rates() -> None:
    resnet, vit = presets.imagenet(), presets.imagenet_vit()
    assert resnet.optim.peak_lr(resnet.loop.batch_size) == pytest.approx(0.6 * 16)
    assert vit.optim.peak_lr(vit.loop.batch_size) == pytest.approx(1.5e-4 * 16)
    assert (vit.optim.name, vit.optim.weight_decay, vit.optim.exclude_1d) == ("adamw", 0.1, False)
    assert presets.cifar10().optim.trust_clip
    assert presets.cifar10().views.crops == VIEWS["byol_cifar"]
    assert presets.scenes().method.name == "moco_v3"


def test_a_vit_trains_all_but_its_patch_projection_and_positions() -> None:
    torch.manual_seed(0)
    recipe = presets.imagenet_vit()
    config = BackboneConfig(
        name="vit_tiny_patch16_224",
        heads=recipe.backbone.heads,
        positions=recipe.backbone.positions,
        patch_projection=recipe.backbone.patch_projection,
        init_scheme=recipe.backbone.init_scheme,
    )
    backbone = build_backbone(config, 3, 32, seed=0)
    known = Known(crops=(32, 32), batch_size=B, accumulate=1, backbone=config.name)
    method = moco_v3(backbone, build(MoCoV3Config, {**SMALL, "predictor_output_norm": "batch_no_affine"}), known)
    crops = batch(0, (32, 32)).crops
    method(Views((crops[0].float(), crops[1].float()), torch.arange(B)), clock(0)).loss.backward()
    untrained = {name for name, p in method.backbone.named_parameters() if p.grad is None}
    assert untrained == {"pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias"}
