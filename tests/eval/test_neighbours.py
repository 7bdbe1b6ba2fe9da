"""Weighted kNN against closed forms, a loop, and scikit-learn."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.neighbors import KNeighborsClassifier

from stopgrad.eval import search
from stopgrad.eval.neighbours import knn, knn_top1
from stopgrad.eval.search import _largest


def cloud(n: int, d: int = 12, classes: int = 5, seed: int = 0) -> tuple[torch.Tensor, np.ndarray]:
    """Overlapping classes, so that neighbourhoods are mixed."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (n,), generator=generator)
    centres = torch.randn(classes, d, generator=torch.Generator().manual_seed(99))
    return centres[labels] + 1.5 * torch.randn(n, d, generator=generator), labels.numpy()


BANK, LABELS = cloud(300)
QUERIES, TRUTH = cloud(120, seed=1)


def predict(k: int, temperature: float = 0.1, bank: torch.Tensor = BANK, labels: np.ndarray = LABELS) -> np.ndarray:
    return knn(bank, labels, QUERIES, (k,), temperature, 5)[k]


def nearest_class() -> np.ndarray:
    return LABELS[(F.normalize(QUERIES, dim=1) @ F.normalize(BANK, dim=1).T).argmax(1).numpy()]


def test_one_neighbour_is_the_nearest_one() -> None:
    assert (predict(1) == nearest_class()).all()


def test_a_temperature_near_0_is_the_nearest_neighbour_and_does_not_overflow() -> None:
    assert (predict(50, temperature=1e-6) == nearest_class()).all()
    assert (predict(50, temperature=1e-300) == nearest_class()).all()


@pytest.mark.parametrize("temperature", [1e9, math.inf])
def test_an_endless_temperature_is_the_vote_of_the_majority(temperature: float) -> None:
    near = (F.normalize(QUERIES, dim=1) @ F.normalize(BANK, dim=1).T).argsort(dim=1, descending=True)[:, :15]
    counts = np.stack([np.bincount(LABELS[row], minlength=5) for row in near.numpy()])
    clear = np.sort(counts, axis=1)[:, -1] > np.sort(counts, axis=1)[:, -2]  # a tie is decided by rounding
    assert clear.sum() > 50
    assert (predict(15, temperature)[clear] == counts.argmax(axis=1)[clear]).all()


def test_the_votes_are_those_of_a_loop() -> None:
    expected = []
    for query in F.normalize(QUERIES.double(), dim=1):
        cosines = [(float(query @ F.normalize(row.double(), dim=0)), int(c)) for row, c in zip(BANK, LABELS)]
        votes = [0.0] * 5
        for cosine, label in sorted(cosines, reverse=True)[:20]:
            votes[label] += math.exp(cosine / 0.1)
        expected.append(votes.index(max(votes)))
    assert (predict(20) == expected).all()


@pytest.mark.parametrize("k", [1, 7, 200])
@pytest.mark.parametrize("temperature", [0.07, 0.1, 1.0])
def test_scikit_learn_predicts_the_same(k: int, temperature: float) -> None:
    other = KNeighborsClassifier(
        k, algorithm="brute", metric="cosine", weights=lambda distance: np.exp((1 - distance) / temperature)
    )
    other.fit(BANK.double().numpy(), LABELS)
    assert (predict(k, temperature) == other.predict(QUERIES.double().numpy())).all()


def test_a_bank_held_twice_and_twice_the_neighbours_predict_the_same() -> None:
    twice, labels = torch.cat([BANK, BANK]), np.concatenate([LABELS, LABELS])
    assert (predict(20) == predict(40, bank=twice, labels=labels)).all()


def test_the_length_of_features_does_not_matter() -> None:
    lengths = torch.logspace(-3, 3, len(BANK))[:, None]
    assert (predict(20) == predict(20, bank=BANK * lengths)).all()


def test_the_bank_finds_itself() -> None:
    assert knn_top1(BANK, LABELS, BANK, LABELS, k=1) == 100
    assert knn_top1(BANK, LABELS, BANK, (LABELS + 1) % 5, k=1) == 0


def test_the_score_is_the_percentage_right() -> None:
    assert knn_top1(BANK, LABELS, QUERIES, TRUTH, 20) == pytest.approx(100 * np.mean(predict(20) == TRUTH))


@pytest.mark.parametrize("chunk", [1, 7, 64, 1000])
def test_how_many_queries_are_compared_at_a_time_does_not_matter(chunk: int) -> None:
    whole = knn(BANK, LABELS, QUERIES, (5, 50), 0.1, 5)
    parts = knn(BANK, LABELS, QUERIES, (5, 50), 0.1, 5, chunk=chunk)
    assert all((whole[k] == parts[k]).all() for k in (5, 50))


def test_several_k_at_once_are_the_same_as_one_by_one() -> None:
    together = knn(BANK, LABELS, QUERIES, (200, 1, 20), 0.1, 5)
    assert list(together) == [200, 1, 20]
    assert all((together[k] == predict(k)).all() for k in together)


@pytest.mark.parametrize(("n", "q"), [(1, 1), (2, 99), (3, 1), (150, 2)])
def test_tiny_banks_and_few_queries_work_and_k_is_clamped(n: int, q: int) -> None:
    found = knn(BANK[:n], LABELS[:n], QUERIES[:q], (1, 200), 0.1, 5)
    everyone = knn(BANK[:n], LABELS[:n], QUERIES[:q], (n,), 0.1, 5)
    assert found[200].shape == (q,)
    assert (found[200] == everyone[n]).all()


def test_of_equally_near_rows_the_first_of_the_bank_count() -> None:
    similarity = torch.tensor([[0.5, 0.9, 0.5, 0.5, 0.1], [0.3, 0.3, 0.3, 0.3, 0.3], [0.1, 0.2, 0.3, 0.4, 0.5]])
    values, index = _largest(similarity, 3)
    assert index.tolist() == [[1, 0, 2], [0, 1, 2], [4, 3, 2]]
    torch.testing.assert_close(values, similarity.gather(1, index))


def test_a_collapsed_bank_gives_every_query_the_same_class() -> None:
    labels = np.array([3, 3, 1, 1, 1, 1, 1, 1])
    same = torch.ones(8, 4)
    found = knn(same, labels, torch.ones(5, 4), (1, 3, 8), 0.1, 5)
    assert [set(found[k].tolist()) for k in (1, 3, 8)] == [{3}, {3}, {1}]


@contextmanager
def reduced_precision() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


def test_similarities_are_float32_inside_a_run_that_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    # Neighbours that bfloat16 can't tell apart: the angle grows by 1e-3 a row.
    angle = 0.5 + torch.arange(64) * 1e-3
    bank = torch.stack([angle.cos(), angle.sin()], dim=1)
    seen = []

    def spied(similarity: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        seen.append((similarity.dtype, torch.get_float32_matmul_precision()))
        return _largest(similarity, k)

    monkeypatch.setattr(search, "_largest", spied)
    with reduced_precision():
        found = knn(bank, np.arange(64), bank, (1,), 0.1, 64)[1]
        assert torch.get_float32_matmul_precision() == "medium"
    assert (found == np.arange(64)).all()
    assert seen == [(torch.float32, "highest")]
