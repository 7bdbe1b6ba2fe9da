"""The rows of UniGrad's table 1 as objectives: each teaches the gradient of the loss it is written down from."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from stopgrad.contracts import ConfigError, Views
from stopgrad.losses import barlow_twins, correlation
from stopgrad.methods.settings import HeadConfig
from stopgrad.methods.unigrad import UniGradConfig, unigrad
from stopgrad.siamese.family import Siamese
from stopgrad.siamese.predictors import direct_pred
from tests.methods.toy import batch, clock, gradients, known, trunk

HEAD = HeadConfig(layers=2, hidden=6, dim=5, output_norm="none")
FORMS = (
    "contrastive",
    "asymmetric",
    "barlow_twins",
    "barlow_twins_identity",
    "decorrelation_target",
    "vicreg",
    "decorrelation_online",
)
WEIGHT = {"barlow_twins": 0.3, "barlow_twins_identity": 0.3, "vicreg": 0.7}


def build(form: str, **changes: Any) -> Siamese:
    settings = {"projector": HEAD, "form": form, "negative_weight": WEIGHT.get(form, 5.0), **changes}
    config = UniGradConfig(**settings)  # type: ignore[arg-type]
    backbone = trunk()
    torch.manual_seed(3)
    method = unigrad(backbone, config, known()).double()
    if config.target == "momentum":  # away from the online network, so that it is seen which is used
        with torch.no_grad():
            for parameter in method.target.parameters():
                parameter += 0.1 * torch.randn_like(parameter)
    return method


def both(method: Siamese, views: Views) -> tuple[list[Tensor], list[Tensor]]:
    """Online and target projections of the two views."""
    z = [method.projector(method.backbone(crop)) for crop in views.crops]
    with torch.no_grad():
        slow = method.target
        t = [slow.target_projector(slow.target_backbone(crop)) for crop in views.crops]  # type: ignore[union-attr]
    return z, t


def unit(x: Tensor) -> Tensor:
    return F.normalize(x, dim=1)


def loss_of(form: str, u: Tensor, t: Tensor, keys: Tensor, others: Tensor) -> Tensor:
    """A loss whose gradient in the one view is the row's. t, keys and others are constants."""
    n, d = u.shape
    if form == "contrastive":
        scores = unit(u) @ unit(keys).T / 0.2
        return (-(unit(u) * unit(t)).sum(dim=1) / 0.2 + scores.logsumexp(dim=1)).mean()
    if form == "asymmetric":
        w = direct_pred((correlation(keys[:n]) + correlation(keys[n:])) / 2, 0.3)
        return -F.cosine_similarity(unit(u) @ w, unit(t)).mean()
    if form == "barlow_twins":
        return barlow_twins(u, t, 0.3)
    if form == "vicreg":
        centred = u - u.mean(dim=0)
        matrix = centred.T @ centred / (n - 1)
        off = matrix - torch.diag(matrix.diagonal())
        hinge = F.relu(1 - u.std(dim=0)).sum() / d
        return (u - t).square().sum(dim=1).mean() + 0.7 / d * off.square().sum() + 25 * hinge
    if form == "decorrelation_target":
        pushed = (unit(others) @ unit(others).T / n) @ unit(u).detach()
        return (-(unit(u) * unit(t)).sum(dim=1) + 5 * (pushed * unit(u)).sum(dim=1)).mean()
    if form == "decorrelation_online":
        held = unit(u).detach()
        return (-(unit(u) * unit(t)).sum(dim=1) + 5 * ((held @ held.T @ held / n) * unit(u)).sum(dim=1)).mean()
    raise AssertionError(form)


@pytest.mark.parametrize("form", [form for form in FORMS if form != "barlow_twins_identity"])
def test_a_form_teaches_the_gradient_of_its_loss(form: str) -> None:
    method, views = build(form), batch()
    z, t = both(method, views)
    keys = torch.cat(t)
    expected = (loss_of(form, z[0], t[1], keys, t[1]) + loss_of(form, z[1], t[0], keys, t[0])) / 2
    ours, theirs = gradients(method(views, clock()).loss, method), gradients(expected, method)
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-6, atol=1e-9, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize("form", [*FORMS, "correlation"])
def test_with_online_negatives_the_slow_copy_serves_the_pull_alone(form: str) -> None:
    views = batch()
    method = build(form, negatives="online")
    plain = build(form, target="stop_gradient")
    plain.load_state_dict({k: v for k, v in method.state_dict().items() if not k.startswith("target.")}, strict=True)
    seen = method(views, clock())
    z, t = both(method, views)
    z = [one.detach() for one in z]
    pull = [-(unit(a) * unit(b)).sum(dim=1).mean() for a, b in ((z[0], t[1]), (z[1], t[0]))]
    assert seen.logs["similarity"].item() == pytest.approx(-torch.stack(pull).mean().item())
    if form in ("contrastive", "correlation", "decorrelation_target", "decorrelation_online"):
        # the surrogate's value: what pulls differs, what pushes is the network's own
        other = plain(views, clock())
        own = -torch.stack([-(unit(a) * unit(b)).sum(dim=1).mean() for a, b in ((z[0], z[1]), (z[1], z[0]))]).mean()
        times = 1 / 0.2 if form == "contrastive" else 1.0
        moved = times * (own - seen.logs["similarity"])
        assert (seen.loss - other.loss).item() == pytest.approx(moved.item(), rel=1e-9)


def test_with_a_equal_to_one_only_the_pull_differs() -> None:
    views = batch()
    full, simple = build("barlow_twins"), build("barlow_twins_identity")
    a, b = full(views, clock()), simple(views, clock())
    assert a.loss.item() != pytest.approx(b.loss.item())
    assert a.logs["similarity"] == b.logs["similarity"]
    assert a.logs["balance"].item() != pytest.approx(b.logs["balance"].item())


def test_a_dropped_step_leaves_no_trace_in_f() -> None:
    method = build("asymmetric")
    objective = method.objective
    method(batch(), clock())
    method.after_step(clock())
    before = {name: value.clone() for name, value in objective.state_dict().items()}
    assert before
    method(batch(1), clock(1))
    method.discard()
    objective.after_step(method, clock(1))  # type: ignore[operator]
    assert all(torch.equal(value, before[name]) for name, value in objective.state_dict().items())
    method(batch(1), clock(1))
    method.after_step(clock(1))
    assert not all(torch.equal(value, before[name]) for name, value in objective.state_dict().items())


def test_what_nothing_reads_is_an_error() -> None:
    for settings, reader in (
        ({"temperature": 0.1}, "form=contrastive"),
        ({"predictor_epsilon": 0.1}, "form=asymmetric"),
        ({"form": "contrastive", "variance_weight": 1.0}, "form=vicreg"),
    ):
        with pytest.raises(ConfigError, match=f"read by nothing here; .*method.{reader}"):
            UniGradConfig(**settings)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="temperature must be above 0"):
        UniGradConfig(form="contrastive", temperature=0.0)
    assert build("vicreg").parts()["objective"] == "written gradient (vicreg)"
