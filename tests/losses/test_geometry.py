"""The numbers that describe a cloud, against closed forms and loops."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from stopgrad.losses.geometry import (
    alignment,
    correlation,
    dead_dimensions,
    effective_rank,
    retrieval_at_1,
    separation,
    singular_values,
    std_ratio,
    uniformity,
)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_std_ratio_is_0_for_a_point_whatever_the_lengths() -> None:
    direction = normal(1, 64)
    assert std_ratio(direction * torch.arange(1, 101)[:, None]) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("d", [2, 16, 256])
def test_std_ratio_of_the_unit_vectors_is_the_closed_form(d: int) -> None:
    assert std_ratio(torch.eye(d)) == pytest.approx(math.sqrt(1 - 1 / d), abs=1e-9)


def test_std_ratio_of_gaussian_features_is_near_1() -> None:
    assert std_ratio(normal(4000, 128)) == pytest.approx(1, abs=0.01)


def test_singular_values_are_those_of_an_svd_of_the_centred_features() -> None:
    for shape in ((50, 8), (8, 50), (20, 20)):
        x = normal(*shape).double() + 3
        expected = torch.linalg.svdvals(x - x.mean(0))
        # the smallest is 0 where N <= D, and a Gram matrix knows it to 1e-8 of the largest
        torch.testing.assert_close(singular_values(x), expected, rtol=1e-7, atol=1e-6)


def test_effective_rank_of_points_on_a_line_is_1() -> None:
    assert effective_rank(normal(200, 1) * normal(1, 64, seed=1) + 5) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("d", [1, 3, 64])
def test_effective_rank_of_equal_extent_in_d_directions_is_d(d: int) -> None:
    x = torch.cat([torch.eye(d), -torch.eye(d)])  # centred, orthogonal columns of equal length
    assert effective_rank(x) == pytest.approx(d, rel=1e-9)
    assert effective_rank(F.pad(x, (0, 7)) + 2) == pytest.approx(d, rel=1e-5)  # more channels and a shift add nothing


def test_effective_rank_is_the_exp_of_the_entropy_of_the_singular_values() -> None:
    values = [4.0, 2.0, 1.0]
    x = torch.cat([torch.diag(torch.tensor(values)), -torch.diag(torch.tensor(values))])
    p = [v / 7 for v in values]
    assert effective_rank(x) == pytest.approx(math.exp(-sum(q * math.log(q) for q in p)), rel=1e-9)


def test_effective_rank_of_one_point_is_0_even_with_rounding_noise() -> None:
    point = normal(1, 64).expand(100, 64)
    assert effective_rank(point) == 0
    assert effective_rank(point * (1 + 6e-8 * normal(100, 64, seed=1))) == 0
    assert effective_rank(torch.zeros(10, 4)) == 0
    assert effective_rank(normal(1, 4)) == 0


def test_effective_rank_does_not_change_with_scale_or_rotation() -> None:
    x = normal(300, 20) * torch.linspace(0.1, 2, 20)
    rotation = torch.linalg.qr(normal(20, 20, seed=1).double()).Q.float()
    assert effective_rank(1e-4 * x @ rotation) == pytest.approx(effective_rank(x), rel=1e-5)


def test_alignment_is_0_for_equal_and_4_for_opposite_pairs_and_2_for_right_angles() -> None:
    x = normal(10, 5)
    assert alignment(x, 3 * x) == pytest.approx(0, abs=1e-12)
    assert alignment(x, -x) == pytest.approx(4)
    assert alignment(torch.eye(4), torch.eye(4).roll(1, 0)) == pytest.approx(2)


def test_uniformity_of_two_opposite_points_is_the_closed_form() -> None:
    x = torch.tensor([[0.0, 2.0], [0.0, -1.0]])
    assert uniformity(x) == pytest.approx(-8)
    assert uniformity(x, t=0.5) == pytest.approx(-2)
    assert uniformity(x[:1].expand(5, 2)) == pytest.approx(0)


@pytest.mark.parametrize("n", [3, 1500])
def test_uniformity_is_the_mean_over_pairs(n: int) -> None:
    x = F.normalize(normal(n, 6).double(), dim=1)
    expected = torch.pdist(x).square().mul(-2).exp().mean().log()
    assert uniformity(x) == pytest.approx(float(expected), rel=1e-9)


def test_uniformity_of_a_single_row_has_no_pair() -> None:
    assert math.isnan(uniformity(normal(1, 4)))


def test_dead_dimensions_are_counted_at_any_scale() -> None:
    x = normal(50, 10)
    x[:, 3], x[:, 7] = 0, 2
    for scale in (1e-6, 1, 1e6):
        assert dead_dimensions(x * scale) == 2
    assert dead_dimensions(torch.zeros(5, 4)) == 4
    assert dead_dimensions(torch.full((5, 4), 0.1)) == 4
    assert dead_dimensions(normal(50, 10)) == 0


@pytest.mark.parametrize("n", [1, 7, 2100])
def test_retrieval_of_identical_views_is_100_and_of_exchanged_ones_0(n: int) -> None:
    x = normal(n, 16)
    assert retrieval_at_1(x, 5 * x) == 100
    if n > 1:
        assert retrieval_at_1(x, x.roll(1, 0)) == 0


def test_retrieval_counts_the_rows_found() -> None:
    x = torch.eye(4)
    assert retrieval_at_1(x, x[[0, 1, 3, 2]]) == 50


def test_retrieval_in_a_cloud_that_is_one_point_is_chance() -> None:
    assert retrieval_at_1(torch.ones(50, 8), torch.ones(50, 8)) == 2


def test_features_that_are_not_finite_give_nan_and_no_exception() -> None:
    x = normal(10, 4)
    x[2, 1] = math.nan
    for value in (std_ratio(x), effective_rank(x), alignment(x, x), uniformity(x), retrieval_at_1(x, x)):
        assert math.isnan(value)
    x[2, 1] = math.inf
    assert math.isnan(effective_rank(x))


def test_separation_is_100_for_equal_views_50_for_one_point_and_counts_pairs_in_between() -> None:
    eye = torch.eye(4)
    assert separation(eye, eye) == 100
    assert separation(torch.ones(4, 3), torch.ones(4, 3)) == 50
    # the second views of 0 and 1 are exchanged: their own is less like them than one other, and equal to two
    exchanged = eye[[1, 0, 2, 3]]
    assert separation(eye, exchanged) == pytest.approx(100 * (2 * 1 / 3 + 2 * 1) / 4)


def test_separation_equals_a_loop_over_pairs() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(9, 5, generator=generator), torch.randn(9, 5, generator=generator)
    b = b + a
    cosine = torch.nn.functional.cosine_similarity(a[:, None].double(), b[None].double(), dim=2)
    wins = sum(bool(cosine[i, i] > cosine[i, j]) for i in range(9) for j in range(9) if i != j)
    assert separation(a, b) == pytest.approx(100 * wins / 72)
    assert math.isnan(separation(a[:1], b[:1]))


def test_the_correlation_of_channels_is_numpy_s_without_what_does_not_vary() -> None:
    x = torch.randn(50, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * torch.tensor([1, 9, 2, 3])
    found = np.abs(np.corrcoef(x.numpy().T))
    expected = (found.sum() - 4) / 12
    assert correlation(x) == pytest.approx(expected, rel=1e-9)
    still = torch.cat([x, torch.full((50, 1), 7.0, dtype=torch.float64)], dim=1)
    assert correlation(still) == pytest.approx(expected, rel=1e-9)
    assert correlation(x[:, :1].expand(-1, 3)) == pytest.approx(1)
    assert math.isnan(correlation(torch.ones(5, 3)))
