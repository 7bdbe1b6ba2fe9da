"""The nearest vectors and the near-duplicates, against numpy, and FAISS against both."""

import sys

import numpy as np
import pytest
import torch

from stopgrad.contracts import ConfigError
from stopgrad.eval import search
from stopgrad.eval.duplicates import near_duplicates
from stopgrad.eval.search import nearest


def cloud(n: int, d: int = 8, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def cosines(a: torch.Tensor, b: torch.Tensor) -> np.ndarray:
    x, y = a.double().numpy(), b.double().numpy()
    return (x / np.linalg.norm(x, axis=1)[:, None]) @ (y / np.linalg.norm(y, axis=1)[:, None]).T


@pytest.mark.parametrize("skip_self", [False, True])
def test_the_nearest_are_those_of_a_full_sort(skip_self: bool) -> None:
    bank = cloud(200)
    queries = bank if skip_self else cloud(50, seed=1)
    expected = cosines(queries, bank)
    if skip_self:
        np.fill_diagonal(expected, -9)
    near, index = nearest(queries, bank, 7, skip_self=skip_self, chunk=16)
    assert near.shape == index.shape == (len(queries), 7)
    assert (index.numpy() == np.argsort(-expected, axis=1)[:, :7]).all()
    np.testing.assert_allclose(near.numpy(), -np.sort(-expected, axis=1)[:, :7], atol=1e-6)


@pytest.mark.parametrize(("count", "k"), [(1000, 3), (1003, 9), (517, 32), (64, 4), (64, 5), (40, 40), (5000, 1)])
@pytest.mark.parametrize("ties", [False, True])
def test_the_largest_by_groups_are_the_largest(count: int, k: int, ties: bool) -> None:
    similarity = cloud(20, count, seed=k)
    similarity[:, -1] += 5  # the left-over columns count too
    if ties:
        similarity = similarity.round()
    values, index = search._top(similarity, k)
    assert torch.equal(values, similarity.sort(dim=1, descending=True).values[:, :k])
    assert torch.equal(similarity.gather(1, index), values)
    assert all(len(set(row)) == k for row in index.tolist())


def test_among_equals_of_a_long_row_the_first_of_the_bank_counts() -> None:
    bank = torch.tensor([[1.0, 0.0]]).repeat(3000, 1)
    bank[1234] = torch.tensor([0.0, 1.0])
    _, index = nearest(torch.tensor([[1.0, 0.0]]), bank, 9)
    assert index.tolist() == [list(range(9))]


def test_no_vector_is_its_own_neighbour_though_all_coincide() -> None:
    _, index = nearest(torch.ones(5, 3), torch.ones(5, 3), 4, skip_self=True)
    assert index.tolist() == [[j for j in range(5) if j != i] for i in range(5)]


def test_more_neighbours_than_there_are_is_all_of_them() -> None:
    bank = cloud(3)
    assert nearest(bank, bank, 10)[1].shape == (3, 3)
    assert nearest(bank, bank, 10, skip_self=True)[1].shape == (3, 2)
    assert nearest(bank[:0], bank, 2)[1].shape == (0, 2)


def test_where_nothing_can_be_found_is_an_error() -> None:
    with pytest.raises(ConfigError, match="at least one of two"):
        nearest(cloud(1), cloud(1), 1, skip_self=True)
    with pytest.raises(ConfigError, match="bank as queries"):
        nearest(cloud(2), cloud(3), 1, skip_self=True)


@pytest.mark.parametrize("skip_self", [False, True])
def test_faiss_finds_the_same_as_the_exact_search(skip_self: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("faiss")
    bank = torch.cat([cloud(1500), cloud(500)])  # the second part repeats the first 500
    queries = bank if skip_self else cloud(80, seed=1)
    near, index = nearest(queries, bank, 9, skip_self=skip_self)
    monkeypatch.setattr(search, "EXACT_UP_TO", 1000)
    by_cells, places = nearest(queries, bank, 9, skip_self=skip_self)
    torch.testing.assert_close(by_cells, near, rtol=0, atol=1e-6)
    # of vectors that coincide either may stand at the border of the list
    torch.testing.assert_close(bank[places], bank[index], rtol=0, atol=0)
    if skip_self:
        assert (places != torch.arange(len(bank))[:, None]).all()
    assert torch.equal(nearest(queries, bank, 9, skip_self=skip_self)[1], places)


def test_a_query_whose_cells_are_nearly_empty_is_searched_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("faiss")
    bank = cloud(800)
    expected = nearest(bank, bank, 300, skip_self=True)[0]
    monkeypatch.setattr(search, "EXACT_UP_TO", 100)
    monkeypatch.setattr(search, "PROBED", 1)
    near, index = nearest(bank, bank, 300, skip_self=True)
    torch.testing.assert_close(near, expected, rtol=0, atol=1e-6)  # of places, rounding may swap two
    assert all(len(set(row)) == 300 for row in index.tolist())


def test_without_faiss_a_large_bank_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "EXACT_UP_TO", 10)
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ConfigError, match=r"stopgrad\[search\]"):
        nearest(cloud(11), cloud(11), 1)


def groups_by_loop(features: torch.Tensor, threshold: float) -> list[list[int]]:
    near = cosines(features, features) >= threshold
    groups: list[list[int]] = []
    for image in range(len(features)):
        joined = next((group for group in groups if near[group[0], image]), None)
        if joined is None:
            groups.append([image])
        else:
            joined.append(image)
    return [group for group in groups if len(group) > 1]


@pytest.mark.parametrize("threshold", [0.8, 0.9, 0.99])
def test_an_image_joins_the_first_group_whose_first_image_is_near(
    threshold: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stopgrad.eval.duplicates.SIMILARITIES", 1000)
    features = cloud(150, d=4)
    features[100:110] = features[3:13] * 7
    expected = groups_by_loop(features, threshold)
    assert expected
    assert near_duplicates(features, threshold) == expected


def test_identical_images_are_found_at_a_threshold_of_1_and_others_are_not() -> None:
    features = cloud(40, d=64)
    features[30] = features[7]
    features[22] = 3 * features[7]
    assert near_duplicates(features, 1.0) == [[7, 22, 30]]
    assert near_duplicates(cloud(40, d=64), 1.0) == []


def test_a_chain_is_no_group_and_a_collapsed_encoder_makes_one_of_all() -> None:
    angle = torch.arange(6) * 0.1
    chain = torch.stack([angle.cos(), angle.sin()], dim=1)
    assert near_duplicates(chain, float(np.cos(0.11))) == [[0, 1], [2, 3], [4, 5]]
    assert near_duplicates(torch.ones(3000, 4), 0.999) == [list(range(3000))]


def test_faiss_finds_the_same_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("faiss")
    features = cloud(1500)
    features[1000:1200] = features[:200] + 1e-4
    expected = near_duplicates(features, 0.999)
    monkeypatch.setattr(search, "EXACT_UP_TO", 1000)
    assert len(expected) >= 190
    assert near_duplicates(features, 0.999) == expected


@pytest.mark.parametrize("threshold", [0.0, -1.0, 1.1, float("nan")])
def test_a_threshold_that_is_no_cosine_is_refused(threshold: float) -> None:
    with pytest.raises(ConfigError, match="--threshold"):
        near_duplicates(cloud(3), threshold)
