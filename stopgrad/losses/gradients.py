"""UniGrad: a gradient without a loss, written as the loss that has it. B images, D channels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from stopgrad.losses.inputs import check_equal_shapes, in_float32


@in_float32
def correlation(z: Tensor) -> Tensor:
    """Mean over the batch of the outer product of each unit row with itself: [B, D] -> [D, D].

    z: any length (normalised here).  Symmetric, no negative eigenvalue, trace 1. UniGrad's F is its moving average over
    both views of the target; the caller keeps it.
    """
    u = F.normalize(z, dim=1)
    return u.T @ u / len(u)


@in_float32
def unigrad(z: Tensor, target: Tensor, correlation: Tensor, weight: float) -> Tensor:
    """A surrogate whose gradient with respect to the unit z is -target + weight F z. UniGrad, arXiv:2112.05141.

    z, target: [B, D], any length (normalised here).  correlation: F, [D, D], symmetric.  weight: 100 in the released
    configurations (F's momentum .99, the target's .996).
    Returns the scalar <sg(-target + weight F z), z>, mean over B. Only its gradient means something, and only z gets
    one: the value is -cos + weight z'Fz, while the gradient belongs to -cos + weight / 2 z'Fz, so never compare losses.
    """
    check_equal_shapes(z=z, target=target)
    u = F.normalize(z, dim=1)
    with torch.no_grad():
        gradient = weight * u @ correlation - F.normalize(target, dim=1)  # [B, D]
    return (gradient * u).sum(dim=1).mean()
