"""Barlow Twins and VICReg against closed forms, and their gradients against those written out by hand."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from stopgrad.contracts import ConfigError
from stopgrad.losses import barlow_twins, vicreg, vicreg_terms


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def orthogonal(n: int, d: int) -> Tensor:
    """[N, D]: centred columns of unit biased variance, any two uncorrelated."""
    q = torch.linalg.qr(torch.cat([torch.ones(n, 1, dtype=torch.float64), draw(0, n, d)], dim=1)).Q[:, 1:]
    return q * math.sqrt(n)


def test_barlow_of_equal_views_with_uncorrelated_channels_is_0() -> None:
    z = orthogonal(16, 5)
    assert barlow_twins(z, z, 1.0).item() == pytest.approx(0, abs=1e-9)
    # with the unbiased std the diagonal would be 15/16 and this 5 / 256
    assert barlow_twins(z, -z, 0.0).item() == pytest.approx(5 * 4, rel=1e-4)


def test_barlow_of_equal_views_is_the_sum_of_their_squared_correlations() -> None:
    z = draw(0, 30, 6)
    r = torch.corrcoef(z.T)
    expected = (r.square().sum() - 6) * 0.3
    assert barlow_twins(z, z, 0.3).item() == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.parametrize(("n", "expected"), [(4096, 0.98), (256, 15.75)])
def test_barlow_of_random_features_has_the_floor_of_sampling(n: int, expected: float) -> None:
    """64 * 63 / N: not 0 unless N is far above D."""
    z = draw(0, n, 64)
    assert 64 * 63 / n == pytest.approx(expected, abs=0.01)
    assert barlow_twins(z, z, 1.0).item() == pytest.approx(expected, rel=0.1)


def test_barlow_of_independent_views_costs_about_one_a_channel_and_of_constants_exactly_one() -> None:
    assert barlow_twins(draw(0, 4096, 32), draw(1, 4096, 32), 0.0).item() == pytest.approx(32, rel=0.05)
    constant = torch.full((8, 32), 3.1, requires_grad=True)
    loss = barlow_twins(constant, constant, 0.005)
    assert loss.item() == pytest.approx(32, rel=1e-6)
    assert bool(torch.autograd.grad(loss, constant)[0].isfinite().all())


def test_barlow_ignores_scale_shift_order_and_which_view_is_first() -> None:
    z0, z1 = 100 * draw(0, 12, 5), 100 * draw(1, 12, 5)  # far above batch norm's epsilon
    value = barlow_twins(z0, z1, 0.1).item()
    scale, shift = draw(2, 5).exp(), draw(3, 5)
    assert barlow_twins(z0 * scale + shift, z1, 0.1).item() == pytest.approx(value, rel=1e-6)
    assert barlow_twins(z1, z0, 0.1).item() == pytest.approx(value, rel=1e-12)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    assert barlow_twins(z0[order], z1[order], 0.1).item() == pytest.approx(value, rel=1e-12)
    assert barlow_twins(-z0, z1, 0.1).item() != pytest.approx(value, rel=1e-3)


def test_barlows_gradient_is_the_one_by_hand() -> None:
    """2/N (-A v2 + weight sum_v (v2 . v) / N v1), A = I - (1 - weight) diag(W), then through the standardisation."""
    n, d, weight = 7, 5, 0.3
    z0, z1 = draw(0, n, d).requires_grad_(), draw(1, n, d)
    (grad,) = torch.autograd.grad(barlow_twins(z0, z1, weight), z0)

    sigma = (z0.var(dim=0, correction=0) + 1e-5).sqrt().detach()
    v0 = ((z0 - z0.mean(dim=0)) / sigma).detach()
    v1 = F.batch_norm(z1, None, None, training=True)
    a = torch.eye(d, dtype=torch.float64) - (1 - weight) * torch.diag((v0.T @ v1 / n).diagonal())
    free = torch.stack(
        [2 / n * (-a @ v1[i] + weight * sum((v1[i] @ v1[j]) / n * v0[j] for j in range(n))) for i in range(n)]
    )
    by_hand = (free - free.mean(dim=0) - v0 * (free * v0).mean(dim=0)) / sigma
    torch.testing.assert_close(grad, by_hand, rtol=1e-9, atol=1e-12)


def test_vicreg_of_a_collapsed_batch_is_the_closed_form_and_a_stationary_point() -> None:
    z = torch.full((8, 4), 0.5, dtype=torch.float64, requires_grad=True)
    other = z.detach().clone().requires_grad_()
    assert vicreg_terms(z, other)[1].item() == pytest.approx(2 * (1 - math.sqrt(1e-4)), rel=1e-12)
    paper, code = vicreg(z, other), vicreg(z, other, invariance=25 / 4, variance=12.5)
    assert code.item() == pytest.approx(24.75, rel=1e-12)
    assert paper.item() == pytest.approx(49.5, rel=1e-12)
    for grad in torch.autograd.grad(paper, [z, other]):
        assert torch.equal(grad, torch.zeros_like(grad))


def test_vicregs_terms_are_what_the_paper_says_they_are() -> None:
    z0, z1 = draw(0, 9, 4), draw(1, 9, 4)
    invariance, variance, covariance = vicreg_terms(z0, z1)
    assert invariance.item() == pytest.approx(F.mse_loss(z0, z1).item() * 4, rel=1e-12)  # a mean over images alone
    hinges = [F.relu(1 - (z.var(dim=0, correction=1) + 1e-4).sqrt()) for z in (z0, z1)]
    assert variance.item() == pytest.approx((hinges[0].mean() + hinges[1].mean()).item(), rel=1e-12)
    covs = [torch.cov(z.T) for z in (z0, z1)]
    off = sum((c.square().sum() - c.diagonal().square().sum()).item() / 4 for c in covs)
    assert covariance.item() == pytest.approx(off, rel=1e-10)
    assert vicreg(z0, z1).item() == pytest.approx((25 * invariance + 25 * variance + covariance).item(), rel=1e-12)


def test_vicreg_asks_nothing_of_wide_uncorrelated_equal_views() -> None:
    z = (1.5 * orthogonal(16, 5)).requires_grad_()
    invariance, variance, covariance = vicreg_terms(z, z.detach())
    assert [invariance.item(), variance.item()] == [0, 0]
    assert covariance.item() == pytest.approx(0, abs=1e-20)
    (grad,) = torch.autograd.grad(variance, z)
    assert torch.equal(grad, torch.zeros_like(grad))


def test_vicregs_covariance_ignores_a_shift_and_never_punishes_the_variance() -> None:
    z = draw(0, 10, 4)
    expected = vicreg_terms(z, z)[2].item()
    assert vicreg_terms(z + 3, z - 7)[2].item() == pytest.approx(expected, rel=1e-10)
    assert vicreg_terms(100 * orthogonal(16, 4), orthogonal(16, 4))[2].item() == pytest.approx(0, abs=1e-12)


def test_vicregs_covariance_of_random_features_has_the_floor_of_sampling() -> None:
    z = draw(0, 257, 64)
    assert vicreg_terms(z, z)[2].item() == pytest.approx(2 * 63 / 256, rel=0.1)


def test_one_channel_has_nothing_off_the_diagonal() -> None:
    z = draw(0, 6, 1)
    assert vicreg_terms(z, z)[2].item() == 0
    assert barlow_twins(z, z, 5.0).item() == pytest.approx(0, abs=1e-6)


def test_vicregs_gradient_is_the_one_by_hand() -> None:
    """2/N (-u2 + l sum_v (u~ . v~)/N v~) + 2l/N (u1/l - B u~), l = 2 covariance N^2 / (D (N - 1)^2)."""
    n, d, variance, covariance = 7, 5, 0.8, 0.6
    u1, u2 = (0.95 * draw(0, n, d)).requires_grad_(), draw(1, n, d)
    (grad,) = torch.autograd.grad(vicreg(u1, u2, invariance=1.0, variance=variance, covariance=covariance), u1)

    v = u1.detach() - u1.detach().mean(dim=0)
    w = v.T @ v / (n - 1)
    std = (w.diagonal() + 1e-4).sqrt()
    strength = 2 * covariance * n**2 / (d * (n - 1) ** 2)
    hinge = torch.diag((std < 1).double() / std)
    b = n / (d * strength * (n - 1)) * (2 * covariance * torch.diag(w.diagonal()) + variance / 2 * hinge)
    by_hand = torch.stack([
        2 / n * (-u2[i] + strength * sum((v[i] @ v[j]) / n * v[j] for j in range(n)))
        + 2 * strength / n * (u1[i].detach() / strength - b @ v[i])
        for i in range(n)
    ])  # fmt: skip
    assert 0 < int((std < 1).sum()) < d, "both sides of the hinge are in the test"
    torch.testing.assert_close(grad, by_hand, rtol=1e-9, atol=1e-12)


def test_a_single_image_and_views_that_do_not_match_are_refused() -> None:
    z = draw(0, 4, 3)
    for loss in (lambda a, b: barlow_twins(a, b, 0.005), vicreg, vicreg_terms):
        with pytest.raises(ConfigError, match="batch of 1"):
            loss(z[:1], z[:1])
        with pytest.raises(ConfigError, match=r"z0 \[4, 3\], z1 \[1, 3\]: row i of each"):
            loss(z, z[:1])
