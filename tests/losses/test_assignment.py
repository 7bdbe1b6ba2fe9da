"""Sinkhorn's codes, the swapped prediction and DINO's cross-entropy against closed forms."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from stopgrad.contracts import ConfigError
from stopgrad.losses import centred_cross_entropy, sinkhorn, swapped_prediction


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cosines(seed: int, b: int, k: int, d: int = 16) -> Tensor:
    return F.normalize(draw(seed, b, d), dim=1) @ F.normalize(draw(seed + 1, k, d), dim=1).T


@pytest.mark.parametrize("iterations", [1, 3, 50])
def test_every_image_is_assigned_exactly_once(iterations: int) -> None:
    codes = sinkhorn(cosines(0, 24, 10), 0.05, iterations)
    assert bool((codes >= 0).all())
    torch.testing.assert_close(codes.sum(dim=1), torch.ones(24, dtype=torch.float64), rtol=0, atol=1e-13)


def test_every_prototype_gets_its_share_once_the_iteration_has_converged() -> None:
    scores = cosines(0, 24, 10)
    share = torch.full((10,), 2.4, dtype=torch.float64)
    torch.testing.assert_close(sinkhorn(scores, 0.05, 500).sum(dim=0), share, rtol=1e-6, atol=0)
    early = sinkhorn(scores, 0.05, 3).sum(dim=0)
    assert float((early - share).abs().max()) > 0.01  # three are not enough for equality, and are not meant to be
    plain = F.softmax(scores / 0.05, dim=1).sum(dim=0)
    assert float((early - share).norm()) < 0.5 * float((plain - share).norm())


def test_it_equals_the_published_loop_in_exponentials() -> None:
    """facebookresearch/swav's arithmetic: exp, transpose, divide rows by K and columns by B, times B at the end."""
    scores = cosines(0, 32, 12)
    q = torch.exp(scores / 0.05).T
    q /= q.sum()
    for _ in range(3):
        q /= q.sum(dim=1, keepdim=True)
        q /= 12
        q /= q.sum(dim=0, keepdim=True)
        q /= 32
    torch.testing.assert_close(sinkhorn(scores, 0.05, 3), (q * 32).T, rtol=1e-11, atol=1e-14)


def test_identical_images_are_spread_evenly_and_that_is_the_sign_of_collapse() -> None:
    scores = draw(0, 1, 3000).float().expand(16, 3000)
    codes = sinkhorn(scores, 0.05, 3)
    torch.testing.assert_close(codes, torch.full((16, 3000), 1 / 3000), rtol=1e-5, atol=0)
    assert swapped_prediction(torch.zeros(16, 3000), codes, 0.1).item() == pytest.approx(8.006, abs=1e-3)


def test_the_order_of_the_images_is_the_order_of_the_codes() -> None:
    scores, order = cosines(0, 6, 4), torch.tensor([3, 0, 5, 1, 4, 2])
    torch.testing.assert_close(sinkhorn(scores, 0.05, 3)[order], sinkhorn(scores[order], 0.05, 3))


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_extreme_scores_stay_finite_where_exponentials_overflow(scale: float) -> None:
    scores = (scale * cosines(0, 24, 10)).float().requires_grad_()
    codes = sinkhorn(scores, 0.001, 3)
    assert bool(codes.isfinite().all())
    torch.testing.assert_close(codes.sum(dim=1), torch.ones(24), rtol=0, atol=1e-5)
    (grad,) = torch.autograd.grad(codes.square().sum(), scores)
    assert bool(grad.isfinite().all())


def test_codes_carry_gradient_unless_the_caller_detaches_them() -> None:
    scores = cosines(0, 8, 5).requires_grad_()
    flowing = swapped_prediction(scores.detach(), sinkhorn(scores, 0.05, 3), 0.1)
    assert torch.autograd.grad(flowing, scores)[0].norm() > 1e-3
    assert not swapped_prediction(scores.detach(), sinkhorn(scores, 0.05, 3).detach(), 0.1).requires_grad


def test_swapped_prediction_is_the_entropy_of_the_codes_where_the_guess_is_right() -> None:
    codes = F.softmax(draw(0, 6, 5), dim=1)
    entropy = -(codes * codes.log()).sum(dim=1).mean()
    assert swapped_prediction(0.1 * codes.log(), codes, 0.1).item() == pytest.approx(entropy.item(), rel=1e-12)
    assert swapped_prediction(draw(1, 6, 5), codes, 0.1) > entropy


def test_dino_of_uniform_logits_is_the_log_of_the_prototypes() -> None:
    flat = torch.zeros(2, 65536)
    assert centred_cross_entropy(flat, flat, torch.zeros(1, 65536), 0.1, 0.04).item() == pytest.approx(11.09, abs=1e-3)


def test_dino_takes_the_centre_off_the_teacher_alone() -> None:
    student, teacher, centre = draw(0, 4, 6), draw(1, 4, 6), draw(2, 6)
    value = centred_cross_entropy(student, teacher, centre, 0.1, 0.04).item()
    assert centred_cross_entropy(student, teacher + centre, 2 * centre, 0.1, 0.04).item() == pytest.approx(value)
    # a constant teacher that is its own centre wants a uniform answer
    constant = centre.expand(4, 6)
    uniform = torch.full((4, 6), 1 / 6, dtype=torch.float64)
    expected = swapped_prediction(student, uniform, 0.1).item()
    assert centred_cross_entropy(student, constant, centre, 0.1, 0.04).item() == pytest.approx(expected, rel=1e-12)


def test_dino_is_entropy_plus_divergence_of_the_sharpened_teacher() -> None:
    student, teacher, centre = draw(0, 4, 6), draw(1, 4, 6), draw(2, 6)
    p = F.softmax((teacher - centre) / 0.04, dim=1)
    log_q = F.log_softmax(student / 0.1, dim=1)
    entropy = torch.special.entr(p).sum(dim=1).mean()
    divergence = F.kl_div(log_q, p, reduction="batchmean")
    value = centred_cross_entropy(student, teacher, centre, 0.1, 0.04)
    assert value.item() == pytest.approx((entropy + divergence).item(), rel=1e-12)
    sharper = centred_cross_entropy(teacher, teacher, 0 * centre, 0.04, 0.01)
    assert sharper < centred_cross_entropy(teacher, teacher, 0 * centre, 0.04, 0.04)


def test_what_can_not_be_meant_is_refused() -> None:
    x = draw(0, 4, 6)
    with pytest.raises(ConfigError, match=r"epsilon must be above 0, got 0"):
        sinkhorn(x, 0, 3)
    with pytest.raises(ConfigError, match=r"iterations must be 1 or more, got 0; the paper uses 3"):
        sinkhorn(x, 0.05, 0)
    with pytest.raises(ConfigError, match=r"temperature must be above 0"):
        swapped_prediction(x, x, -0.1)
    with pytest.raises(ConfigError, match=r"scores \[4, 6\], codes \[1, 6\]"):
        swapped_prediction(x, x[:1], 0.1)
    with pytest.raises(ConfigError, match=r"student_temperature must be above 0"):
        centred_cross_entropy(x, x, x[0], 0.0, 0.04)
    with pytest.raises(ConfigError, match=r"teacher_temperature must be above 0"):
        centred_cross_entropy(x, x, x[0], 0.1, 0.0)
    with pytest.raises(ConfigError, match=r"student \[4, 6\], teacher \[2, 6\]"):
        centred_cross_entropy(x, x[:2], x[0], 0.1, 0.04)
