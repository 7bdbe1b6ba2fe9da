"""negative_cosine and softmax_similarity against closed forms and loops."""

import math

import pytest
import torch
from torch import Tensor

from stopgrad.losses import negative_cosine, softmax_similarity


def vectors(seed: int, b: int = 6, d: int = 5) -> Tensor:
    return torch.randn(b, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_equal_vectors_give_minus_one_and_orthogonal_ones_zero() -> None:
    eye = torch.eye(4)
    assert negative_cosine(eye, eye).item() == pytest.approx(-1)
    assert negative_cosine(eye, eye.roll(1, dims=0)).item() == pytest.approx(0)
    assert negative_cosine(eye, -eye).item() == pytest.approx(1)


def test_it_is_the_mean_over_the_batch_of_a_loop_over_images() -> None:
    p, z = vectors(0), vectors(1)
    slow = 0.0
    for p_i, z_i in zip(p.tolist(), z.tolist()):
        dot = sum(a * b for a, b in zip(p_i, z_i))
        slow -= dot / math.hypot(*p_i) / math.hypot(*z_i) / len(p)
    assert negative_cosine(p, z).item() == pytest.approx(slow, rel=1e-12)


def test_positive_rescaling_changes_nothing() -> None:
    p, z = vectors(0), vectors(1)
    assert negative_cosine(3 * p, 0.2 * z).item() == pytest.approx(negative_cosine(p, z).item(), rel=1e-12)


def test_the_gradient_of_a_prediction_is_orthogonal_to_it() -> None:
    p = vectors(0).requires_grad_()
    negative_cosine(p, vectors(1)).backward()
    assert p.grad is not None
    assert (p.grad * p.detach()).sum(dim=1).abs().max().item() < 1e-15


def test_the_target_gets_no_gradient_once_it_is_detached() -> None:
    z = vectors(1).requires_grad_()
    p = vectors(0).requires_grad_()
    (grad,) = torch.autograd.grad(negative_cosine(p, z.detach()), z, allow_unused=True)
    assert grad is None


def test_without_predictor_stop_gradient_halves_the_gradient_and_does_nothing_else() -> None:
    z1, z2 = vectors(0).requires_grad_(), vectors(1).requires_grad_()
    stopped = 0.5 * negative_cosine(z1, z2.detach()) + 0.5 * negative_cosine(z2, z1.detach())
    flowing = negative_cosine(z1, z2)
    for ours, theirs in zip(torch.autograd.grad(stopped, [z1, z2]), torch.autograd.grad(flowing, [z1, z2])):
        torch.testing.assert_close(ours, 0.5 * theirs, rtol=1e-12, atol=1e-15)


def test_softmax_similarity_of_constant_rows_is_the_log_of_the_dimension() -> None:
    assert softmax_similarity(torch.zeros(3, 8), torch.ones(3, 8)).item() == pytest.approx(math.log(8))


def test_softmax_similarity_equals_a_loop_over_channels() -> None:
    p, z = vectors(2), vectors(3)
    slow = 0.0
    for p_i, z_i in zip(p.tolist(), z.tolist()):
        norm_p, norm_z = sum(map(math.exp, p_i)), sum(map(math.exp, z_i))
        slow -= sum(math.exp(b) / norm_z * math.log(math.exp(a) / norm_p) for a, b in zip(p_i, z_i)) / len(p)
    assert softmax_similarity(p, z).item() == pytest.approx(slow, rel=1e-12)


def test_half_precision_is_compared_in_float32() -> None:
    p, z = vectors(0).bfloat16(), vectors(1).bfloat16()
    assert negative_cosine(p, z).dtype == torch.float32
    assert negative_cosine(p, z).item() == pytest.approx(negative_cosine(p.float(), z.float()).item(), abs=0)
