"""The gradient that reaches an embedding, as a pull towards the target and a push away from other images: what UniGrad
(arXiv:2112.05141, section 3) finds contrastive, asymmetric and decorrelation methods to share. B images, D channels.

Closed forms are of the unit embedding u of one view, with the target held constant; a normalisation before it is the
caller's affair. Those of losses that compare image by image are of the sum over the batch (the mean's 1 / B is left
out), those of Barlow Twins and VICReg of the loss itself. All equal what autograd finds. And the other way round:
`unigrad` is a gradient without a loss, written as the loss that has it.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

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


class Parts(NamedTuple):
    """A gradient [B, D] as UniGrad writes it: of a descent step, minus `positive` moves u towards its target."""

    positive: Tensor  # [B, D]
    negative: Tensor  # [B, D]: of other images

    @property
    def whole(self) -> Tensor:
        return self.positive + self.negative

    @property
    def balance(self) -> Tensor:
        """Length of the negative part over that of the positive one, both mean over the batch: a scalar, 0 or more."""
        away, towards = (part.norm(dim=1).mean() for part in (self.negative, self.positive))
        found: Tensor = away / towards
        return found


@in_float32
def contrastive_gradient(u: Tensor, target: Tensor, keys: Tensor, temperature: float) -> Parts:
    """Of InfoNCE: (-t + sum over keys v of softmax(u v / tau) v) / tau.

    u, target: [B, D], keys: [M, D], with the targets among them, all unit vectors.  Of -log softmax at the target,
    summed over the batch; what reaches u through keys that are embeddings of its own batch is not in it.
    """
    check_equal_shapes(u=u, target=target)
    share = F.softmax(u @ keys.T / temperature, dim=1)  # [B, M]
    return Parts(-target / temperature, share @ keys / temperature)


@in_float32
def asymmetric_gradient(u: Tensor, target: Tensor, predictor: Tensor) -> Parts:
    """Of BYOL and SimSiam with a linear predictor W: (-W't + lambda W'W u) / |W u|, lambda = u'W't / u'W'W u.


    u, target: [B, D], unit vectors.  predictor: W, [D, D].  Of -cos(W u, t), summed over the batch.  At right angles to
    u for any W that is symmetric or not.
    """
    check_equal_shapes(u=u, target=target)
    seen = u @ predictor.T  # [B, D], W u
    pulled, length = target @ predictor, seen.norm(dim=1, keepdim=True)  # W't
    weight = (seen * target).sum(dim=1, keepdim=True) / length.square()
    return Parts(-pulled / length, weight * (seen @ predictor) / length)


@in_float32
def correlation_gradient(u: Tensor, target: Tensor, correlation: Tensor, weight: float) -> Parts:
    """Of UniGrad, and of the asymmetric family with its predictor written out: -t + weight F u.

    u, target: [B, D], unit vectors.  correlation: F, [D, D], symmetric.  Of -cos(u, t) + weight / 2 u'F u.
    """
    check_equal_shapes(u=u, target=target)
    return Parts(-target, weight * u @ correlation)


@in_float32
def barlow_twins_gradient(u: Tensor, target: Tensor, weight: float, identity: bool = False) -> Parts:
    """Of Barlow Twins' loss: 2 / B (-A t + weight sum over images v of (t v_t / B) v_u), A = I - (1 - weight) C_ii.


    u, target: [B, D], features of both views as the loss multiplies them: C = u't / B.  weight: of the off-diagonal
    entries.  identity: A = I, the form that UniGrad goes on with.  The batch norm before it is not in this.
    """
    check_equal_shapes(u=u, target=target)
    b = len(u)
    diagonal = (u * target).mean(dim=0)  # [D], C_ii
    kept = torch.ones_like(diagonal) if identity else 1 - (1 - weight) * diagonal
    return Parts(-2 / b * kept * target, 2 / b * weight * (target @ target.T / b) @ u)


@in_float32
def vicreg_gradient(u: Tensor, target: Tensor, covariance: float, variance: float, least: float = 1.0) -> Parts:
    """Of VICReg in u: -2 / B t, and what spreads images: covariance, the hinge on the std, and 2 / B u.

    u, target: [B, D], as they are.  Of mean |u - t|^2 + covariance / D sum of squared off-diagonal entries of the
    unbiased covariance of u + variance / D sum of max(0, least - std of u).  UniGrad's form, without the 1e-4 that
    VICReg has under the root.
    """
    check_equal_shapes(u=u, target=target)
    b, d = u.shape
    centred = u - u.mean(dim=0)
    matrix = centred.T @ centred / (b - 1)  # [D, D]
    diagonal = matrix.diagonal()
    std = diagonal.sqrt()
    off = centred @ matrix - centred * diagonal
    hinge = torch.where(std < least, 1 / std, torch.zeros_like(std))
    spread = 4 * covariance / (d * (b - 1)) * off - variance / (d * (b - 1)) * centred * hinge
    return Parts(-2 / b * target, 2 / b * u + spread)


@in_float32
def decorrelation_gradient(
    u: Tensor, target: Tensor, weight: float, by: Literal["online", "target"] = "online"
) -> Parts:
    """What UniGrad makes of both decorrelation losses: -t + weight sum over images v of a_v v / B.

    u, target: [B, D], unit vectors.  by: whose likeness weighs the image v: `online`, a_v = u v (row j, VICReg's),
    or `target`, a_v = t v_t (row h, Barlow Twins').
    """
    check_equal_shapes(u=u, target=target)
    likeness = u @ u.T if by == "online" else target @ target.T  # [B, B]
    return Parts(-target, weight * likeness @ u / len(u))


@in_float32
def along_target(gradient: Tensor, target: Tensor) -> Parts:
    """Any gradient as its component along the target and the rest: for methods without a closed form.

    gradient: [B, D], of u.  target: [B, D], unit vectors.
    """
    check_equal_shapes(gradient=gradient, target=target)
    positive = (gradient * target).sum(dim=1, keepdim=True) * target
    return Parts(positive, gradient - positive)
