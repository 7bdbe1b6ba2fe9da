"""Pick the true later latent among others, by a plain dot product: CPC's InfoNCE."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from stopgrad.losses.inputs import check_equal_shapes, in_float32


@in_float32
def predictive_info_nce(
    predicted: Tensor, target: Tensor, candidates: Tensor, refused: Tensor, weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of the target among itself and the candidates. CPC, arXiv:1807.03748, eq. 4.

    predicted: [B, A, D], W_k c of A anchors in each of B sequences.  target: [B, A, D], the latent each of them is to
    predict.  candidates: [M, D] for all, or [B, M, D], each sequence's own.  refused: bool, broadcasts to [B, A, M]:
    candidates that are no negatives of an anchor, its own target above all.  Neither normalised nor divided by a
    temperature.  weights: [B, A], what each anchor counts for; None: all the same, and 1 together.  Returns two
    scalars, sums of what anchors count for times the loss, log(1 + M) where all products are equal and none is refused,
    and times 1 where the target is nearer than every negative.
    """
    check_equal_shapes(predicted=predicted, target=target)
    own = (predicted * target).sum(dim=2)  # [B, A]
    others = (predicted @ candidates.transpose(-1, -2)).masked_fill(refused, -math.inf)  # [B, A, M]
    loss = torch.logsumexp(torch.cat([own.unsqueeze(2), others], dim=2), dim=2) - own
    right = own > others.detach().amax(dim=2)
    if weights is None:
        return loss.mean(), right.float().mean()
    return (loss * weights).sum(), (right * weights).sum()
