"""CPC's InfoNCE: closed forms, a loop, and what is refused."""

import math

import pytest
import torch

from stopgrad.contracts import ConfigError
from stopgrad.losses.predictive import predictive_info_nce

B, A, M, D = 2, 3, 5, 4
NONE = torch.zeros(1, 1, 1, dtype=torch.bool)


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("candidates", [5, 8191])
def test_equal_products_cost_the_logarithm_of_how_many_there_are(candidates: int) -> None:
    p = torch.zeros(B, A, D, dtype=torch.float64)
    loss, right = predictive_info_nce(p, drawn(B, A, D), drawn(candidates, D, seed=1), NONE)
    assert loss.item() == pytest.approx(math.log(1 + candidates))
    assert right.item() == 0.0  # a tie is no choice


@pytest.mark.parametrize("each", [False, True])
def test_it_is_the_loop(each: bool) -> None:
    p, target = drawn(B, A, D), drawn(B, A, D, seed=1)
    candidates = drawn(B, M, D, seed=2) if each else drawn(M, D, seed=2)
    refused = drawn(B, A, M, seed=3) > 0.5
    losses, right = [], 0
    for b in range(B):
        for a in range(A):
            own = sum(p[b, a, d] * target[b, a, d] for d in range(D))
            others = []
            for m in range(M):
                vector = candidates[b, m] if each else candidates[m]
                if not refused[b, a, m]:
                    others.append(sum(p[b, a, d] * vector[d] for d in range(D)))
            total = own.exp() + sum(other.exp() for other in others)  # type: ignore[union-attr, misc]
            losses.append(-(own.exp() / total).log())  # type: ignore[union-attr]
            right += all(own > other for other in others)
    loss, found = predictive_info_nce(p, target, candidates, refused)
    torch.testing.assert_close(loss, torch.stack(losses).mean())
    assert found.item() == pytest.approx(right / (B * A))


def test_vectors_are_not_normalised_and_products_are_not_divided() -> None:
    p, target, candidates = drawn(B, A, D), drawn(B, A, D, seed=1), drawn(M, D, seed=2)
    plain, _ = predictive_info_nce(p, target, candidates, NONE)
    longer, _ = predictive_info_nce(2 * p, target, candidates, NONE)
    assert plain.item() != pytest.approx(longer.item())


def test_what_all_latents_have_in_common_is_not_seen() -> None:
    """Which is why the monitor looks at them without it (siamese.predictive.watched)."""
    p, target, candidates, common = drawn(B, A, D), drawn(B, A, D, seed=1), drawn(M, D, seed=2), drawn(D, seed=3)
    plain, _ = predictive_info_nce(p, target, candidates, NONE)
    shifted, _ = predictive_info_nce(p, target + common, candidates + common, NONE)
    torch.testing.assert_close(plain, shifted)


def test_with_every_candidate_refused_there_is_nothing_to_lose_and_no_gradient() -> None:
    p = drawn(B, A, D).requires_grad_()
    loss, _ = predictive_info_nce(p, drawn(B, A, D, seed=1), drawn(M, D, seed=2), ~NONE)
    (gradient,) = torch.autograd.grad(loss, p)
    assert loss.item() == 0.0
    assert torch.count_nonzero(gradient) == 0


def test_targets_of_another_number_are_refused() -> None:
    with pytest.raises(ConfigError, match="give tensors of one shape"):
        predictive_info_nce(drawn(B, A, D), drawn(B, 1, D), drawn(M, D), NONE)
