"""InvaSpread against the authors' algorithm written as loops, its closed forms, and what each setting does."""

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stopgrad import dist
from stopgrad.contracts import ConfigError, Known
from stopgrad.losses import instance_spreading, instance_spreading_queries
from stopgrad.methods.invaspread import InvaSpreadConfig, invaspread
from stopgrad.nn.batch_norm import statistics
from stopgrad.recipe.typed import build
from stopgrad.recipes import invaspread as presets
from stopgrad.siamese.family import Siamese, Vectors
from stopgrad.siamese.in_batch import InBatch
from stopgrad.siamese.pairs import pairs_of
from tests.methods.in_batch import backbone, batch, clock, known, vectors

CLOCK = clock(0)
LR = 0.05


def small(**changes: Any) -> Siamese:
    return invaspread(backbone(), build(InvaSpreadConfig, {"projector": {"dim": 6}, **changes}), known()).double()


def compared(vectors: Vectors, temperature: float = 0.5) -> float:
    objective = InBatch(instance_spreading_queries, "instance spreading", temperature)
    pairs = pairs_of("symmetric", 2)
    loss, _ = objective(vectors, vectors, vectors, pairs, torch.arange(len(vectors[0])), CLOCK)
    return float(loss)


# --- closed forms and invariants --------------------------------------------------------------------------------------


def test_equal_embeddings_of_128_images_lose_6_539() -> None:
    loss = compared(dict.fromkeys(range(2), torch.ones(128, 6)))
    assert loss == pytest.approx(math.log(255) - 254 * math.log(1 - 1 / 255), rel=1e-5)
    assert loss == pytest.approx(6.539, abs=1e-3)


def test_the_objective_is_instance_spreading_of_the_two_views() -> None:
    z = vectors()
    assert compared(z, 0.3) == pytest.approx(float(instance_spreading(z[0], z[1], 0.3)), abs=1e-12)


def test_neither_length_order_nor_the_views_names_matter() -> None:
    z = vectors()
    expected = pytest.approx(compared(z), abs=1e-12)
    order = torch.tensor([3, 0, 4, 2, 1])
    assert compared({v: 7 * z_v for v, z_v in z.items()}) == expected
    assert compared({v: z_v[order] for v, z_v in z.items()}) == expected
    assert compared({0: z[1], 1: z[0]}) == expected
    assert compared({0: z[0], 1: z[1][order]}) != expected


def test_two_images_taken_for_each_other_give_a_finite_loss_and_gradient() -> None:
    z = {0: torch.eye(6)[:2].requires_grad_(), 1: torch.eye(6)[[1, 0]]}  # each one's other view is the other's
    objective = InBatch(instance_spreading_queries, "instance spreading", 0.01)
    loss, _ = objective(z, z, z, pairs_of("symmetric", 2), torch.arange(2), CLOCK)
    (gradient,) = torch.autograd.grad(loss, z[0])
    assert loss.isfinite()
    assert gradient.isfinite().all()


def test_one_image_has_nobody_to_spread_from() -> None:
    with pytest.raises(ConfigError, match=r"batch of 1: .* use 2 or more"):
        compared(vectors(n=1))


# --- the algorithm as loops -------------------------------------------------------------------------------------------


def unit(row: Tensor) -> Tensor:
    return row / torch.sqrt(sum(x * x for x in row))


def as_loops(f: Tensor, temperature: float, detach_keys: bool) -> Tensor:
    """BatchAverage.py: f [2N, D] holds the first views, then the second; an embedding is none of its own candidates."""
    f = torch.stack([unit(row) for row in f])
    keys = f.detach() if detach_keys else f
    n = len(f) // 2
    total = f.new_zeros(())
    for anchor in range(2 * n):
        positive = (anchor + n) % (2 * n)
        e = {k: torch.exp(f[anchor] @ keys[k] / temperature) for k in range(2 * n) if k != anchor}
        everything = sum(e.values())
        total = total - torch.log(e[positive] / everything)
        for k in e:
            if k != positive:
                total = total - torch.log(1 - e[k] / everything)
    return total / (2 * n)


@pytest.mark.parametrize("change", [{}, {"detach_keys": True}, {"temperature": 0.5}], ids=str)
def test_three_steps_are_the_authors_written_as_loops(change: dict[str, Any]) -> None:
    method = small(**change)
    twin = copy.deepcopy(method)
    for step in range(3):
        views = batch(step)
        f = twin.projector(twin.backbone(torch.cat(views.crops)))
        theirs = as_loops(f, change.get("temperature", 0.1), change.get("detach_keys", False))
        ours = method(views, CLOCK).loss
        assert ours.item() == pytest.approx(theirs.item(), abs=1e-10)
        found = torch.autograd.grad(ours, list(method.parameters()))
        expected = torch.autograd.grad(theirs, list(twin.parameters()))
        for module, gradients in ((method, found), (twin, expected)):
            for parameter, gradient in zip(module.parameters(), gradients):
                parameter.data -= LR * gradient
        method.after_step(CLOCK)
        for a, b in zip(found, expected):
            torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9)
    for a, b in zip(statistics(method), statistics(twin), strict=True):
        torch.testing.assert_close(a, b)


def test_processes_with_a_part_of_the_batch_each_have_the_loss_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = vectors(n=6)
    losses = []
    for rank in range(3):
        part = {v: z_v[2 * rank : 2 * rank + 2] for v, z_v in whole.items()}

        def gather(x: Tensor, part: Vectors = part) -> Tensor:
            return whole[0 if torch.equal(x, part[0]) else 1]

        monkeypatch.setattr(dist, "gather", gather)
        monkeypatch.setattr(dist, "rank", lambda rank=rank: rank)
        losses.append(compared(part))
    monkeypatch.undo()
    assert sum(losses) / 3 == pytest.approx(compared(whole), abs=1e-12)


# --- settings, state, presets -----------------------------------------------------------------------------------------


def test_the_default_projector_is_one_linear_layer_with_bias() -> None:
    (layer,) = small().projector  # type: ignore[misc]
    assert isinstance(layer, nn.Linear)
    assert layer.bias is not None
    assert InvaSpreadConfig().projector.widths(512) == [512, 128]


def train(method: Siamese, steps: range) -> list[float]:
    losses = []
    for step in steps:
        loss = method(batch(step), CLOCK).loss
        for parameter, gradient in zip(method.parameters(), torch.autograd.grad(loss, list(method.parameters()))):
            parameter.data -= LR * gradient
        method.after_step(CLOCK)
        losses.append(loss.item())
    return losses


CHANGES: list[dict[str, Any]] = [
    {"projector": {"dim": 5}},
    {"projector": {"dim": 6, "layers": 2, "hidden": 9}},
    {"projector": {"dim": 6, "layers": 2, "hidden": 7}},
    {"projector": {"dim": 6, "layers": 2, "hidden": 9, "norm": "batch"}},
    {"projector": {"dim": 6, "output_norm": "batch_no_affine"}},
    {"temperature": 0.2},
    {"detach_keys": True},
]


def test_every_setting_changes_what_is_computed() -> None:
    found = [train(small(**change), range(3)) for change in [{}, *CHANGES]]
    assert all(a != b for i, a in enumerate(found) for b in found[:i])


@pytest.mark.parametrize("setting", [{"hidden": 256}, {"norm": "batch"}], ids=str)
def test_what_stands_between_layers_is_refused_for_one_layer(setting: dict[str, Any]) -> None:
    (name,) = setting
    said = rf"projector\.{name}={setting[name]} is read between layers, and invaspread's projector has 1; .* --set"
    with pytest.raises(ConfigError, match=said):
        build(InvaSpreadConfig, {"projector": setting}, "method")
    build(InvaSpreadConfig, {"projector": {**setting, "layers": 2}}, "method")


def test_a_temperature_of_0_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"method.temperature must be above 0, got 0; the paper uses 0.1"):
        InvaSpreadConfig(temperature=0)


@pytest.mark.parametrize(
    ("crops", "message"),
    [
        ((16,), "got 1; add one"),
        ((16, 12), "got 16 and 12 pixels"),
        ((16, 16, 8), "no multi-crop, got 3; keep the first two"),
    ],
)
def test_views_that_it_cannot_compare_are_refused(crops: tuple[int, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        InvaSpreadConfig().check(Known(crops=crops, batch_size=8, accumulate=1, backbone="tiny"))


def test_a_step_that_is_not_taken_leaves_nothing_but_batch_statistics() -> None:
    method = small()
    moved = {id(buffer) for buffer in statistics(method)}
    before = {name: value.clone() for name, value in method.state_dict().items()}
    for step in range(2):
        method(batch(step), CLOCK)
    method.discard()
    kept = [name for name, value in method.state_dict(keep_vars=True).items() if id(value) not in moved]
    assert kept
    assert all(torch.equal(method.state_dict()[name], before[name]) for name in kept)


def test_a_resumed_twin_goes_on_to_the_bit() -> None:
    method, twin = small(), small()
    train(method, range(2))
    twin.load_state_dict(method.state_dict())
    assert train(twin, range(2, 4)) == train(method, range(2, 4))


def test_what_it_is_made_of_in_words() -> None:
    assert small().parts() == {
        "predictor": "none",
        "target": "shared (gradient flows)",
        "objective": "instance spreading",
        "pairs": "(0,1) (1,0)",
        "batch norm": "one forward",
        "keeps": "online",
    }
    assert small(detach_keys=True).parts()["target"] == "stop-gradient"


def test_the_presets_have_the_published_rates() -> None:
    cifar10 = presets.cifar10()
    assert cifar10.optim.peak_lr(cifar10.loop.batch_size) == pytest.approx(0.03)
    assert [round(share * cifar10.loop.epochs) for share, _ in cifar10.optim.steps] == [120, 160, 200]
    assert presets.imagenet().optim.peak_lr(256) == pytest.approx(0.03)
    for crop in cifar10.views.crops:  # demo_seen.py
        assert (crop.scale, crop.hflip, crop.grayscale, crop.blur) == ((0.2, 1.0), 0.5, 0.2, 0.0)
        assert (crop.jitter, crop.brightness, crop.contrast, crop.saturation, crop.hue) == (1.0, 0.4, 0.4, 0.4, 0.4)
    assert presets.scenes().method.name == "invaspread"
