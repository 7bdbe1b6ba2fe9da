"""SimSiam's hypothesis (arXiv:2011.10566, section 5): each form against the procedure of the paper, written out."""

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from stopgrad.contracts import ConfigError, Views
from stopgrad.method import Method
from stopgrad.methods.simsiam import SimSiamConfig, simsiam
from stopgrad.siamese.family import Siamese
from tests.methods.toy import batch, clock, known, trunk

HEAD = {"layers": 2, "hidden": 5, "dim": 5}
STEPS = 7


def build(crops: int = 2, **settings: Any) -> Siamese:
    from stopgrad.recipe.typed import build as typed

    of_toy = known(crops)
    config = typed(SimSiamConfig, {"name": "simsiam", "projector": HEAD, "predictor_hidden": 3, **settings}, "method")
    config.check(of_toy)
    backbone = trunk()
    torch.manual_seed(5)
    return simsiam(backbone, config, of_toy).double()


def optimiser(method: Method) -> torch.optim.Optimizer:
    return torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.1, momentum=0.9)


def trained(method: Method, steps: int = STEPS, crops: int = 2, skipped: tuple[int, ...] = ()) -> list[float]:
    steering, losses = optimiser(method), []
    for step in range(steps):
        out = method(batch(step, crops), clock(step))
        losses.append(out.loss.item())
        if step in skipped:
            method.discard()
            continue
        steering.zero_grad()
        out.loss.backward()
        steering.step()
        method.after_step(clock(step))
    return losses


def weights(method: Siamese) -> dict[str, Tensor]:
    """Of what is trained, batch norm's statistics too."""
    parts = {"backbone": method.backbone, "projector": method.projector, "predictor": method.predictor}
    return {f"{name}.{key}": value for name, part in parts.items() for key, value in part.state_dict().items()}


def equal(a: Siamese, b: Siamese) -> None:
    ours, theirs = weights(a), weights(b)
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


def test_renewed_every_step_it_is_simsiam_to_the_bit() -> None:
    lagged, plain = build(target="lagged"), build()
    assert trained(lagged) == trained(plain)
    equal(lagged, plain)


@pytest.mark.parametrize("lag", [2, 3, 0])
def test_the_copy_is_the_paper_s_cache(lag: int) -> None:
    lagged, cached = build(target="lagged", lag=lag), build()
    every, losses, eta = lag or 5, [], {}  # 5 steps an epoch
    steering = optimiser(cached)
    for step in range(STEPS):
        if step % every == 0:  # eta of all samples of the next batches, by the weights as they are
            frozen = copy.deepcopy(cached)
            for later in range(step, step + every):
                with torch.no_grad():
                    eta[later] = [frozen.projector(frozen.backbone(crop)) for crop in batch(later).crops]
        z = [cached.projector(cached.backbone(crop)) for crop in batch(step).crops]
        p = [cached.predictor(one) for one in z]
        loss = -(F.cosine_similarity(p[0], eta[step][1]) + F.cosine_similarity(p[1], eta[step][0])).mean() / 2
        steering.zero_grad()
        loss.backward()
        steering.step()
        losses.append(loss.item())
    assert trained(lagged) == pytest.approx(losses, rel=1e-12)
    for name, value in weights(cached).items():
        torch.testing.assert_close(weights(lagged)[name], value, rtol=1e-10, atol=1e-12, msg=name)


def test_a_renewal_that_was_skipped_comes_a_step_later() -> None:
    method = build(target="lagged", lag=3)
    trained(method, steps=3, skipped=(2,))
    old = method.target.target_backbone.linear.weight  # type: ignore[union-attr]
    assert not torch.equal(old, method.backbone.linear.weight)  # type: ignore[union-attr]
    out = method(batch(3), clock(3))
    out.loss.backward()
    method.after_step(clock(3))
    assert torch.equal(old, method.backbone.linear.weight)  # type: ignore[union-attr]


def test_without_memory_the_average_is_simsiam_without_a_predictor_to_the_bit() -> None:
    average = build(predictor="none", target="average", average_momentum=0.0)
    plain = build(predictor="none")
    assert trained(average) == trained(plain)
    equal(average, plain)


@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize("order", ["before", "after"])
@pytest.mark.parametrize("first", ["view", "random"])
def test_the_average_is_each_image_s_own(first: str, order: str, normalised: bool) -> None:
    settings = {"average_first": first, "average_order": order, "average_normalised": normalised}
    method = build(predictor="none", target="average", **settings)
    by_hand = build(predictor="none")
    eta: dict[int, Tensor] = {}
    if first == "random":
        eta = dict(enumerate(method.target.eta.vectors.clone()))  # type: ignore[union-attr]
    steering, losses = optimiser(by_hand), []
    for step in range(STEPS):
        views = batch(step)
        z = [by_hand.projector(by_hand.backbone(crop)) for crop in views.crops]
        losses_here = []
        for row, image in enumerate(views.index.tolist()):
            new = [one[row].detach() for one in z]
            if normalised:
                new = [one / one.norm() for one in new]
            moved = [0.8 * eta[image] + 0.2 * one if image in eta else one for one in new]
            used = moved if order == "before" else [eta.get(image, one) for one in new]
            for online, target in ((0, 1), (1, 0)):
                losses_here.append(-F.cosine_similarity(z[online][row], used[target], dim=0) / 2)
            eta[image] = (moved[0] + moved[1]) / 2
        loss = torch.stack(losses_here).sum() / len(views.index)
        steering.zero_grad()
        loss.backward()
        steering.step()
        losses.append(loss.item())
    assert trained(method) == pytest.approx(losses, rel=1e-10)


def test_a_skipped_step_leaves_no_trace_in_the_average() -> None:
    method = build(predictor="none", target="average")
    trained(method, steps=2)
    before = {name: value.clone() for name, value in method.target.state_dict().items()}
    for _ in range(2):
        method(batch(2), clock(2))
    method.discard()
    method.after_step(clock(2))
    assert all(torch.equal(value, before[name]) for name, value in method.target.state_dict().items())


def test_more_views_are_the_mean_of_unit_vectors() -> None:
    method, views = build(4, eta_views=3), batch(0, 4)
    z = [method.projector(method.backbone(crop)) for crop in views.crops]
    unit = [(one / one.norm(dim=1, keepdim=True)).detach() for one in z]
    eta = [(unit[i] + unit[2] + unit[3]) / 3 for i in (0, 1)]
    p = [method.predictor(one) for one in z[:2]]
    loss = -(F.cosine_similarity(p[0], eta[1]) + F.cosine_similarity(p[1], eta[0])).mean() / 2
    assert method(views, clock()).loss.item() == pytest.approx(loss.item(), rel=1e-12)


def test_twice_asymmetric_is_two_pairs_of_views() -> None:
    method, one_sided, views = build(4, pairs="asymmetric_2x"), build(pairs="asymmetric"), batch(0, 4)
    halves = [one_sided(replace_crops(views, pair), clock()).loss for pair in ((0, 1), (2, 3))]
    assert method(views, clock()).loss.item() == pytest.approx(torch.stack(halves).mean().item(), rel=1e-12)


def replace_crops(views: Views, pair: tuple[int, int]) -> Views:
    return Views(tuple(views.crops[i] for i in pair), views.index)


@pytest.mark.parametrize(
    ("crops", "settings", "message"),
    [
        (2, {"eta_views": 3}, "eta_views=3 needs 4 views of one size.*, got sides of 2, 2 pixels"),
        (2, {"pairs": "asymmetric_2x"}, "give views.crops 4 times the first"),
        (2, {"lag": 5}, "lag=5 is read by nothing here; remove it, or type --set method.target=lagged"),
        (2, {"average_momentum": 0.5}, "method.target=average, where it is"),
        (2, {"target": "average", "average_momentum": 1.5}, r"average_momentum must be in \[0, 1\]"),
        (2, {"target": "lagged", "lag": -1}, "lag must be at least 0"),
        (2, {"target": "shared", "eta_views": 2}, "method.target=stop_gradient, where it is"),
        (4, {"pairs": "asymmetric_2x", "eta_views": 3}, "eta_views averages targets of two views"),
    ],
)
def test_a_mistake_is_told_before_the_first_step(crops: int, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(crops, **settings)


def test_views_of_another_size_are_no_samples_of_the_same_expectation() -> None:
    config = SimSiamConfig(eta_views=2)
    config.check(replace(known(3), crops=(2, 2, 2)))
    with pytest.raises(ConfigError, match="got sides of 2, 2, 1 pixels"):
        config.check(replace(known(3), crops=(2, 2, 1)))
