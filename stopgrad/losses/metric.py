"""Metric learning's losses, the ancestors: margin on pairs, triplet, N-pair, logistic. B pairs, D channels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from stopgrad.losses.inputs import check_above_0, check_at_least_2, check_equal_shapes, in_float32


@in_float32
def margin_contrastive(x0: Tensor, x1: Tensor, same: Tensor, margin: float) -> Tensor:
    """Pull pairs of a kind together, push others beyond a margin. Hadsell et al., CVPR 2006, eq. 4 (1 means same here).

    Mean over the batch of half of d^2 where same, of max(margin - d, 0)^2 where not, d = |x0 - x1|.
    x0, x1: [B, D], used as they are; unit length keeps d within 2.  same: [B], true or 1 for a pair of a kind.
    Returns a scalar, 0 or more. Two unlike points at one place get no gradient: no direction leads away from itself.
    """
    check_equal_shapes(x0=x0, x1=x1)
    d = torch.linalg.vector_norm(x0 - x1, dim=1)  # [B]; its gradient at 0 is 0, not nan
    return 0.5 * torch.where(same.bool(), d.square(), F.relu(margin - d).square()).mean()


@in_float32
def triplet(anchor: Tensor, positive: Tensor, negative: Tensor, margin: float) -> Tensor:
    """The positive nearer than the negative by a margin: max(d(a, p) - d(a, n) + margin, 0), mean over the batch.

    anchor, positive, negative: [B, D], used as they are; d is the L2 distance, as in torch and
    pytorch-metric-learning.  Returns a scalar, 0 or more: the margin where both distances are equal. FaceNet
    (arXiv:1503.03832, section 3.1) squares the distances and uses unit vectors: another formula, not this one.
    """
    check_equal_shapes(anchor=anchor, positive=positive, negative=negative)
    near = torch.linalg.vector_norm(anchor - positive, dim=1)  # [B]
    far = torch.linalg.vector_norm(anchor - negative, dim=1)
    return F.relu(near - far + margin).mean()


@in_float32
def n_pair(anchors: Tensor, positives: Tensor) -> Tensor:
    """log(1 + sum over the other pairs of exp(a_i . p_j - a_i . p_i)), mean over the pairs. Sohn, NIPS 2016, N-pair-mc.

    anchors, positives: [B, D], pair i of a kind of its own, not normalised (the paper adds a penalty on the length,
    which is the caller's).  Returns a scalar, 0 or more: log B where all similarities are equal.
    """
    check_equal_shapes(anchors=anchors, positives=positives)
    check_at_least_2(len(anchors))
    return F.cross_entropy(anchors @ positives.T, torch.arange(len(anchors), device=anchors.device))


@in_float32
def logistic(x0: Tensor, x1: Tensor, temperature: float | Tensor, bias: float | Tensor) -> Tensor:
    """Each of the B x B pairs is a yes or no question. SigLIP, arXiv:2303.15343, Algorithm 1.

    -1/B sum over i, j of log sigmoid(y_ij (cosine_ij / temperature + bias)), y = 1 where i = j and -1 elsewhere: a sum
    over all pairs, divided by B and not by B^2.  x0, x1: [B, D], row i of both a pair, any length (normalised here).
    SigLIP learns t = 1 / temperature and the bias, from t = 10 (temperature .1) and bias -10: both may be tensors.
    Returns a scalar, 0 or more.
    """
    check_above_0(temperature=temperature)
    check_equal_shapes(x0=x0, x1=x1)
    logits = F.normalize(x0, dim=1) @ F.normalize(x1, dim=1).T / temperature + bias  # [B, B]
    sign = 2 * torch.eye(len(logits), dtype=logits.dtype, device=logits.device) - 1
    return -F.logsigmoid(sign * logits).sum() / len(logits)
