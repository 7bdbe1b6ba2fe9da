"""Margin, triplet, N-pair and logistic losses against closed forms, and beside pytorch-metric-learning."""

import math
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from stopgrad.contracts import ConfigError
from stopgrad.losses import logistic, margin_contrastive, n_pair, nt_xent, triplet, vicreg


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


SAME = torch.tensor([True, False, True, False, False, True])


@pytest.fixture(scope="module")
def pml() -> ModuleType:
    pytest.importorskip("pytorch_metric_learning", reason="pytorch-metric-learning is not installed: make setup")
    import pytorch_metric_learning.distances
    import pytorch_metric_learning.losses
    import pytorch_metric_learning.reducers

    return pytorch_metric_learning


def test_margin_contrastive_has_its_closed_forms() -> None:
    x, one, none = draw(0, 4, 3), torch.ones(4), torch.zeros(4)
    assert margin_contrastive(x, x, one, 0.7).item() == 0
    assert margin_contrastive(x, x, none, 0.7).item() == pytest.approx(0.7**2 / 2)
    away = F.normalize(draw(1, 4, 3), dim=1)
    assert margin_contrastive(x, x + 0.7 * away, none, 0.69).item() == 0
    assert margin_contrastive(x, x + 0.3 * away, none, 0.7).item() == pytest.approx(
        0.4**2 / 2
    )  # a product would give 0
    assert margin_contrastive(x, x + 0.3 * away, one, 0.7).item() == pytest.approx(0.3**2 / 2)


def test_margin_contrastive_has_a_finite_gradient_where_two_points_are_one() -> None:
    x = draw(0, 6, 3).requires_grad_()
    (grad,) = torch.autograd.grad(margin_contrastive(x, x.detach(), SAME, 1.0), x)
    assert torch.equal(grad, torch.zeros_like(grad))


def test_margin_contrastive_does_not_move_unlike_points_beyond_the_margin() -> None:
    x = torch.tensor([[0.0, 0.0], [0.0, 0.0]], requires_grad=True)
    loss = margin_contrastive(x, torch.tensor([[0.5, 0.0], [2.0, 0.0]]), torch.tensor([0, 0]), 1.0)
    (grad,) = torch.autograd.grad(loss, x)
    torch.testing.assert_close(grad, torch.tensor([[0.25, 0.0], [0.0, 0.0]]))  # away from the near one


def test_triplet_of_equal_distances_is_the_margin_and_0_once_the_negative_is_far() -> None:
    a = draw(0, 5, 3)
    assert triplet(a, a + 1, a - 1, 0.2).item() == pytest.approx(0.2)
    assert triplet(a, a, a, 0.2).item() == pytest.approx(0.2)
    step = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    assert triplet(a, a + step, a + 1.3 * step, 0.2).item() == 0
    assert triplet(a, a + step, a + 1.1 * step, 0.2).item() == pytest.approx(0.1)
    assert triplet(a, a + 2 * step, a + step, 0.2).item() == pytest.approx(1.2)  # distances, not their squares


def test_triplet_has_a_finite_gradient_where_points_are_one() -> None:
    a = draw(0, 4, 3).requires_grad_()
    (grad,) = torch.autograd.grad(triplet(a, a.detach(), a.detach(), 0.2), a)
    assert bool(grad.isfinite().all())


@pytest.mark.parametrize("n", [2, 7, 100])
def test_n_pair_of_identical_embeddings_is_the_log_of_the_pairs(n: int) -> None:
    f = torch.full((n, 4), 3.0)
    assert n_pair(f, f).item() == pytest.approx(math.log(n), rel=1e-6)


def test_n_pair_depends_on_lengths_because_nothing_is_normalised() -> None:
    a, p = draw(0, 5, 3), draw(1, 5, 3)
    assert n_pair(2 * a, p).item() != pytest.approx(n_pair(a, p).item(), rel=1e-2)
    assert n_pair(2 * a, p).item() == pytest.approx(n_pair(a, 2 * p).item(), rel=1e-12)


def test_logistic_starts_where_siglip_starts() -> None:
    """Orthogonal images and captions at t = 10, bias -10: one yes missed and N - 1 no's right."""
    n = 256
    x0, x1 = torch.eye(2 * n, dtype=torch.float64).split(n)
    expected = math.log1p(math.exp(10)) + (n - 1) * math.log1p(math.exp(-10))
    assert expected == pytest.approx(10.01, abs=0.005)
    assert logistic(x0, x1, 0.1, -10.0).item() == pytest.approx(expected, rel=1e-12)


def test_logistic_is_a_sum_over_pairs_divided_by_the_batch() -> None:
    x0, x1 = torch.eye(6).split(3)
    assert logistic(x0, x1, 0.1, 0.0).item() == pytest.approx(3 * math.log(2))


def test_logistic_teaches_its_temperature_and_bias() -> None:
    log_t, bias = torch.tensor(math.log(10.0), requires_grad=True), torch.tensor(-10.0, requires_grad=True)
    x = draw(0, 8, 4).float()
    grads = torch.autograd.grad(logistic(x, x, (-log_t).exp(), bias), [log_t, bias])
    assert grads[0] != 0
    assert grads[1] < 0  # too few are called pairs


def test_logistic_ignores_lengths_and_order_and_which_side_is_first() -> None:
    x0, x1, order = draw(0, 6, 4), draw(1, 6, 4), torch.tensor([3, 0, 5, 1, 4, 2])
    value = logistic(x0, x1, 0.1, -2.0).item()
    assert logistic(5 * x0, 0.1 * x1, 0.1, -2.0).item() == pytest.approx(value, rel=1e-12)
    assert logistic(x0[order], x1[order], 0.1, -2.0).item() == pytest.approx(value, rel=1e-12)
    assert logistic(x1, x0, 0.1, -2.0).item() == pytest.approx(value, rel=1e-12)
    assert logistic(x0[order], x1, 0.1, -2.0).item() != pytest.approx(value, rel=1e-3)


def test_what_can_not_be_meant_is_refused() -> None:
    x = draw(0, 4, 3)
    for call in (
        lambda: margin_contrastive(x, x[:1], torch.ones(4), 1.0),
        lambda: triplet(x, x, x[:1], 0.2),
        lambda: n_pair(x, x[:3]),
        lambda: logistic(x, x[:3], 0.1, 0.0),
    ):
        with pytest.raises(ConfigError, match="row i of each has to be the same image's"):
            call()
    with pytest.raises(ConfigError, match="temperature must be above 0, got 0"):
        logistic(x, x, 0, 0.0)
    with pytest.raises(ConfigError, match="batch of 1"):
        n_pair(x[:1], x[:1])


# Beside pytorch-metric-learning: pair i is (row i, row i + B) of both halves stacked.


def labels(b: int) -> Tensor:
    return torch.arange(b).repeat(2)


def test_margin_contrastive_is_theirs_once_their_hinges_are_squared_and_averaged_over_all_pairs(
    pml: ModuleType,
) -> None:
    x0, x1 = draw(0, 6, 3), draw(1, 6, 3)
    i = torch.arange(6)
    pairs = (i[SAME], i[SAME] + 6, i[~SAME], i[~SAME] + 6)
    theirs = pml.losses.ContrastiveLoss(
        neg_margin=2.5,
        distance=pml.distances.LpDistance(normalize_embeddings=False),
        reducer=pml.reducers.DoNothingReducer(),
    )(torch.cat([x0, x1]), indices_tuple=pairs)
    hinges = torch.cat([theirs["pos_loss"]["losses"], theirs["neg_loss"]["losses"]])
    assert len(hinges) == 6
    assert margin_contrastive(x0, x1, SAME, 2.5).item() == pytest.approx(hinges.square().mean().item() / 2, rel=1e-10)


def test_triplet_is_theirs_over_the_same_triplets(pml: ModuleType) -> None:
    a, p, n = draw(0, 6, 3), draw(1, 6, 3), draw(2, 6, 3)
    i = torch.arange(6)
    theirs = pml.losses.TripletMarginLoss(
        margin=0.4,
        distance=pml.distances.LpDistance(normalize_embeddings=False),
        reducer=pml.reducers.MeanReducer(),
    )(torch.cat([a, p, n]), indices_tuple=(i, i + 6, i + 12))
    assert triplet(a, p, n, 0.4).item() == pytest.approx(theirs.item(), rel=1e-10)
    assert triplet(a, p, n, 0.4).item() == pytest.approx(F.triplet_margin_loss(a, p, n, margin=0.4).item(), rel=1e-5)


def test_n_pair_is_theirs(pml: ModuleType) -> None:
    a, p = draw(0, 6, 3), draw(1, 6, 3)
    i, empty = torch.arange(6), torch.empty(0, dtype=torch.long)
    theirs = pml.losses.NPairsLoss(distance=pml.distances.DotProductSimilarity(normalize_embeddings=False))(
        torch.cat([a, p]), labels(6), indices_tuple=(i, i + 6, empty, empty)
    )
    assert n_pair(a, p).item() == pytest.approx(theirs.item(), rel=1e-10)


@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_nt_xent_is_theirs_where_an_anchor_has_one_positive(pml: ModuleType, temperature: float) -> None:
    z = torch.cat([draw(0, 6, 3), draw(1, 6, 3)]).requires_grad_()
    theirs = pml.losses.NTXentLoss(temperature=temperature)(z, labels(6))
    ours = nt_xent(z[:6], z[6:], temperature)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-9)
    torch.testing.assert_close(torch.autograd.grad(ours, z)[0], torch.autograd.grad(theirs, z)[0], rtol=1e-7, atol=1e-9)


def test_vicreg_with_the_codes_weights_is_theirs_which_is_the_code(pml: ModuleType) -> None:
    z0, z1 = 0.9 * draw(0, 8, 5), 1.1 * draw(1, 8, 5)
    theirs = pml.losses.VICRegLoss()(z0, ref_emb=z1)
    assert vicreg(z0, z1, invariance=25 / 5, variance=12.5).item() == pytest.approx(theirs.item(), rel=1e-10)
