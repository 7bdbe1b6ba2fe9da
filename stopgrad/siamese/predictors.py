"""Predictors that are no MLP: DirectPred's one matrix, which the correlation of its inputs decides."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from stopgrad.contracts import Clock
from stopgrad.losses.inputs import in_float32
from stopgrad.nn.memory import MovingAverage
from stopgrad.siamese.family import Part, Siamese

Form = Literal["directpred", "directcopy"]
LEAST = 1e-4  # an eigenvalue of W, as in the reference code


class DirectPredictor(Part):
    """z [B, D] -> W z, where W follows F, a moving average of the mean of z z^T (DirectPred, arXiv:2102.06810).

    F takes in all that the predictor was called with in a step: every view, micro-batch and process counts equally. W
    is set from it after each step whose number is a multiple of `every`. In between, and before the first step, W is
    that of a linear layer; with every=1 it would be trained for nothing, so it is not.
    """

    def __init__(self, dim: int, form: Form, epsilon: float, momentum: float, every: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, dim, bias=False).requires_grad_(every > 1)
        self.correlation = MovingAverage((dim, dim), momentum, first_batch_initialises=True)
        self.form = form
        self.epsilon = epsilon
        self.every = every

    @property
    def says(self) -> str:  # type: ignore[override]
        what = "closed form from the correlation matrix" if self.form == "directpred" else "the correlation matrix"
        return what + (f", every {self.every} steps" if self.every > 1 else "")

    def forward(self, z: Tensor) -> Tensor:  # [B, D] -> [B, D]
        self.correlation.stage(second_moment(z.detach()))
        prediction: Tensor = self.linear(z)
        return prediction

    @torch.no_grad()
    def after_step(self, online: Siamese, clock: Clock) -> None:
        self.correlation.commit()
        if clock.step % self.every == 0:
            closed_form = direct_pred if self.form == "directpred" else direct_copy
            self.linear.weight.copy_(closed_form(self.correlation.value, self.epsilon))

    def discard(self) -> None:
        self.correlation.discard()


@in_float32
def second_moment(z: Tensor) -> Tensor:
    """Mean over the batch of the outer product of each row with itself, [B, D] -> [D, D]; neither centred nor unit."""
    return z.T @ z / len(z)


def direct_pred(correlation: Tensor, epsilon: float) -> Tensor:
    """W = U diag(p) U^T with p = sqrt(s) + epsilon, s the eigenvalues of F over the largest. DirectPred, eq. 18.

    correlation: F, [D, D], symmetric.  Returns [D, D], symmetric, eigenvalues in [epsilon, 1 + epsilon]; epsilon I for
    an F of zeros.
    """
    s, u = torch.linalg.eigh(correlation)  # ascending
    share = s.clamp(min=0) / s[-1].clamp(min=torch.finfo(s.dtype).tiny)  # rounding leaves small ones below 0
    p = (share.sqrt() + epsilon).clamp(min=LEAST)
    w: Tensor = (u * p) @ u.T
    return w


def direct_copy(correlation: Tensor, epsilon: float) -> Tensor:
    """W = F + epsilon I: no eigenvectors needed. F, [D, D], as it is."""
    return correlation + epsilon * torch.eye(len(correlation), dtype=correlation.dtype, device=correlation.device)
