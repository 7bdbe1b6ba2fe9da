"""DINO against its paper's Algorithm 1, written out in loops; its centre, its schedules, its teacher."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from stopgrad.contracts import Clock, ConfigError, Views
from stopgrad.losses import centred_cross_entropy
from stopgrad.methods.dino import DINOConfig, dino
from stopgrad.nn.backbones import build_backbone
from stopgrad.nn.config import BackboneConfig
from stopgrad.recipe.typed import build
from stopgrad.recipes import dino as presets
from stopgrad.siamese.assignment import CentredCrossEntropy, SharedPrototypes
from stopgrad.siamese.family import Siamese
from stopgrad.siamese.pairs import pairs_of
from stopgrad.views.presets import PRESETS as VIEWS
from tests.methods.toy import Trunk, batch, clock, known, trunk

K = 4
SMALL = {
    "prototypes": K,
    "projector": {"layers": 2, "hidden": 5, "dim": 3},
    "momentum": 0.8,
    "warmup_teacher_epochs": 2,  # epochs are 5 steps
    "frozen_epochs": 1,
}


def small(crops: int = 2, **changes: Any) -> Siamese:
    config = build(DINOConfig, {**SMALL, **changes})
    config.check(known(crops))
    method = dino(trunk(), config, known(crops)).double()
    scale = torch.tensor([6.0, 3.0, 9.0], dtype=torch.float64)
    with torch.no_grad():  # std .02 would make all images of a toy the same direction
        for part in (method.projector, method.target.target_projector):
            part[-2].weight.mul_(50 * scale[: len(part[-2].weight), None])  # type: ignore[index,union-attr]
    return method


def objective_of(method: Siamese) -> CentredCrossEntropy:
    assert isinstance(method.objective, CentredCrossEntropy)
    return method.objective


def train(method: Siamese, steps: range, crops: int = 2) -> list[float]:
    optimiser = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.1, momentum=0.9)
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


NAMES = {
    "backbone.linear": "target.target_backbone.linear",
    "projector.0": "target.target_projector.0",
    "projector.2": "target.target_projector.2",
    "predictor.prototypes": "target.target_predictor.prototypes",
}


def logits_by_loops(weights: dict[str, Tensor], crop: Tensor, names: list[str]) -> list[list[Tensor]]:
    """[B] of [K]: trunk, two layers with GELU between, unit vectors, cosines with the prototypes' directions."""
    trunk_, first, second, prototypes = names
    rows = []
    for x in crop.flatten(1):
        h = weights[f"{trunk_}.weight"] @ x + weights[f"{trunk_}.bias"]
        hidden = weights[f"{first}.weight"] @ h + weights[f"{first}.bias"]
        hidden = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
        z = weights[f"{second}.weight"] @ hidden + weights[f"{second}.bias"]
        z = z / (z * z).sum() ** 0.5
        rows.append([w @ z / (w * w).sum() ** 0.5 for w in weights[f"{prototypes}.weight"]])
    return rows


def softmax_by_loops(row: list[Any]) -> list[Any]:
    exponents = [torch.exp(value) for value in row]
    return [value / sum(exponents) for value in exponents]


@pytest.mark.parametrize("crops", [2, 4])
def test_losses_gradients_teacher_and_centre_are_the_papers_written_out(crops: int) -> None:
    method = small(crops)
    optimiser = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.1, momentum=0.9)
    weights = {name: p.detach().clone() for name, p in method.named_parameters()}
    students = [name for name in weights if not name.startswith("target.")]
    velocity: dict[str, Tensor] = {}
    centre: list[Any] = [torch.zeros((), dtype=torch.float64)] * K
    for step in range(3, 9):  # prototypes frozen until 5, the teacher's temperature 0.04 until 5, then 0.07
        views = batch(step, crops)
        for name in students:
            weights[name] = weights[name].detach().requires_grad_()
        said = [logits_by_loops(weights, crop, list(NAMES)) for crop in views.crops]
        taught = [logits_by_loops(weights, crop, list(NAMES.values())) for crop in views.crops[:2]]
        temperature = 0.04 if step < 5 else 0.07
        expected: Any = 0.0
        for i in (0, 1):
            for v in range(crops):
                if v == i:
                    continue
                for b in range(6):
                    wanted = softmax_by_loops([(taught[i][b][k] - centre[k]) / temperature for k in range(K)])
                    found = softmax_by_loops([said[v][b][k] / 0.1 for k in range(K)])
                    for k in range(K):
                        expected = expected - wanted[k] * torch.log(found[k]) / 6 / (2 * (crops - 1))
        gradients = torch.autograd.grad(expected, [weights[name] for name in students])
        theirs = dict(zip(students, gradients))
        loss = method(views, clock(step)).loss
        optimiser.zero_grad()
        loss.backward()
        assert loss.item() == pytest.approx(expected.item(), rel=1e-9)
        for name, parameter in method.named_parameters():
            if name in theirs:
                torch.testing.assert_close(parameter.grad, theirs[name], rtol=1e-6, atol=1e-10)
            else:
                assert parameter.grad is None
        method.before_step(clock(step))
        optimiser.step()
        method.after_step(clock(step))
        with torch.no_grad():
            for name in students:
                if not (name.startswith("predictor.") and step < 5):
                    velocity[name] = 0.9 * velocity[name] + theirs[name] if name in velocity else theirs[name]
                    weights[name] = weights[name] - 0.1 * velocity[name]
            m = 1 - (1 - 0.8) * (1 + math.cos(math.pi * step / 10)) / 2
            for name in students:
                stem, kind = name.rsplit(".", 1)
                slow = f"{NAMES[stem]}.{kind}"
                weights[slow] = m * weights[slow] + (1 - m) * weights[name]
            for k in range(K):
                mean = sum(taught[i][b][k] for i in (0, 1) for b in range(6)) / 12
                centre[k] = 0.9 * centre[k] + 0.1 * mean
    for name, parameter in method.named_parameters():
        torch.testing.assert_close(parameter.detach(), weights[name].detach(), rtol=1e-6, atol=1e-10)
    torch.testing.assert_close(objective_of(method).centre.value, torch.stack(centre)[None], rtol=1e-6, atol=1e-10)


def test_the_loss_is_the_mean_of_centred_cross_entropies_and_the_sum_of_its_logged_parts() -> None:
    generator = torch.Generator().manual_seed(2)
    objective = objective_of(small(4))
    objective.centre.value.copy_(torch.randn(1, K, generator=generator))
    p = {view: torch.randn(6, K, generator=generator, dtype=torch.float64) for view in range(4)}
    t = {view: torch.randn(6, K, generator=generator, dtype=torch.float64) for view in range(2)}
    pairs = pairs_of("symmetric", 4)
    assert len(pairs.both) == 2 * (2 + 1)
    loss, logs = objective(p, {}, t, pairs, torch.arange(6), clock(5))
    each = [centred_cross_entropy(p[v], t[i], objective.centre.value, 0.1, 0.07) for v, i in pairs.both]
    assert loss.item() == pytest.approx(torch.stack(each).mean().item(), rel=1e-9)
    assert (logs["target_entropy"] + logs["kl"]).item() == pytest.approx(loss.item(), rel=1e-9)
    assert logs["kl"].item() > 0


def test_both_collapses_show_in_the_entropy_and_leave_no_divergence() -> None:
    pairs, index = pairs_of("symmetric", 2), torch.arange(6)
    uniform = torch.full((6, K), 0.3, dtype=torch.float64)
    one_hot = torch.zeros(6, K, dtype=torch.float64)
    one_hot[:, 1] = 10.0
    for logits, entropy in ((uniform, math.log(K)), (one_hot, 0.0)):
        views = {0: logits, 1: logits}
        loss, logs = objective_of(small())(views, views, views, pairs, index, clock())
        assert logs["target_entropy"].item() == pytest.approx(entropy, abs=1e-9)
        assert logs["kl"].item() == pytest.approx(0, abs=1e-9)
        assert loss.item() == pytest.approx(entropy, abs=1e-9)


def test_the_centre_follows_a_constant_teacher_and_the_loss_uses_the_one_before() -> None:
    method = small()
    objective, pairs = objective_of(method), pairs_of("symmetric", 2)
    a = torch.tensor([0.2, -0.4, 0.6, 0.1], dtype=torch.float64)
    t = {0: a.expand(6, K), 1: a.expand(6, K)}
    for step in range(1, 4):
        _, logs = objective(t, t, t, pairs, torch.arange(6), clock())
        left = torch.softmax(a * 0.9 ** (step - 1) / 0.04, dim=0)  # what the centre has not taken away yet
        assert logs["target_entropy"].item() == pytest.approx(-(left * left.log()).sum().item())
        objective.after_step(method, clock())
        assert objective.centre.value.shape == (1, K)
        torch.testing.assert_close(objective.centre.value[0], (1 - 0.9**step) * a)


@pytest.mark.parametrize("warmup", [0, 1, 2, 30])
def test_the_teachers_temperature_rises_once_an_epoch_as_in_the_code(warmup: int) -> None:
    objective = objective_of(small(warmup_teacher_epochs=warmup))
    reference = np.concatenate([np.linspace(0.04, 0.07, warmup), np.full(35 - warmup, 0.07)])
    for epoch in range(35):
        for step in (5 * epoch, 5 * epoch + 4):
            assert objective.temperature_at(Clock(step, 175, 5)) == pytest.approx(reference[epoch])


def test_prototypes_keep_their_directions_in_the_first_epoch_and_logits_are_cosines() -> None:
    method = small()
    predictor = method.predictor
    assert isinstance(predictor, SharedPrototypes)
    before = predictor.prototypes.weight.detach().clone()
    train(method, range(5))
    assert torch.equal(predictor.prototypes.weight, before)
    train(method, range(5, 6))
    assert not torch.equal(predictor.prototypes.weight, before)
    with torch.no_grad():
        predictor.prototypes.weight.mul_(7)
        found = predictor(method.embed(batch().crops[0])[1])
    assert found.abs().max() <= 1 + 1e-12


def test_the_teacher_sees_the_global_crops_alone_and_is_what_is_kept() -> None:
    method = small(5)
    seen = []
    teacher = method.trunks()["backbone"]
    assert teacher is method.target.target_backbone
    teacher.register_forward_hook(lambda module, given, out: seen.append(len(given[0])))
    train(method, range(2), crops=5)
    assert seen == [12, 12]
    assert not torch.equal(teacher.linear.weight, method.backbone.linear.weight)  # type: ignore[arg-type,union-attr]
    h, z = method.embed(batch().crops[0])
    torch.testing.assert_close(h, teacher(batch().crops[0]))
    torch.testing.assert_close(z.norm(dim=1), torch.ones(6, dtype=torch.float64))
    assert all(not p.requires_grad for p in method.target.parameters())
    assert method.parts()["keeps"] == "target"
    assert method.parts()["predictor"] == "none"
    assert method.parts()["objective"] == "centred cross-entropy (centre)"


def test_only_the_student_leaves_branches_out() -> None:
    vit = build_backbone(BackboneConfig(name="vit_tiny_patch16_224", drop_path=0.5), 3, 32, seed=0)
    config = build(DINOConfig, {"prototypes": K, "projector": {"hidden": 8, "dim": 4}})
    method = dino(vit, config, known()).train()
    x = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        student = [method.backbone(x) for _ in range(2)]
        teacher = [method.embed(x)[0] for _ in range(2)]
    assert not torch.equal(*student)
    assert torch.equal(*teacher)


def test_logits_are_float32_under_autocast() -> None:
    predictor = SharedPrototypes(3, K, 1)
    z = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        narrow = predictor(z)
    assert torch.equal(narrow, predictor(z.float()))


def test_the_projector_ends_in_unit_vectors_has_gelu_and_batch_norm_only_where_asked() -> None:
    method = dino(Trunk(), DINOConfig(prototypes=K), known())
    kinds = [type(layer).__name__ for layer in method.projector.children()]
    assert kinds == ["Linear", "GELU", "Linear", "GELU", "Linear", "Normalise"]
    assert [tuple(p.shape) for p in method.projector.parameters() if p.ndim == 2] == [
        (2048, 4),
        (2048, 2048),
        (256, 2048),
    ]
    method = dino(Trunk(), build(DINOConfig, {"prototypes": K, "projector": {"norm": "batch"}}), known())
    assert [type(layer).__name__ for layer in method.projector.children()].count("BatchNorm") == 2


@pytest.mark.parametrize(
    "change",
    [
        {"projector": {"layers": 3, "hidden": 5, "dim": 3}},
        {"projector": {"layers": 2, "hidden": 6, "dim": 3}},
        {"projector": {"layers": 2, "hidden": 5, "dim": 2}},
        {"projector": {"layers": 2, "hidden": 5, "dim": 3, "norm": "batch"}},
        {"prototypes": 5},
        {"momentum": 0.9},
        {"momentum_schedule": "constant"},
        {"student_temperature": 0.2},
        {"teacher_temperature": 0.06},
        {"warmup_teacher_temperature": 0.05},
        {"warmup_teacher_epochs": 0},
        {"centre_momentum": 0.5},
        {"frozen_epochs": 0},
    ],
    ids=str,
)
def test_every_setting_changes_what_is_computed(change: dict[str, Any]) -> None:
    assert train(small(**change), range(2, 7)) != train(small(), range(2, 7))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"prototypes": 1}, "method.prototypes must be at least 2, got 1; the paper uses 65536"),
        ({"momentum": 1.5}, r"method.momentum must be in \[0, 1\], got 1.5; the paper uses 0.996"),
        ({"centre_momentum": -0.1}, r"method.centre_momentum must be in \[0, 1\], got -0.1; the paper uses 0.9"),
        ({"student_temperature": 0.0}, "method.student_temperature must be above 0, got 0.0; the paper uses 0.1"),
        ({"teacher_temperature": -1.0}, "method.teacher_temperature must be above 0, got -1.0; the paper uses 0.07"),
        ({"warmup_teacher_temperature": 0.0}, "method.warmup_teacher_temperature must be above 0, got 0.0"),
        ({"warmup_teacher_epochs": -1}, "method.warmup_teacher_epochs must be at least 0, got -1"),
        ({"frozen_epochs": -1}, "method.frozen_epochs must be at least 0, got -1"),
        (
            {"teacher_temperature": 0.03},
            "warmup_teacher_temperature=0.04 is above teacher_temperature=0.03, .* --set method.warmup.*=0.03",
        ),
        (
            {"warmup_teacher_temperature": 0.02, "warmup_teacher_epochs": 0},
            "warmup_teacher_temperature=0.02 is read by nothing here; .* --set method.warmup_teacher_epochs=30",
        ),
        ({"projector": {"output_norm": "batch"}}, "type --set method.projector.output_norm=none"),
    ],
    ids=str,
)
def test_a_setting_out_of_range_is_an_error(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        build(DINOConfig, settings, "method")


def test_prototypes_that_would_never_be_trained_are_an_error() -> None:
    said = r"frozen_epochs=5 leaves nothing of loop.epochs=5: .* --set method.frozen_epochs=1, or"
    with pytest.raises(ConfigError, match=said):
        DINOConfig(frozen_epochs=5).check(replace(known(), epochs=5))
    DINOConfig(frozen_epochs=4).check(replace(known(), epochs=5))
    DINOConfig(frozen_epochs=5).check(known())  # nobody said how many there are


def test_a_teacher_that_does_not_warm_up_may_be_as_cold_as_it_likes() -> None:
    assert DINOConfig(teacher_temperature=0.02, warmup_teacher_epochs=0).teacher_temperature == 0.02


def test_one_crop_is_an_error() -> None:
    with pytest.raises(ConfigError, match="dino compares 2 views, got 1"):
        DINOConfig().check(known(1))


def test_a_step_that_is_not_taken_leaves_nothing_behind() -> None:
    method = small()
    train(method, range(3))
    before = {name: value.clone() for name, value in method.state_dict().items()}
    for step in (3, 4):
        method(batch(step, b=3), clock(3))  # micro-batches
    method.discard()
    assert all(torch.equal(method.state_dict()[name], value) for name, value in before.items())
    objective_of(method).after_step(method, clock(3))
    assert torch.equal(objective_of(method).centre.value, before["objective.centre.value"])


def test_the_centre_is_the_mean_over_micro_batches() -> None:
    whole, parts = small(), small()
    views = batch()
    whole(views, clock())
    for part in (slice(0, 3), slice(3, 6)):
        parts(Views(tuple(crop[part] for crop in views.crops), views.index[part]), clock())
    for method in (whole, parts):
        method.after_step(clock())
    assert objective_of(whole).centre.value.abs().max() > 1e-3
    torch.testing.assert_close(objective_of(parts).centre.value, objective_of(whole).centre.value)


def test_a_restored_twin_goes_on_to_the_bit() -> None:
    method, twin = small(), small()
    train(method, range(6))
    twin.load_state_dict(method.state_dict())
    assert train(twin, range(6, 9)) == train(method, range(6, 9))


def test_the_presets_have_the_rates_of_the_reference() -> None:
    vit, resnet, cifar = presets.imagenet(), presets.imagenet_resnet50(), presets.cifar10()
    for recipe, peak, last in ((vit, 0.001, 1e-6), (resnet, 0.06, 1e-6), (cifar, 0.3, 0.0)):
        rate = recipe.optim.peak_lr(recipe.loop.batch_size)
        assert rate == pytest.approx(peak)
        assert rate * recipe.optim.end == pytest.approx(last)
    assert (vit.optim.weight_decay, vit.optim.weight_decay_end) == (0.04, 0.4)
    assert (vit.optim.clip_norm, vit.optim.clip_scope) == (3.0, "tensor")
    assert vit.known().crops == (224, 224, *(96,) * 8)
    assert {crop.scale for crop in resnet.views.crops} == {(0.14, 1.0), (0.05, 0.14)}
    assert cifar.views.crops == VIEWS["byol_cifar"]
    assert presets.scenes().method.name == "dino"


def test_the_presets_have_the_teachers_temperature_of_the_runs_they_quote() -> None:
    """Constant in the README's commands; risen over solo-learn's former default of 50 epochs."""
    for preset in (presets.imagenet, presets.imagenet_resnet50, presets.small):
        method = preset().method
        assert isinstance(method, DINOConfig)
        assert (method.teacher_temperature, method.warmup_teacher_epochs) == (0.04, 0)
    cifar = presets.cifar10().method
    assert isinstance(cifar, DINOConfig)
    assert (cifar.warmup_teacher_temperature, cifar.teacher_temperature) == (0.04, 0.07)
    assert cifar.warmup_teacher_epochs == 50
    assert presets.imagenet().loop.batch_size == 512


def test_the_preset_for_small_sets_is_the_resnets_with_the_momentum_for_small_batches() -> None:
    small, resnet = presets.small(), presets.imagenet_resnet50()
    assert isinstance(small.method, DINOConfig)
    assert (small.method.momentum, small.method.prototypes) == (0.9995, 4096)
    assert small.views.crops == resnet.views.crops
    assert (small.optim.name, small.optim.base_lr, small.optim.weight_decay) == ("sgd", 0.03, 1e-4)
    assert small.optim.peak_lr(small.loop.batch_size) * small.optim.end == pytest.approx(1e-6)
