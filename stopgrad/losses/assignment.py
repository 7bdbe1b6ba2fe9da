"""Agree on soft assignments: SwAV's codes and swapped prediction, DINO's centred teacher. B images, K prototypes."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from stopgrad.contracts import ConfigError
from stopgrad.losses.inputs import check_above_0, check_equal_shapes, in_float32


@in_float32
def sinkhorn(scores: Tensor, epsilon: float, iterations: int) -> Tensor:
    """Assign a batch evenly to prototypes. SwAV, arXiv:2006.09882, eq. 5, by Sinkhorn and Knopp's iteration.

    scores: [B, K], of the whole batch (and the queue).  epsilon: .05 in the paper, smaller is sharper.  iterations: 3
    in the paper.  Returns codes [B, K]: rows sum to 1, columns to B / K once it has converged. Codes are a
    differentiable function of the scores; SwAV detaches them, which is the caller's.
    """
    check_above_0(epsilon=epsilon)
    if iterations < 1:
        raise ConfigError(f"iterations must be 1 or more, got {iterations}; the paper uses 3")
    # Dividing by sums is a log_softmax in the log domain, where exp(score / epsilon) can't overflow. The published
    # constants 1/K and 1/B only scale, and the last division cancels them.
    log_codes = scores / epsilon
    for _ in range(iterations):
        by_prototype = F.log_softmax(log_codes, dim=0)  # each prototype spreads one unit over the images
        log_codes = F.log_softmax(by_prototype, dim=1)  # each image spreads one unit over the prototypes
    return log_codes.exp()


@in_float32
def swapped_prediction(scores: Tensor, codes: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of one view's softmax with the other view's codes. SwAV, arXiv:2006.09882, eq. 2, for one pair.

    scores: [B, K], cosines with the prototypes.  codes: [B, K], rows that sum to 1.  Returns a scalar, 0 or more, the
    mean over B: log K where all scores are equal.
    """
    check_above_0(temperature=temperature)
    check_equal_shapes(scores=scores, codes=codes)
    return -(codes * F.log_softmax(scores / temperature, dim=1)).sum(dim=1).mean()


@in_float32
def centred_cross_entropy(
    student: Tensor, teacher: Tensor, centre: Tensor, student_temperature: float, teacher_temperature: float
) -> Tensor:
    """Cross-entropy of the student with the centred, sharpened teacher. DINO, arXiv:2104.14294, eq. 2, for one pair.

    -softmax((teacher - centre) / teacher_temperature) . log softmax(student / student_temperature), mean over B.
    student, teacher: [B, K], logits of two views.  centre: [K] or [1, K].  Returns a scalar, 0 or more: log K where
    both are uniform. The teacher's side is detached by the caller.
    """
    check_above_0(student_temperature=student_temperature, teacher_temperature=teacher_temperature)
    check_equal_shapes(student=student, teacher=teacher)
    wanted = F.softmax((teacher - centre) / teacher_temperature, dim=1)
    return -(wanted * F.log_softmax(student / student_temperature, dim=1)).sum(dim=1).mean()
