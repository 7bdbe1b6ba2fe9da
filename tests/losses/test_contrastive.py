"""The contrastive losses against closed forms, published values and each other."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from stopgrad.contracts import ConfigError
from stopgrad.losses import (
    info_nce,
    info_nce_batch,
    instance_spreading,
    instance_spreading_queries,
    margin_queries,
    nce,
    non_parametric_softmax,
    nt_logistic_queries,
    nt_xent,
    nt_xent_queries,
)
from tests.losses import loops

TwoViews = Callable[[Tensor, Tensor, float], Tensor]
both = pytest.mark.parametrize("loss", [nt_xent, instance_spreading])


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def unit(seed: int, *shape: int) -> Tensor:
    return F.normalize(draw(seed, *shape), dim=1)


@pytest.mark.parametrize(("keys", "expected"), [(1, math.log(2)), (4096, 8.3180), (16384, 9.7042), (65536, 11.0904)])
def test_info_nce_of_equal_similarities_is_the_log_of_the_candidates(keys: int, expected: float) -> None:
    same = F.normalize(torch.ones(2, 4), dim=1)
    assert info_nce(same, same, same[:1].expand(keys, 4), 0.07).item() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(("temperature", "above"), [(0.07, 0.797), (0.1, 0.391), (0.2, 0.098), (0.5, 0.016)])
def test_info_nce_of_independent_vectors_is_above_the_log_by_the_variance_of_the_logits(
    temperature: float, above: float
) -> None:
    q, k, queue = unit(0, 1024, 128), unit(1, 1024, 128), unit(2, 4096, 128)
    loss = info_nce(q, k, queue, temperature).item()
    spread = 1 / (temperature * math.sqrt(128))  # of one positive's logit, of which 1024 are averaged
    # the mean of 4097 exponentials stays below its expectation, which shows at .07 only (measured there: 9.10)
    assert loss == pytest.approx(math.log(4097) + above, abs=3 * spread / 32 + (0.03 if temperature == 0.07 else 0))


@pytest.mark.parametrize(("n", "expected"), [(2, math.log(3)), (256, 6.2364), (4096, 9.0108)])
def test_nt_xent_of_a_collapsed_batch_is_the_log_of_the_other_embeddings(n: int, expected: float) -> None:
    assert nt_xent(torch.ones(n, 3), 7 * torch.ones(n, 3), 0.1).item() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(("temperature", "independent", "identical"), [(0.5, 6.252, 4.265), (0.1, 6.63, 0.034)])
def test_nt_xent_of_random_vectors_is_as_measured(temperature: float, independent: float, identical: float) -> None:
    z0, z1 = draw(0, 256, 128), draw(1, 256, 128)
    assert nt_xent(z0, z1, temperature).item() == pytest.approx(independent, abs=0.15)
    assert nt_xent(z0, 2 * z0, temperature).item() == pytest.approx(identical, abs=0.003)


@pytest.mark.parametrize("interleaved", [False, True])
def test_nt_xent_is_the_double_loop_over_anchors_in_either_stacking(interleaved: bool) -> None:
    z0, z1 = draw(0, 6, 4), draw(1, 6, 4)
    assert nt_xent(z0, z1, 0.3).item() == pytest.approx(loops.nt_xent(z0, z1, 0.3, interleaved).item(), rel=1e-12)


def test_nt_xent_is_the_mean_of_its_two_directions_and_of_the_slices_of_a_batch() -> None:
    z0, z1 = draw(0, 6, 4).requires_grad_(), draw(1, 6, 4).requires_grad_()
    whole = nt_xent(z0, z1, 0.2)
    directions = (nt_xent_queries(z0, z1, z0, 0.2) + nt_xent_queries(z1, z0, z1, 0.2)) / 2
    parts = [
        nt_xent_queries(a[first : first + 2], b, a, 0.2, first) for a, b in ((z0, z1), (z1, z0)) for first in (0, 2, 4)
    ]
    sliced = torch.stack(parts).mean()
    expected = torch.autograd.grad(whole, [z0, z1])
    for other in (directions, sliced):
        assert other.item() == pytest.approx(whole.item(), rel=1e-12)
        for ours, theirs in zip(torch.autograd.grad(other, [z0, z1]), expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-14)


def test_instance_spreading_is_the_mean_over_slices_and_its_keys_may_be_detached() -> None:
    z0, z1 = draw(0, 6, 4).requires_grad_(), draw(1, 6, 4).requires_grad_()
    parts = [
        instance_spreading_queries(a[first : first + 3], b.detach(), a.detach(), 0.2, first)
        for a, b in ((z0, z1), (z1, z0))
        for first in (0, 3)
    ]
    detached = torch.stack(parts).mean()
    whole = instance_spreading(z0, z1, 0.2)
    assert detached.item() == pytest.approx(whole.item(), rel=1e-12)
    full, half = torch.autograd.grad(whole, z0)[0], torch.autograd.grad(detached, z0)[0]
    assert 0.2 < float(half.norm() / full.norm()) < 0.9  # the key side is missing
    assert F.cosine_similarity(half.flatten(), full.flatten(), dim=0) > 0.8


def test_a_query_is_never_its_own_negative() -> None:
    """Its own key may be anything: the weight of the masked column is exactly 0."""
    query, positive, own = draw(0, 2, 4), draw(1, 5, 4), draw(2, 5, 4).requires_grad_()
    for loss in (nt_xent_queries, instance_spreading_queries):
        value = loss(query, positive, own, 0.1, 1)
        (grad,) = torch.autograd.grad(value, own)
        assert torch.equal(grad.norm(dim=1) > 0, torch.ones(5, dtype=torch.bool))  # row 1 is a negative of query 1
        alone = loss(query[:1], positive, own, 0.1, 1)
        (grad,) = torch.autograd.grad(alone, own)
        assert torch.equal(grad[1], torch.zeros(4, dtype=torch.float64))
        changed = own.detach().clone()
        changed[1] = query[0]
        assert loss(query[:1], positive, changed, 0.1, 1).item() == alone.item()


@both
@pytest.mark.parametrize("temperature", [0.05, 0.5, 5.0])
def test_two_view_losses_are_never_below_0(loss: TwoViews, temperature: float) -> None:
    for seed in range(20):
        z0 = draw(seed, 4, 3)
        assert loss(z0, z0 + 0.1 * draw(seed + 100, 4, 3), temperature) >= 0


@both
def test_two_view_losses_ignore_lengths_order_and_which_view_is_first(loss: TwoViews) -> None:
    z0, z1 = draw(0, 6, 4), draw(1, 6, 4)
    value = loss(z0, z1, 0.2).item()
    lengths = draw(2, 6, 1).exp()
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    assert loss(lengths * z0, 1e-3 * z1, 0.2).item() == pytest.approx(value, rel=1e-12)
    assert loss(z0[order], z1[order], 0.2).item() == pytest.approx(value, rel=1e-12)
    assert loss(z1, z0, 0.2).item() == pytest.approx(value, rel=1e-12)
    assert loss(z0[order], z1, 0.2).item() != pytest.approx(value, rel=1e-3)  # the pairing does matter


@both
def test_the_gradient_of_an_embedding_is_orthogonal_to_it(loss: TwoViews) -> None:
    z0, z1 = draw(0, 6, 4).requires_grad_(), draw(1, 6, 4)
    (grad,) = torch.autograd.grad(loss(z0, z1, 0.2), z0)
    assert grad.norm() > 0.01
    assert (grad * z0).sum(dim=1).abs().max() < 1e-14


@both
def test_an_embedding_of_zeros_has_a_finite_loss_and_gradient(loss: TwoViews) -> None:
    z0 = draw(0, 4, 3).float()
    z0[1] = 0
    z0.requires_grad_()
    value = loss(z0, draw(1, 4, 3).float(), 0.1)
    (grad,) = torch.autograd.grad(value, z0)
    assert bool(value.isfinite())
    assert bool(grad.isfinite().all())


def test_logits_get_a_gradient_that_sums_to_0_and_is_the_softmax_minus_the_label() -> None:
    logits, index = draw(0, 4, 6).requires_grad_(), torch.tensor([5, 0, 2, 2])
    (grad,) = torch.autograd.grad(
        non_parametric_softmax(logits, torch.eye(6, dtype=torch.float64), index, 0.2) * 4, logits
    )
    torch.testing.assert_close(grad.sum(dim=1), torch.zeros(4, dtype=torch.float64), rtol=0, atol=1e-14)
    torch.testing.assert_close(grad, (F.softmax(logits / 0.2, dim=1) - F.one_hot(index, 6)) / 0.2)


def test_info_nce_ignores_the_order_of_its_negatives() -> None:
    q, k, queue = unit(0, 4, 8), unit(1, 4, 8), unit(2, 32, 8)
    expected = info_nce(q, k, queue, 0.1).item()
    assert info_nce(q, k, queue.flip(0), 0.1).item() == pytest.approx(expected, rel=1e-13)
    assert info_nce(q, k, queue.roll(5, 1), 0.1).item() != pytest.approx(expected, rel=1e-6)


def test_info_nce_batch_takes_the_own_key_as_the_positive_and_leaves_the_factor_to_the_caller() -> None:
    q, k = unit(0, 6, 8), unit(1, 6, 8)
    slices = [info_nce_batch(q[first : first + 3], k, 0.3, first).item() for first in (0, 3)]
    assert sum(slices) / 2 == pytest.approx(info_nce_batch(q, k, 0.3).item(), rel=1e-12)
    single = [info_nce(q[i : i + 1], k[i : i + 1], k[torch.arange(6) != i], 0.3).item() for i in range(6)]
    assert sum(single) / 6 == pytest.approx(info_nce_batch(q, k, 0.3).item(), rel=1e-12)
    equal = torch.ones(4096, 2) / math.sqrt(2)
    # both directions of a ResNet-50 at batch 4096 and temperature 1: 2 * 2 * ln 4096
    assert 2 * 2 * 1.0 * info_nce_batch(equal[:8], equal, 1.0).item() == pytest.approx(33.27, abs=0.01)


def test_perfect_queries_reach_the_lower_bound_of_moco_v3() -> None:
    """2 t log(1 + (N - 1) exp(-2 / t)) would need all others opposite: N = 2 is the batch where they can be."""
    q = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)
    assert info_nce_batch(q, q, 0.2).item() == pytest.approx(math.log1p(math.exp(-2 / 0.2)), rel=1e-9)


@pytest.mark.parametrize(("m", "expected"), [(1, 2 * math.log(2)), (4096, 9.318)])
def test_nce_of_equal_similarities_is_the_closed_form(m: int, expected: float) -> None:
    positive, negatives, images = torch.full((3,), 0.4), torch.full((3, m), 0.4), 1_280_000
    log_normaliser = math.log(images) + 0.4 / 0.07
    assert nce(positive, negatives, images, log_normaliser, 0.07).item() == pytest.approx(expected, abs=1e-3)
    assert math.log(m + 1) + m * math.log(1 + 1 / m) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(("temperature", "measured"), [(0.07, 10.13), (0.1, 9.86)])
def test_nce_with_a_random_bank_starts_as_measured(temperature: float, measured: float) -> None:
    """The reference's bank: uniform rows, of length 1 on average only. Z is estimated from the first batch."""
    images, m, d = 50_000, 4096, 128
    generator = torch.Generator().manual_seed(0)
    bank = (2 * torch.rand(images, d, generator=generator) - 1) / math.sqrt(d / 3)
    v = F.normalize(torch.randn(128, d, generator=generator), dim=1)
    s = (v @ bank.T).gather(1, torch.randint(images, (128, m + 1), generator=generator))
    log_normaliser = math.log(images) + (s / temperature).flatten().logsumexp(0) - math.log(s.numel())
    assert nce(s[:, 0], s[:, 1:], images, log_normaliser, temperature).item() == pytest.approx(measured, abs=0.35)


def test_nce_survives_what_overflows_in_exponentials() -> None:
    positive = torch.tensor([1.0, -1.0], requires_grad=True)
    negatives = torch.tensor([[1.0, -1.0], [1.0, -1.0]])
    loss = nce(positive, negatives, 10**9, math.log(1e9) + 1 / 0.005, 0.005)  # exp(200) is inf in float32
    (grad,) = torch.autograd.grad(loss, positive)
    assert bool(loss.isfinite())
    assert bool(grad.isfinite().all())
    assert grad[1] < 0  # and the second image is still pulled to its row


def test_non_parametric_softmax_is_the_log_of_the_images_for_equal_rows_and_reads_the_index() -> None:
    v = unit(0, 3, 8).float()
    assert non_parametric_softmax(v, v[:1].expand(50, 8), torch.tensor([4, 4, 0]), 0.1).item() == pytest.approx(
        math.log(50), rel=1e-6
    )
    bank = torch.eye(8)
    right, wrong = (non_parametric_softmax(bank[:3], bank, torch.tensor(i), 0.1) for i in ([0, 1, 2], [1, 2, 0]))
    assert (wrong - right).item() == pytest.approx(10, rel=1e-5)


def test_instance_spreading_has_its_published_values() -> None:
    expected = math.log(255) - 254 * math.log1p(-1 / 255)
    assert instance_spreading(torch.ones(128, 4), torch.ones(128, 4), 0.1).item() == pytest.approx(6.539, abs=1e-3)
    assert expected == pytest.approx(6.539, abs=1e-3)
    # one draw gave 6.84; 40 draws give 6.93 with a standard deviation of .077
    assert instance_spreading(draw(0, 128, 128), draw(1, 128, 128), 0.1).item() == pytest.approx(6.93, abs=3 * 0.077)
    z = draw(0, 128, 128)
    assert instance_spreading(z, z, 0.1).item() == pytest.approx(0.033, abs=0.006)


def test_instance_spreading_is_finite_where_a_negative_is_certain() -> None:
    z0 = torch.tensor([[1.0, 0.0], [1.0, 0.0]], requires_grad=True)  # each other's twin, both far from their partner
    value = instance_spreading(z0, torch.tensor([[-1.0, 0.0], [-1.0, 0.0]]), 0.01)
    (grad,) = torch.autograd.grad(value, z0)
    assert bool(value.isfinite())
    assert value > 100
    assert bool(grad.isfinite().all())


@pytest.mark.parametrize("temperature", [0.0, -0.1, math.nan])
def test_a_temperature_that_is_not_above_0_is_refused(temperature: float) -> None:
    z, index = unit(0, 4, 3), torch.arange(4)
    for call in (
        lambda: nt_xent(z, z, temperature),
        lambda: instance_spreading(z, z, temperature),
        lambda: info_nce(z, z, z, temperature),
        lambda: info_nce_batch(z, z, temperature),
        lambda: non_parametric_softmax(z, z, index, temperature),
        lambda: nce(z[:, 0], z, 4, 1.0, temperature),
    ):
        with pytest.raises(ConfigError, match="temperature must be above 0, got"):
            call()


def test_a_batch_of_one_image_is_refused() -> None:
    z = unit(0, 1, 3)
    for call in (
        lambda: nt_xent(z, z, 0.1),
        lambda: instance_spreading(z, z, 0.1),
        lambda: info_nce_batch(z, z, 0.1),
    ):
        with pytest.raises(ConfigError, match=r"batch of 1: .* use 2 or more"):
            call()


def test_views_that_do_not_match_are_refused_instead_of_broadcast() -> None:
    z = unit(0, 4, 3)
    for call in (
        lambda: nt_xent(z, z[:2], 0.1),
        lambda: instance_spreading(z, z[:2], 0.1),
        lambda: info_nce(z, z[:1], z, 0.1),
        lambda: nt_xent_queries(z, z, z[:3], 0.1),
    ):
        with pytest.raises(ConfigError, match=r"\[4, 3\].* row i of each"):
            call()


@pytest.mark.parametrize("first", [-1, 3])
def test_a_slice_beyond_the_batch_is_refused(first: int) -> None:
    z = unit(0, 4, 3)
    for call in (
        lambda: nt_xent_queries(z[:2], z, z, 0.1, first),
        lambda: info_nce_batch(z[:2], z, 0.1, first),
        lambda: instance_spreading_queries(z[:2], z, z, 0.1, first),
    ):
        with pytest.raises(ConfigError, match=f"first={first} with 2 queries .* there are 4"):
            call()


def test_yes_or_no_costs_twice_the_log_of_2_where_nothing_is_alike() -> None:
    axes = torch.eye(6, dtype=torch.float64)
    found = nt_logistic_queries(axes[:3], axes[3:], None, 0.3)
    assert float(found) == pytest.approx(2 * math.log(2), rel=1e-9)


def test_equal_embeddings_miss_the_margin_by_all_of_it() -> None:
    same = torch.ones(4, 3, dtype=torch.float64)
    assert float(margin_queries(same, same, same, 0.7)) == pytest.approx(0.7)
    far = torch.eye(4, dtype=torch.float64)
    assert float(margin_queries(far, far, far, 0.7)) == 0  # a negative at 0, the positive at 1


def test_the_semi_hard_negative_is_the_nearest_beyond_the_positive_else_the_farthest() -> None:
    def at(*cosines: float) -> Tensor:
        return torch.tensor([[c, math.sqrt(1 - c * c)] for c in cosines], dtype=torch.float64)

    query = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    beyond = margin_queries(query, at(0.5, 0.9, 0.4, -0.2), None, 1.0, 0, semi_hard=True)
    assert float(beyond) == pytest.approx(0.4 - 0.5 + 1)
    none = margin_queries(query, at(0.1, 0.9, 0.4, 0.2), None, 1.0, 0, semi_hard=True)
    assert float(none) == pytest.approx(0.2 - 0.1 + 1)
