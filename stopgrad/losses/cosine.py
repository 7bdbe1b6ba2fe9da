"""What SimSiam and BYOL compare a prediction with its target by."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from stopgrad.losses.inputs import widen


def negative_cosine(p: Tensor, z: Tensor) -> Tensor:
    """Minus the cosine of prediction and target, mean over the batch. SimSiam, arXiv:2011.10566, eq. 1.

    p, z: [B, D], any length (normalised here, in float32 or wider).  Returns a scalar in [-1, 1].
    The caller decides whether z carries gradient: the stop-gradient is not hidden in the formula.
    """
    p, z = widen(p), widen(z)
    return -(F.normalize(p, dim=1) * F.normalize(z, dim=1)).sum(dim=1).mean()


def softmax_similarity(p: Tensor, z: Tensor) -> Tensor:
    """Cross-entropy of two softmaxes over channels: -softmax(z) . log softmax(p). SimSiam, section 4.5.

    p, z: [B, D], any length, no temperature.  Returns a scalar, at least 0 and at most unbounded, mean over the batch.
    """
    p, z = widen(p), widen(z)
    return -(F.softmax(z, dim=1) * F.log_softmax(p, dim=1)).sum(dim=1).mean()
