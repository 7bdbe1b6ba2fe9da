"""Fine-tuning and distillation: the contract of every method, closed forms, and both written out in loops."""

import copy
import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stopgrad.contracts import Clock, ConfigError, Known
from stopgrad.methods import METHODS, method_named
from stopgrad.methods.distill import DistillConfig
from stopgrad.methods.finetune import FinetuneConfig
from stopgrad.methods.taught import Answering, Distill, Taught
from stopgrad.nn.batch_norm import statistics
from stopgrad.nn.config import BackboneConfig
from stopgrad.optim.config import OptimConfig
from stopgrad.optim.groups import build_optimiser
from stopgrad.training.loop import one_step
from tests.methods.taught import CLASSES, IMAGES, SETTINGS, batch, known, small_taught

NAMES = list(SETTINGS)
CLOCK = Clock(0, 10, 2, seed=1)


def trained(method: Taught, steps: range) -> list[float]:
    optimiser = build_optimiser(method, OptimConfig(), 12)
    losses = []
    for step in steps:
        out = method(batch(step), CLOCK)
        optimiser.zero_grad()
        out.loss.backward()
        optimiser.step()
        losses.append(out.loss.item())
    return losses


def state(method: nn.Module) -> dict[str, Tensor]:
    """All a checkpoint has, without the running statistics of batch norm."""
    free = {id(buffer) for buffer in statistics(method)}
    return {name: value.clone() for name, value in method.state_dict(keep_vars=True).items() if id(value) not in free}


def same(before: dict[str, Tensor], after: dict[str, Tensor]) -> None:
    assert before.keys() == after.keys()
    assert [name for name in before if not torch.equal(before[name], after[name])] == []


# --- the contract of every method -------------------------------------------------------------------------------------


def test_what_needs_labels_is_beside_the_methods() -> None:
    assert not {"finetune", "distill"} & METHODS.keys()
    assert method_named("finetune")[1] is FinetuneConfig
    assert method_named("distill")[1] is DistillConfig


@pytest.mark.parametrize("name", NAMES)
def test_a_restored_one_continues_to_the_bit(name: str) -> None:
    method, twin = small_taught(name), small_taught(name)
    trained(method, range(3))
    twin.load_state_dict(copy.deepcopy(method.state_dict()))
    assert trained(method, range(3, 6)) == trained(twin, range(3, 6))


@pytest.mark.parametrize("name", NAMES)
def test_a_forward_changes_nothing_but_batch_norm_statistics(name: str) -> None:
    method = small_taught(name)
    before = state(method)
    method(batch(0), CLOCK).loss.backward()
    same(before, state(method))


@pytest.mark.parametrize("name", NAMES)
def test_a_skipped_step_leaves_no_trace(name: str) -> None:
    method = small_taught(name)
    trained(method, range(2))
    before = copy.deepcopy(method.state_dict())
    job: Any = SimpleNamespace(
        method=method,
        parallel=method,
        optimiser=build_optimiser(method, OptimConfig(), 12),
        device=torch.device("cpu"),
        bf16=False,
        loop=SimpleNamespace(accumulate=2),
        optim=OptimConfig(),
    )
    broken = batch(2)
    broken.crops[0][0] = float("nan")
    assert not one_step(job, broken, CLOCK).finite
    same(before, method.state_dict())
    assert one_step(job, batch(3), CLOCK).finite


@pytest.mark.parametrize("name", NAMES)
def test_the_trunk_is_backbone_and_kept_layer_as_one(name: str) -> None:
    method = small_taught(name)
    h, z = method.embed(batch().crops[0])
    assert h.shape == z.shape == (12, 12)
    assert method.trunks()["backbone"].dim == 12
    out = method(batch(), CLOCK)
    assert out.loss.shape == ()
    assert not out.embedding.requires_grad
    assert all(value.ndim == 0 and not value.requires_grad for value in out.logs.values())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert method(batch(), CLOCK).loss.dtype == torch.float32


# --- closed forms -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_before_the_first_step_every_class_is_as_likely(name: str) -> None:
    method = small_taught(name)
    assert torch.equal(method.classify(batch().crops[0]), torch.zeros(12, CLASSES))
    share = 1.0
    if name == "distill, mixed":
        share = 0.7 + 0.3 * float((known(name)[batch().index] >= 0).float().mean())
    assert method(batch(), CLOCK).loss.item() == pytest.approx(share * math.log(CLASSES), rel=1e-6)


def test_a_student_that_is_its_teacher_stays_so() -> None:
    """Gradient 0, loss the teacher's entropy; in eval mode, since the teacher's batch norm is."""
    method = small_taught("distill", temperature=0.5)
    trained(method, range(2))
    assert isinstance(method, Distill)
    method.follow(copy.deepcopy(Answering(method.backbone, method.classifier)))
    method.eval()
    method.zero_grad()
    out = method(batch(), CLOCK)
    out.loss.backward()
    p = (method.classify(batch().crops[0]).detach() / 0.5).softmax(1)
    assert out.loss.item() == pytest.approx(float(-(p * p.log()).sum(1).mean()), rel=1e-5)
    assert out.logs["same_answer"] == 100
    assert max(float(p.grad.abs().max()) for p in method.parameters() if p.grad is not None) < 1e-6


def test_the_teacher_is_frozen_to_the_bit_and_stays_in_eval_mode() -> None:
    method = small_taught("distill, mixed")
    assert isinstance(method, Distill)
    before = copy.deepcopy(method.teacher.state_dict())
    moved = copy.deepcopy(method.backbone.state_dict())
    method.train()
    assert method.backbone.training
    assert not any(part.training for part in method.teacher.modules())
    trained(method, range(3))
    same(before, method.teacher.state_dict())
    assert not torch.equal(moved["trunk.stem.weight"], method.backbone.state_dict()["trunk.stem.weight"])
    assert all(p.grad is None and not p.requires_grad for p in method.teacher.parameters())
    assert not any(part.training for part in method.teacher.modules())
    method.eval()
    method.train()
    assert not method.teacher.training


def test_only_what_is_kept_is_in_the_optimiser() -> None:
    names = {}
    for kept, config in (("0", BackboneConfig(width=8)), ("1", None)):
        method = small_taught("finetune", config) if config else small_taught("finetune")
        optimiser = build_optimiser(method, OptimConfig(), 12)
        trained_here = {id(p) for group in optimiser.param_groups for p in group["params"]}
        named = dict(method.named_parameters())
        assert trained_here == {id(p) for p in named.values()}
        names[kept] = {name.replace("backbone.trunk.", "backbone.") for name in named}
    assert names["1"] - names["0"] == {"backbone.kept.0.weight", "backbone.kept.1.weight", "backbone.kept.1.bias"}
    assert names["0"] <= names["1"]


def test_labels_are_looked_up_by_index_and_not_by_place() -> None:
    method = small_taught("finetune")
    trained(method, range(2))
    views = batch(3)
    method.eval()
    logits = method.classify(views.crops[0])
    expected = torch.stack([-logits[i].log_softmax(0)[int(j) % CLASSES] for i, j in enumerate(views.index)]).mean()
    out = method(views, CLOCK)
    assert out.loss.item() == pytest.approx(expected.item(), rel=1e-6)
    right = [int(logits[i].argmax()) == int(j) % CLASSES for i, j in enumerate(views.index)]
    assert out.logs["right"].item() == pytest.approx(100 * sum(right) / 12)


# --- written out in loops ---------------------------------------------------------------------------------------------


def oracle_loss(name: str, method: Taught, views: Any, settings: dict[str, float]) -> Tensor:
    """The papers' sums over images, one after another."""
    crop = views.crops[0]
    logits = method.classifier(method.backbone(crop))
    total = torch.zeros((), dtype=torch.float64)
    for i, image in enumerate(views.index.tolist()):
        label = image % CLASSES
        if name == "finetune":
            total = total - torch.log(logits[i].exp()[label] / logits[i].exp().sum())
            continue
        assert isinstance(method, Distill)
        with torch.no_grad():
            answer = (method.teacher(crop)[i] / settings["temperature"]).exp()
        student = (logits[i] / settings["temperature"]).exp()
        for y in range(CLASSES):
            term = answer[y] / answer.sum() * torch.log(student[y] / student.sum())
            total = total - settings["alpha"] * settings["factor"] * term
        if settings["alpha"] < 1 and image % 4 < 2:
            total = total - (1 - settings["alpha"]) * torch.log(logits[i].exp()[label] / logits[i].exp().sum())
    return total / len(views.index)


@pytest.mark.parametrize(
    ("name", "changes", "settings"),
    [
        ("finetune", {}, {}),
        ("distill", {}, {"temperature": 1.0, "alpha": 1.0, "factor": 1.0}),
        ("distill", {"temperature": 0.1, "scaled": True}, {"temperature": 0.1, "alpha": 1.0, "factor": 0.01}),
        ("distill, mixed", {}, {"temperature": 0.5, "alpha": 0.7, "factor": 1.0}),
        ("distill, mixed", {"alpha": 0.0}, {"temperature": 0.5, "alpha": 0.0, "factor": 1.0}),
    ],
)
def test_losses_and_gradients_are_those_of_the_sums_over_three_steps(
    name: str, changes: dict[str, Any], settings: dict[str, float]
) -> None:
    method = small_taught(name, **changes).double()
    slow = copy.deepcopy(method)
    optimisers = [torch.optim.SGD([p for p in one.parameters() if p.requires_grad], lr=0.1) for one in (method, slow)]
    for step in range(3):
        views = batch(step, dtype=torch.float64)
        losses = [method(views, CLOCK).loss, oracle_loss(name, slow, views, settings)]
        torch.testing.assert_close(losses[0], losses[1], rtol=1e-10, atol=0)
        for optimiser, loss in zip(optimisers, losses):
            optimiser.zero_grad()
            loss.backward()
        for (key, p), q in zip(method.named_parameters(), slow.parameters()):
            if p.requires_grad:
                torch.testing.assert_close(p.grad, q.grad, rtol=1e-7, atol=1e-12, msg=lambda m, key=key: f"{key}: {m}")
        [optimiser.step() for optimiser in optimisers]


# --- settings ---------------------------------------------------------------------------------------------------------

ABOUT = Known(crops=(16,), batch_size=12, accumulate=1, backbone="tiny", images=IMAGES)


@pytest.mark.parametrize(
    ("config", "settings", "said"),
    [
        (FinetuneConfig, {"labels": "ten", "classes": 3}, "needs a share such as 1%"),
        (FinetuneConfig, {}, "needs a share such as 1%"),
        (DistillConfig, {}, "method.classes must be at least 2, got 0"),
        (FinetuneConfig, {"labels": "1%", "classes": 1}, "method.classes must be at least 2, got 1"),
        (FinetuneConfig, {"labels": "1%", "classes": 3, "from_projector_layer": -1}, "from_projector_layer must be at"),
        (DistillConfig, {"teacher": "runs/a", "classes": 3}, "must be an absolute path"),
        (DistillConfig, {"teacher": "/a", "classes": 1}, "method.classes must be at least 2"),
        (DistillConfig, {"teacher": "/a", "classes": 3, "temperature": 0}, "temperature must be above 0"),
        (DistillConfig, {"teacher": "/a", "classes": 3, "alpha": 1.5, "labels": "1%"}, r"alpha must be in \[0, 1\]"),
        (DistillConfig, {"teacher": "/a", "classes": 3, "alpha": 0.5}, "alpha=0.5 leaves 0.5 of the loss to labels"),
        (DistillConfig, {"teacher": "/a", "classes": 3, "labels": "1%"}, "read by nothing where method.alpha is 1"),
        (DistillConfig, {"teacher": "/a", "classes": 3, "alpha": 0.5, "labels": "many"}, "needs a share such as 1%"),
    ],
)
def test_a_wrong_setting_says_what_to_type(config: Any, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        config(**settings)


@pytest.mark.parametrize("crops", [(), (16, 16)])
def test_one_view_is_taken(crops: tuple[int, ...]) -> None:
    about = Known(crops=crops, batch_size=12, accumulate=1, backbone="tiny")
    for config in (FinetuneConfig(labels="1%", classes=3), DistillConfig(teacher="/a", classes=3)):
        config.check(ABOUT)
        with pytest.raises(ConfigError, match=r"takes 1 view of an image.* got [02]; keep the first"):
            config.check(about)


@pytest.mark.parametrize("changes", [{"temperature": 2.0}, {"scaled": True}, {"alpha": 0.2}])
def test_every_setting_of_a_distillation_changes_its_loss(changes: dict[str, Any]) -> None:
    one, other = small_taught("distill, mixed"), small_taught("distill, mixed", **changes)
    for method in (one, other):
        with torch.no_grad():
            method.classifier.weight.copy_(torch.linspace(-1, 1, method.classifier.weight.numel()).view(CLASSES, -1))
    assert one(batch(), CLOCK).loss != other(batch(), CLOCK).loss
