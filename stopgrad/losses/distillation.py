"""Distillation: a student learns the teacher's answers (SimCLR v2, arXiv:2006.10029, section 2)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from stopgrad.losses.inputs import check_above_0, check_equal_shapes, in_float32


@in_float32
def distillation(student: Tensor, teacher: Tensor, temperature: float, *, scaled: bool = False) -> Tensor:
    """-sum_y P_T(y) log P_S(y), a mean over the batch; P = softmax(logits / temperature). Scalar.

    student, teacher: logits [B, C] of the same crops; the teacher's get no gradient. Where both are equal the gradient
    is 0 and the loss the teacher's entropy.  scaled: times temperature ** 2, as the released notebook has it, so that
    gradients of a hot softmax are as long as those of a cold one.
    """
    check_equal_shapes(student=student, teacher=teacher)
    check_above_0(temperature=temperature)
    answers = (teacher.detach() / temperature).softmax(dim=1)  # [B, C]
    loss = F.cross_entropy(student / temperature, answers)
    return loss * temperature**2 if scaled else loss
