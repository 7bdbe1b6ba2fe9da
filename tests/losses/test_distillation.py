"""Distillation: closed forms, a loop written from the paper, temperature, and bad inputs."""

import math

import pytest
import torch

from stopgrad.contracts import ConfigError
from stopgrad.losses.distillation import distillation


def logits(seed: int, b: int = 5, c: int = 4) -> torch.Tensor:
    return torch.randn(b, c, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def entropy(of: torch.Tensor, temperature: float) -> float:
    p = (of / temperature).softmax(1)
    return float(-(p * p.log()).sum(1).mean())


@pytest.mark.parametrize("temperature", [0.1, 1.0, 3.0])
@pytest.mark.parametrize("scaled", [False, True])
def test_a_student_that_is_its_teacher_has_the_entropy_as_loss_and_no_gradient(
    temperature: float, scaled: bool
) -> None:
    student = logits(0).requires_grad_()
    loss = distillation(student, student.detach(), temperature, scaled=scaled)
    loss.backward()
    assert loss.item() == pytest.approx(entropy(student.detach(), temperature) * (temperature**2 if scaled else 1))
    assert student.grad is not None
    assert student.grad.abs().max() < 1e-15


def test_a_student_that_knows_nothing_has_the_log_of_the_classes() -> None:
    assert distillation(torch.zeros(5, 4), logits(1).float(), 0.1).item() == pytest.approx(math.log(4))


@pytest.mark.parametrize("temperature", [0.1, 1.0, 2.5])
def test_it_is_the_papers_formula_and_its_gradient(temperature: float) -> None:
    student, teacher = logits(2).requires_grad_(), logits(3)
    expected = 0.0
    for x in range(5):
        q = [math.exp(v / temperature) for v in teacher[x].tolist()]
        p = [math.exp(v / temperature) for v in student[x].tolist()]
        expected -= sum(a / sum(q) * math.log(b / sum(p)) for a, b in zip(q, p)) / 5
    loss = distillation(student, teacher, temperature)
    loss.backward()
    assert loss.item() == pytest.approx(expected, rel=1e-12)
    by_hand = ((student.detach() / temperature).softmax(1) - (teacher / temperature).softmax(1)) / temperature / 5
    torch.testing.assert_close(student.grad, by_hand)


def test_the_notebooks_factor_is_the_square_of_the_temperature() -> None:
    student, teacher = logits(2), logits(3)
    plain, scaled = (distillation(student, teacher, 0.1, scaled=flag).item() for flag in (False, True))
    assert scaled == pytest.approx(0.01 * plain)
    assert distillation(student, teacher, 1.0, scaled=True) == distillation(student, teacher, 1.0)


def test_the_teacher_gets_no_gradient_and_half_precision_is_widened() -> None:
    student, teacher = logits(2).requires_grad_(), logits(3).requires_grad_()
    distillation(student, teacher, 1.0).backward()
    assert teacher.grad is None
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert distillation(student.detach().bfloat16(), teacher.detach().bfloat16(), 1.0).dtype == torch.float32


def test_bad_inputs_say_what_is_needed() -> None:
    with pytest.raises(ConfigError, match="temperature must be above 0, got 0"):
        distillation(logits(0), logits(1), 0)
    with pytest.raises(ConfigError, match=r"student \[5, 4\], teacher \[5, 3\]"):
        distillation(logits(0), logits(1, c=3), 1.0)
