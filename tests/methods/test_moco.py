"""MoCo v1 and v2 against Algorithm 1, written out in loops: batch norm by groups, the queue, the slow copy."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stopgrad import dist, rng
from stopgrad.contracts import ConfigError, Known, Views
from stopgrad.methods.moco import MoCoConfig, MoCoV1Config, MoCoV2Config, moco
from stopgrad.methods.settings import HeadConfig
from stopgrad.nn.batch_norm import SplitBatchNorm, statistics
from stopgrad.recipes import moco as presets
from stopgrad.siamese.family import Siamese
from stopgrad.siamese.remembered import InfoNCE
from tests.methods.toy import batch, clock, gradients, known, trunk

LINEAR = HeadConfig(layers=1, dim=3, norm="none", output_norm="none")
KEYS, B = 14, 6  # no multiple of the batch: the queue wraps within a step
RATE = 0.3


class Normed(nn.Module):
    """[B, 1, 2, 2] -> [B, 4], with a batch norm to split."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.bn = nn.BatchNorm1d(4)
        self.dim = 4

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.bn(self.linear(x.flatten(1)))
        return out


def small(batch_size: int = B, **changes: Any) -> Siamese:
    torch.manual_seed(7)
    config = MoCoV1Config(**{"projector": LINEAR, "queue_size": KEYS, "momentum": 0.9, "bn_splits": 2, **changes})
    config.check(known(batch_size=batch_size))
    return moco(Normed(), config, known(batch_size=batch_size)).double()


def queue_of(method: Siamese) -> Tensor:
    assert isinstance(method.objective, InfoNCE)
    return method.objective.queue.keys


def steps(method: Siamese, count: int, start: int = 0) -> list[float]:
    losses = []
    for step in range(start, start + count):
        loss = method(batch(step), clock(step)).loss
        for name, gradient in gradients(loss, method).items():
            with torch.no_grad():
                method.get_parameter(name).sub_(RATE * gradient)
        method.after_step(clock(step))
        losses.append(loss.item())
    return losses


Weights = dict[str, Tensor]
NAMES = ("backbone.linear.weight", "backbone.linear.bias", "backbone.bn.weight", "backbone.bn.bias")
HEAD = ("projector.0.weight", "projector.0.bias")


def encoded(w: Weights, images: Tensor, groups: list[list[int]]) -> list[Tensor]:
    """Unit embeddings of `images` [B, 1, 2, 2], each image normalised with the statistics of its group."""
    linear, bias, scale, shift = (w[name] for name in NAMES)
    h = [linear @ image.flatten() + bias for image in images]
    out: list[Any] = [None] * len(h)
    for group in groups:
        mean = sum(h[i] for i in group) / len(group)
        variance = sum((h[i] - mean) ** 2 for i in group) / len(group)
        for i in group:
            z = w[HEAD[0]] @ (scale * (h[i] - mean) / (variance + 1e-5) ** 0.5 + shift) + w[HEAD[1]]
            out[i] = z / (z @ z) ** 0.5
    return out


def algorithm_1(method: Siamese, count: int, symmetric: bool, temperature: float) -> tuple[list[float], Any, Any, Any]:
    """The paper's, in loops. Returns the losses, first gradients, the slow copy and the queue after `count` steps."""
    w = {name: method.get_parameter(name).detach().clone().requires_grad_() for name in NAMES + HEAD}
    slow = {name: value.detach().clone() for name, value in w.items()}
    queue = [row.clone() for row in queue_of(method)]
    place, losses, first = 0, [], None
    for step in range(count):
        views = batch(step)
        order = rng.permutation(B, clock().seed, step, purpose=rng.SHUFFLE).tolist()
        shuffled = [order[: B // 2], order[B // 2 :]]
        in_order = [list(range(B // 2)), list(range(B // 2, B))]
        loss: Any = 0.0
        new = {}
        for online, target in ((0, 1), (1, 0)) if symmetric else ((0, 1),):
            queries = encoded(w, views.crops[online], in_order)
            new[target] = keys = encoded(slow, views.crops[target], shuffled)
            for q, k in zip(queries, keys):
                positive = torch.exp(q @ k / temperature)
                others: Any = sum(torch.exp(q @ row / temperature) for row in queue)
                loss = loss - torch.log(positive / (positive + others)) / B
        found = torch.autograd.grad(loss, list(w.values()))
        first = first or dict(zip(w, found))
        with torch.no_grad():
            for value, gradient in zip(w.values(), found):
                value -= RATE * gradient
            slow = {name: 0.9 * slow[name] + 0.1 * value.detach() for name, value in w.items()}
        for key in (key for view in sorted(new) for key in new[view]):
            queue[place % KEYS] = key.detach()
            place += 1
        losses.append(loss.item())
    return losses, first, slow, torch.stack(queue)


@pytest.mark.parametrize("pairs", ["asymmetric", "symmetric"])
def test_losses_gradients_queue_and_slow_copy_are_algorithm_1s(pairs: str) -> None:
    losses, first, slow, queue = algorithm_1(small(pairs=pairs), 4, pairs == "symmetric", 0.07)
    method = small(pairs=pairs)
    ours = gradients(method(batch(), clock()).loss, method)
    assert set(ours) == set(first)
    for name, gradient in ours.items():
        torch.testing.assert_close(gradient, first[name], rtol=1e-6, atol=1e-10)
    method = small(pairs=pairs)
    assert steps(method, 4) == pytest.approx(losses, rel=1e-9)
    torch.testing.assert_close(queue_of(method), queue, rtol=1e-9, atol=1e-12)
    for name, value in slow.items():
        torch.testing.assert_close(method.get_parameter(f"target.target_{name}").detach(), value, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("pairs", "times"), [("asymmetric", 1), ("symmetric", 2)])
def test_equal_similarities_cost_the_log_of_the_candidates_and_twice_that_in_both_directions(
    pairs: str, times: int
) -> None:
    method = small(pairs=pairs)
    alike = torch.ones(KEYS, 3, dtype=torch.float64) / math.sqrt(3)
    queue_of(method).copy_(alike)
    with torch.no_grad():
        for projector in ("projector", "target.target_projector"):
            method.get_parameter(f"{projector}.0.weight").zero_()
            method.get_parameter(f"{projector}.0.bias").fill_(1.0)
    assert method(batch(), clock()).loss.item() == pytest.approx(times * math.log(KEYS + 1))


def test_the_order_of_the_queue_changes_neither_loss_nor_gradient() -> None:
    method, other = small(), small()
    queue_of(other).copy_(queue_of(method).flip(0))
    loss, same = method(batch(), clock()).loss, other(batch(), clock()).loss
    assert same.item() == pytest.approx(loss.item(), rel=1e-12)
    for a, b in zip(gradients(loss, method).values(), gradients(same, other).values()):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_this_steps_keys_are_none_of_its_negatives_and_stay_unit_rows_later() -> None:
    method = small()
    before = queue_of(method).clone()
    method(batch(), clock())
    assert torch.equal(queue_of(method), before)
    method.after_step(clock())
    assert torch.equal(queue_of(method)[B:], before[B:])
    assert not torch.isclose(queue_of(method)[:B], before[:B]).all(dim=1).any()
    torch.testing.assert_close(queue_of(method).norm(dim=1), torch.ones(KEYS, dtype=torch.float64))


def test_the_slow_copy_learns_nothing_by_gradient_and_is_saved() -> None:
    method = small()
    method(batch(), clock()).loss.backward()
    slow = dict(method.get_submodule("target").named_parameters())
    assert slow
    assert all(not parameter.requires_grad and parameter.grad is None for parameter in slow.values())
    assert {f"target.{name}" for name in slow} <= set(method.state_dict())


def test_keys_are_normalised_among_others_than_their_queries() -> None:
    """Shuffled batch norm: with the order left as it is, a step costs something else; with one group it does not."""

    def unshuffled(n: int, seed: int, epoch: int, purpose: int = rng.ORDER) -> Any:
        return torch.arange(n).numpy()

    for splits, matters in ((2, True), (1, False)):
        shuffled = small(bn_splits=splits)(batch(), clock()).loss.item()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(rng, "permutation", unshuffled)
            plain = small(bn_splits=splits)(batch(), clock()).loss.item()
        assert (abs(plain - shuffled) > 1e-6) is matters


def test_batch_norm_is_split_in_the_backbone_the_projector_and_their_copies() -> None:
    head = HeadConfig(layers=2, hidden=4, dim=3, norm="batch", output_norm="none")
    method = small(projector=head, bn_splits=3)
    split = {name for name, module in method.named_modules() if isinstance(module, SplitBatchNorm)}
    assert split == {
        "backbone.bn",
        "projector.1",
        "target.target_backbone.bn",
        "target.target_projector.1",
    }
    assert all(module.splits == 3 for module in method.modules() if isinstance(module, SplitBatchNorm))
    assert not method.syncs_batch_norm


def test_processes_share_out_the_groups_of_batch_norm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dist, "world", lambda: 2)
    whole = [module for module in small(bn_splits=2).modules() if isinstance(module, SplitBatchNorm)]
    halves = [module.splits for module in small(8, bn_splits=4).modules() if isinstance(module, SplitBatchNorm)]
    assert not whole
    assert halves == [2, 2]
    monkeypatch.setattr(dist, "world", lambda: 4)
    with pytest.raises(ConfigError, match=r"bn_splits=2 groups can't be shared out evenly by 4 processes.*bn_splits=4"):
        small(bn_splits=2)


CHANGES: list[dict[str, Any]] = [
    {"projector": replace(LINEAR, dim=2)},
    {"queue_size": KEYS + 1},
    {"momentum": 0.5},
    {"temperature": 0.2},
    {"pairs": "symmetric"},
    {"bn_splits": 3},
]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_every_setting_changes_what_is_computed(change: dict[str, Any]) -> None:
    assert not math.isclose(steps(small(**change), 2)[1], steps(small(), 2)[1])


def test_v2_is_v1_with_an_mlp_and_another_temperature() -> None:
    v1, v2 = MoCoV1Config(), MoCoV2Config()
    assert (v1.projector.layers, v2.projector.layers) == (1, 2)
    assert replace(v2, projector=v1.projector, temperature=v1.temperature) == MoCoV2Config(
        projector=v1.projector, temperature=0.07
    )
    torch.manual_seed(7)
    method = moco(Normed(), replace(v2, queue_size=KEYS, bn_splits=2), known())
    assert [type(layer) for layer in method.projector.children()] == [nn.Linear, nn.ReLU, nn.Linear]
    assert all(layer.bias is not None for layer in method.projector.children() if isinstance(layer, nn.Linear))
    assert method.projector(torch.zeros(2, 4)).shape == (2, 128)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperature": 0.0}, "method.temperature must be above 0, got 0.0; the paper uses 0.07"),
        ({"momentum": 1.5}, r"method.momentum must be in \[0, 1\], got 1.5; the paper uses 0.999"),
        ({"queue_size": 0}, "method.queue_size must be at least 1, got 0; the paper uses 65536"),
        ({"bn_splits": 0}, "method.bn_splits must be at least 1, got 0; the paper uses 8"),
    ],
)
def test_a_setting_out_of_range_is_an_error(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MoCoV1Config(**changes)


def test_v2_names_its_own_temperature() -> None:
    with pytest.raises(ConfigError, match=r"the paper uses 0\.2"):
        MoCoV2Config(temperature=-1.0)


def fits(config: MoCoConfig, **changes: Any) -> Known:
    found = replace(Known(crops=(32, 32), batch_size=256, accumulate=1, backbone="tiny"), **changes)
    config.check(found)
    return found


def test_a_queue_holds_all_keys_of_a_step() -> None:
    fits(MoCoV1Config(queue_size=256))
    with pytest.raises(ConfigError, match=r"queue_size=255 is below the 256 keys.*1 of its views.*queue_size=512"):
        fits(MoCoV1Config(queue_size=255))
    with pytest.raises(ConfigError, match=r"queue_size=511 is below the 512 keys.*2 of its views.*queue_size=1024"):
        fits(MoCoV1Config(queue_size=511, pairs="symmetric"))


@pytest.mark.parametrize(
    ("batch_size", "accumulate", "splits", "message"),
    [
        (100, 1, 8, r"loop.batch_size=100 does not give.*loop.batch_size=96 or --set method.bn_splits=5"),
        (8, 1, 8, r"loop.batch_size=8 does not give.*loop.batch_size=16 or --set method.bn_splits=4"),
        (64, 8, 8, r"loop.batch_size=64 in 8 micro-batches.*loop.batch_size=128 or --set method.bn_splits=4"),
        (7, 1, 2, r"loop.batch_size=6 or --set method.bn_splits=1"),
        (1, 1, 1, r"loop.batch_size=2 or"),
    ],
)
def test_groups_of_batch_norm_have_equally_many_images(
    batch_size: int, accumulate: int, splits: int, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        fits(MoCoV1Config(bn_splits=splits), batch_size=batch_size, accumulate=accumulate)


def test_the_batch_an_error_proposes_is_accepted() -> None:
    for batch_size, accumulate in ((96, 1), (16, 1), (128, 8)):
        fits(MoCoV1Config(bn_splits=8), batch_size=batch_size, accumulate=accumulate)
    fits(MoCoV1Config(bn_splits=5), batch_size=100)


def test_a_vit_has_no_batch_norm_whose_groups_need_a_batch() -> None:
    fits(MoCoV1Config(bn_splits=8), batch_size=100, backbone="vit_tiny_patch16_224")
    normed = MoCoV2Config(projector=replace(MoCoV2Config().projector, norm="batch"))
    for config, backbone in ((normed, "vit_tiny_patch16_224"), (MoCoV1Config(), "resnet50")):
        with pytest.raises(ConfigError, match="groups need equally many images"):
            fits(config, batch_size=100, backbone=backbone)


def test_shuffling_is_named_where_it_changes_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    shuffles = {splits: small(bn_splits=splits).parts()["target"].endswith("shuffled batch norm") for splits in (1, 2)}
    assert shuffles == {1: False, 2: True}
    without = moco(trunk(), MoCoV1Config(projector=LINEAR, queue_size=KEYS, bn_splits=2), known())
    method = small(bn_splits=1)
    monkeypatch.setattr(dist, "world", lambda: 2)
    assert method.parts()["target"] == "momentum 0.9, shuffled batch norm"
    assert without.parts()["target"] == "momentum 0.999"


def test_a_width_between_layers_is_refused_for_one_layer_alone_and_not_for_v2s_study_of_one() -> None:
    with pytest.raises(ConfigError, match=r"hidden=64 is read between layers, and moco_v1's .*projector\.layers=2"):
        MoCoV1Config(projector=replace(LINEAR, hidden=64))
    assert MoCoV2Config(projector=replace(LINEAR, hidden=64)).projector.layers == 1


def test_one_view_is_an_error() -> None:
    with pytest.raises(ConfigError, match="moco_v1 compares 2 views, got 1; add one"):
        fits(MoCoV1Config(), crops=(32,))


def without_statistics(method: Siamese) -> dict[str, Tensor]:
    moving = {id(buffer) for buffer in statistics(method)}
    return {name: value.clone() for name, value in method.state_dict(keep_vars=True).items() if id(value) not in moving}


def micro_batches() -> list[Views]:
    views = batch()
    return [Views(tuple(crop.chunk(2)[i] for crop in views.crops), views.index.chunk(2)[i]) for i in range(2)]


def test_a_step_that_is_not_taken_leaves_no_trace_but_batch_norms_statistics() -> None:
    method = small(bn_splits=1)
    before = without_statistics(method)
    for views in micro_batches():
        method(views, clock())
    method.discard()
    method.after_step(clock())  # nothing is left to be written, and the copy follows weights that did not move
    after = without_statistics(method)
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_the_keys_of_all_micro_batches_join_the_queue() -> None:
    method = small(bn_splits=1)
    before = queue_of(method).clone()
    for views in micro_batches():
        method(views, clock())
    method.after_step(clock())
    assert (queue_of(method) != before).any(dim=1).sum() == B
    assert torch.equal(queue_of(method)[B:], before[B:])


def test_a_restored_method_continues_to_the_bit() -> None:
    method, twin = small(), small()
    steps(method, 3)
    twin.load_state_dict(method.state_dict())
    assert steps(method, 3, start=3) == steps(twin, 3, start=3)


def test_the_presets_are_the_papers_and_the_demos() -> None:
    for v1, v2 in (
        (presets.scenes_v1, presets.scenes_v2),
        (presets.cifar10_v1, presets.cifar10_v2),
        (presets.imagenet_v1, presets.imagenet_v2),
    ):
        assert v1().method.name == "moco_v1"
        assert v2().method.name == "moco_v2"
    assert presets.imagenet_v1().method == MoCoV1Config()
    assert presets.imagenet_v2().method == MoCoV2Config()
    assert presets.imagenet_v1().optim.peak_lr(256) == pytest.approx(0.03)
    assert presets.cifar10_v2().optim.peak_lr(512) == pytest.approx(0.06)
    assert [share * 200 for share, _ in presets.imagenet_v1().optim.steps] == [120, 160]


def test_the_presets_for_small_sets_have_the_demos_queue_and_momentum() -> None:
    for small, large in ((presets.small_v1(), presets.imagenet_v1()), (presets.small_v2(), presets.imagenet_v2())):
        method = small.method
        assert isinstance(method, MoCoV1Config | MoCoV2Config)
        assert (method.queue_size, method.momentum) == (4096, 0.99)
        assert replace(method, queue_size=65536, momentum=0.999) == large.method
        assert (small.optim, small.views) == (large.optim, large.views)
