"""UniGrad's framework: the gradients it writes down by hand are autograd's, for its own loss and for the others'."""

import math
from typing import Any, Literal, cast

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from stopgrad.contracts import ConfigError
from stopgrad.losses import correlation, gradients, info_nce_batch, negative_cosine, nt_xent_queries, unigrad


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def unit(seed: int, *shape: int) -> Tensor:
    return F.normalize(draw(seed, *shape), dim=1)


N, D = 7, 5


def through_the_norm(z: Tensor, gradient: Tensor) -> Tensor:
    """A gradient by the unit vectors becomes one by z: (I - u u') g / |z|."""
    u = F.normalize(z, dim=1)
    return (gradient - (gradient * u).sum(dim=1, keepdim=True) * u) / z.norm(dim=1, keepdim=True)


def test_contrastive_pulls_the_positive_and_pushes_what_the_softmax_weighs() -> None:
    u, keys, temperature = unit(0, N, D).requires_grad_(), unit(1, N, D), 0.2
    (grad,) = torch.autograd.grad(N * info_nce_batch(u, keys, temperature), u)
    weights = torch.softmax(u.detach() @ keys.T / temperature, dim=1)
    by_hand = (-keys + weights @ keys) / temperature
    torch.testing.assert_close(grad, by_hand, rtol=1e-10, atol=1e-13)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(N, dtype=torch.float64))


def test_contrastive_keys_get_the_terms_that_a_detached_target_drops() -> None:
    u, keys, temperature = unit(0, N, D), unit(1, N, D).requires_grad_(), 0.2
    (grad,) = torch.autograd.grad(info_nce_batch(u, keys, temperature), keys)
    weights = torch.softmax(u @ keys.detach().T / temperature, dim=1)
    torch.testing.assert_close(grad, (-u + weights.T @ u) / (temperature * N), rtol=1e-10, atol=1e-13)


def test_nt_xent_projects_the_same_gradient_out_of_the_radial_direction() -> None:
    z, other, own = draw(0, N, D).requires_grad_(), unit(1, N, D), unit(2, N, D)
    (grad,) = torch.autograd.grad(N * nt_xent_queries(z, other, own, 0.2), z)
    u = F.normalize(z.detach(), dim=1)
    s = u @ torch.cat([other, own]).T / 0.2
    s[torch.arange(N), N + torch.arange(N)] = -math.inf
    free = (-other + torch.softmax(s, dim=1) @ torch.cat([other, own])) / 0.2
    torch.testing.assert_close(grad, through_the_norm(z.detach(), free), rtol=1e-10, atol=1e-13)


def test_asymmetric_networks_hide_their_negatives_in_the_predictor() -> None:
    u1, u2, root = unit(0, N, D).requires_grad_(), unit(1, N, D), draw(2, D, D)
    w = root @ root.T  # linear and symmetric
    (grad,) = torch.autograd.grad(N * negative_cosine(u1 @ w.T, u2), u1)
    u = u1.detach()
    strength = ((u @ w.T) * u2).sum(dim=1) / ((u @ w.T) * (u @ w.T)).sum(dim=1)
    by_hand = (-u2 @ w + strength[:, None] * (u @ w.T @ w)) / (u @ w.T).norm(dim=1, keepdim=True)
    torch.testing.assert_close(grad, by_hand, rtol=1e-10, atol=1e-13)
    assert (grad * u).sum(dim=1).abs().max() < 1e-13


@pytest.mark.parametrize("weight", [0.0, 1.0, 100.0])
def test_unigrads_gradient_is_minus_the_target_plus_the_weighted_correlation(weight: float) -> None:
    z, target, f = draw(0, N, D).requires_grad_(), 3 * draw(1, N, D), correlation(draw(2, 20, D))
    (grad,) = torch.autograd.grad(N * unigrad(z, target, f, weight), z)
    free = -F.normalize(target, dim=1) + weight * F.normalize(z.detach(), dim=1) @ f
    torch.testing.assert_close(grad, through_the_norm(z.detach(), free), rtol=1e-10, atol=1e-12)


def test_unigrads_gradient_belongs_to_half_the_weight_on_the_squares_and_its_value_does_not() -> None:
    z, target, f = draw(0, N, D).requires_grad_(), unit(1, N, D), correlation(draw(2, 20, D))
    u = F.normalize(z, dim=1)
    squares = ((u @ f) * u).sum(dim=1).mean()
    true = negative_cosine(z, target) + 100 / 2 * squares
    surrogate = unigrad(z, target, f, 100.0)
    torch.testing.assert_close(torch.autograd.grad(true, z, retain_graph=True), torch.autograd.grad(surrogate, z))
    assert surrogate.item() == pytest.approx((negative_cosine(z, target) + 100 * squares).item(), rel=1e-12)


def test_unigrad_teaches_its_first_argument_alone() -> None:
    z, target, f = (x.requires_grad_() for x in (draw(0, N, D), draw(1, N, D), correlation(draw(2, 9, D))))
    grads = torch.autograd.grad(unigrad(z, target, f, 10.0), [z, target, f], allow_unused=True)
    assert grads[0].norm() > 0
    assert grads[1:] == (None, None)


def test_unigrad_ignores_lengths() -> None:
    z, target, f = draw(0, N, D), draw(1, N, D), correlation(draw(2, 20, D))
    assert unigrad(3 * z, 0.1 * target, f, 5.0).item() == pytest.approx(unigrad(z, target, f, 5.0).item(), rel=1e-12)


def test_the_correlation_is_symmetric_without_negative_eigenvalues_and_of_trace_1() -> None:
    z = draw(0, 6, D) * torch.arange(1, 7)[:, None]
    f = correlation(z)
    torch.testing.assert_close(f, f.T)
    assert f.trace().item() == pytest.approx(1)
    assert torch.linalg.eigvalsh(f).min() > -1e-15
    u = F.normalize(z, dim=1)
    torch.testing.assert_close(f, torch.stack([torch.outer(row, row) for row in u]).mean(dim=0))


def test_an_isotropic_correlation_pushes_nothing() -> None:
    z, target = draw(0, N, D).requires_grad_(), unit(1, N, D)
    eye = torch.eye(D, dtype=torch.float64) / D
    (pushed,) = torch.autograd.grad(unigrad(z, target, eye, 100.0), z)
    (plain,) = torch.autograd.grad(negative_cosine(z, target), z)
    torch.testing.assert_close(pushed, plain, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("weight", "repels"), [(0.5, False), (100.0, True)])
def test_total_collapse_is_stationary_and_repels_where_the_weight_is_above_1(weight: float, repels: bool) -> None:
    """At an angle phi off the collapsed direction the slope is sin(phi) (1 - weight cos(phi))."""
    u, away = torch.eye(2, dtype=torch.float64)
    f = torch.outer(u, u)
    for phi in (0.0, 0.3):
        z = (math.cos(phi) * u + math.sin(phi) * away)[None].requires_grad_()
        (grad,) = torch.autograd.grad(unigrad(z, u[None], f, weight), z)
        tangent = -math.sin(phi) * u + math.cos(phi) * away
        slope = float(grad[0] @ tangent)
        assert slope == pytest.approx(math.sin(phi) * (1 - weight * math.cos(phi)), abs=1e-12)
        assert phi == 0 or (slope < 0) == repels


def test_a_target_of_another_shape_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"z \[4, 5\], target \[1, 5\]"):
        unigrad(draw(0, 4, 5), draw(1, 1, 5), correlation(draw(2, 9, 5)), 1.0)


# --- closed forms as functions --------------------------------------------------------------------------------------


def of(loss: Tensor, u: Tensor) -> Tensor:
    (grad,) = torch.autograd.grad(loss, u)
    return grad


def equal(parts: gradients.Parts, expected: Tensor) -> None:
    torch.testing.assert_close(parts.whole, expected, rtol=1e-6, atol=1e-12)
    torch.testing.assert_close(parts.positive + parts.negative, parts.whole)


def test_the_contrastive_form_is_autograd_s() -> None:
    u, keys = unit(0, N, D).requires_grad_(), unit(1, N + 4, D)
    scores = u @ keys.T / 0.2
    loss = F.cross_entropy(scores, torch.arange(N), reduction="sum")
    parts = gradients.contrastive_gradient(u.detach(), keys[:N], keys, 0.2)
    equal(parts, of(loss, u))
    torch.testing.assert_close(parts.positive, -keys[:N] / 0.2)


@pytest.mark.parametrize("symmetric", [True, False])
def test_the_asymmetric_form_is_autograd_s_and_turns_alone(symmetric: bool) -> None:
    u, target, w = unit(0, N, D).requires_grad_(), unit(1, N, D), draw(2, D, D)
    w = w + w.T if symmetric else w
    loss = -F.cosine_similarity(u @ w.T, target).sum()
    parts = gradients.asymmetric_gradient(u.detach(), target, w)
    equal(parts, of(loss, u))
    torch.testing.assert_close((parts.whole * u.detach()).sum(dim=1), torch.zeros(N, dtype=torch.float64))


def test_the_correlation_form_is_autograd_s_and_unigrad_s() -> None:
    u, target, f = unit(0, N, D).requires_grad_(), unit(1, N, D), correlation(draw(2, 40, D))
    loss = (-(u * target).sum(dim=1) + 3.0 / 2 * ((u @ f) * u).sum(dim=1)).sum()
    parts = gradients.correlation_gradient(u.detach(), target, f, 3.0)
    equal(parts, of(loss, u))
    z = draw(0, N, D).requires_grad_()
    expected = of(N * unigrad(z, target, f, 3.0), z)
    whole = gradients.correlation_gradient(F.normalize(z.detach(), dim=1), target, f, 3.0).whole
    torch.testing.assert_close(through_the_norm(z.detach(), whole), expected, rtol=1e-6, atol=1e-12)


def test_barlow_twins_form_is_autograd_s() -> None:
    u, target, weight = draw(0, N, D).requires_grad_(), draw(1, N, D), 0.3
    c = u.T @ target / N
    off = c - torch.diag(c.diagonal())
    loss = (c.diagonal() - 1).square().sum() + weight * off.square().sum()
    equal(gradients.barlow_twins_gradient(u.detach(), target, weight), of(loss, u))
    # A = I leaves out what holds the diagonal: the same, plus (1 - weight) C_ii t
    simple = gradients.barlow_twins_gradient(u.detach(), target, weight, identity=True)
    full = gradients.barlow_twins_gradient(u.detach(), target, weight)
    held = 2 / N * (1 - weight) * c.detach().diagonal() * target
    torch.testing.assert_close(full.whole - simple.whole, held)
    assert torch.equal(full.negative, simple.negative)


@pytest.mark.parametrize("least", [0.5, 1.0, 3.0])
def test_vicreg_s_form_is_autograd_s(least: float) -> None:
    u, target = draw(0, N, D).requires_grad_(), draw(1, N, D)
    centred = u - u.mean(dim=0)
    matrix = centred.T @ centred / (N - 1)
    off = matrix - torch.diag(matrix.diagonal())
    hinge = F.relu(least - u.std(dim=0)).sum() / D
    loss = (u - target).square().sum(dim=1).mean() + 0.7 / D * off.square().sum() + 1.3 * hinge
    equal(gradients.vicreg_gradient(u.detach(), target, 0.7, 1.3, least), of(loss, u))


def test_the_decorrelation_forms_written_out() -> None:
    u, target, weight = unit(0, N, D), unit(1, N, D), 50.0
    for by, a in (("online", u), ("target", target)):
        rows = []
        for n in range(N):
            pushed = sum((a[n] @ a[v]) / N * u[v] for v in range(N))
            rows.append(-target[n] + weight * pushed)
        parts = gradients.decorrelation_gradient(u, target, weight, cast(Literal["online", "target"], by))
        torch.testing.assert_close(parts.whole, torch.stack(rows))
        assert torch.equal(parts.positive, -target)


def test_by_the_batch_s_own_correlation_two_families_are_one() -> None:
    """Row j's negatives are F u with the F of this batch alone."""
    u, target = unit(0, N, D), unit(1, N, D)
    one = gradients.decorrelation_gradient(u, target, 5.0, "online").whole
    torch.testing.assert_close(one, gradients.correlation_gradient(u, target, correlation(u), 5.0).whole)


def test_the_balance_is_how_long_the_push_is_beside_the_pull() -> None:
    parts = gradients.Parts(torch.tensor([[3.0, 4.0], [0.0, 5.0]]), torch.tensor([[0.0, 2.0], [3.0, 0.0]]))
    assert parts.balance.item() == pytest.approx(2.5 / 5)


def test_along_a_target_and_the_rest() -> None:
    gradient, target = draw(0, N, D), unit(1, N, D)
    parts = gradients.along_target(gradient, target)
    torch.testing.assert_close(parts.whole, gradient)
    torch.testing.assert_close((parts.negative * target).sum(dim=1), torch.zeros(N, dtype=torch.float64))
    torch.testing.assert_close(F.normalize(parts.positive, dim=1).abs(), target.abs())


@pytest.mark.parametrize(
    ("form", "more"),
    [
        (gradients.contrastive_gradient, (unit(1, N, D), 0.2)),
        (gradients.asymmetric_gradient, (draw(1, D, D),)),
        (gradients.correlation_gradient, (draw(1, D, D), 1.0)),
        (gradients.barlow_twins_gradient, (0.1,)),
        (gradients.vicreg_gradient, (1.0, 1.0)),
        (gradients.decorrelation_gradient, (1.0,)),
        (gradients.along_target, ()),
    ],
)
def test_rows_of_other_images_are_refused(form: Any, more: tuple[Any, ...]) -> None:
    with pytest.raises(ConfigError, match="row i of each has to be the same image's"):
        form(unit(0, N, D), unit(1, N + 1, D), *more)
