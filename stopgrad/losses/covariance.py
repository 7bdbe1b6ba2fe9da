"""Channels that say different things: Barlow Twins and VICReg. B images, D channels, gradient through both views.

Both need the whole batch: a process that has a slice gathers the embeddings first, with gradient.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from stopgrad.losses.inputs import check_at_least_2, check_equal_shapes, in_float32

_BATCH_NORM_EPSILON = 1e-5  # a constant channel becomes 0 and costs 1, as through the reference's batch norm
_VICREG_EPSILON = 1e-4  # section 4.1


@in_float32
def barlow_twins(z0: Tensor, z1: Tensor, off_diagonal_weight: float) -> Tensor:
    """The views' cross-correlation over the batch becomes the identity. Barlow Twins, arXiv:2103.03230, eq. 1.

    Sum of (1 - C_ii)^2 plus off_diagonal_weight times the sum of C_ij^2, i != j (.005 in the paper).  z0, z1: [B, D],
    any length, scale and shift.  Returns a scalar, 0 or more: D where all rows are equal. The std is the biased one,
    of the authors' batch norm, so that C_ii of equal views is 1; the paper's pseudo-code has (B - 1) / B there.
    """
    check_equal_shapes(z0=z0, z1=z1)
    check_at_least_2(len(z0))
    correlation = _standardised(z0).T @ _standardised(z1) / len(z0)  # [D, D]
    return (1 - correlation.diagonal()).square().sum() + off_diagonal_weight * _off_diagonal(correlation).square().sum()


@in_float32
def barlow_twins_draw(z0: Tensor, z1: Tensor, off_diagonal_weight: float) -> Tensor:
    """What of minus barlow_twins draws two views together: 2 C_ii - (1 - weight) C_ii^2, summed over channels.

    The rest of the loss is weight times the sum of all C_ij^2, and D. z0, z1: [B, D]. UniGrad, arXiv:2112.05141,
    section 3: its gradient in one view is A times the other, A = I - (1 - weight) C_ii.
    """
    check_equal_shapes(z0=z0, z1=z1)
    check_at_least_2(len(z0))
    diagonal = (_standardised(z0) * _standardised(z1)).mean(dim=0)
    return (2 * diagonal - (1 - off_diagonal_weight) * diagonal.square()).sum()


@in_float32
def vicreg_terms(z0: Tensor, z1: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """VICReg's three terms as the paper writes them. arXiv:2105.04906, eq. 5, 1 and 4.

    Invariance: squared distance of the views, mean over images (not over channels).  Variance: mean over channels of
    max(0, 1 - sqrt(Var + 1e-4)), the sum over both views.  Covariance: sum of the squared off-diagonal entries
    over D, the sum over both views.  z0, z1: [B, D], used as they are; Var and covariance are unbiased.
    """
    check_equal_shapes(z0=z0, z1=z1)
    check_at_least_2(len(z0))
    invariance = (z0 - z1).square().sum(dim=1).mean()
    variance = torch.stack([F.relu(1 - (z.var(dim=0) + _VICREG_EPSILON).sqrt()).mean() for z in (z0, z1)]).sum()
    covariance = torch.stack([_off_diagonal(_covariance(z)).square().sum() / z.shape[1] for z in (z0, z1)]).sum()
    return invariance, variance, covariance


def vicreg(z0: Tensor, z1: Tensor, invariance: float = 25.0, variance: float = 25.0, covariance: float = 1.0) -> Tensor:
    """The weighted sum of vicreg_terms. VICReg, arXiv:2105.04906, eq. 6.

    z0, z1: [B, D], used as they are.  Returns a scalar, 0 or more. The weights are the paper's formula's. The authors'
    code means other things by 25, 25, 1: its invariance is a mean over channels too and its variance is halved, so
    facebookresearch/vicreg with 25, 25, 1 is vicreg(z0, z1, invariance=25 / D, variance=12.5, covariance=1).
    """
    terms = vicreg_terms(z0, z1)
    return invariance * terms[0] + variance * terms[1] + covariance * terms[2]


def _standardised(z: Tensor) -> Tensor:
    return (z - z.mean(dim=0)) * (z.var(dim=0, correction=0) + _BATCH_NORM_EPSILON).rsqrt()


def _covariance(z: Tensor) -> Tensor:
    z = z - z.mean(dim=0)
    return z.T @ z / (len(z) - 1)  # [D, D]


def _off_diagonal(square: Tensor) -> Tensor:
    """[D, D] -> [D - 1, D], a view: one element short, the diagonal is the first column of rows of D + 1."""
    d = len(square)
    return square.flatten()[:-1].view(d - 1, d + 1)[:, 1:]
