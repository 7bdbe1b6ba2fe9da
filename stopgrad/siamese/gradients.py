"""Objectives that are given by their gradient: UniGrad's."""

from __future__ import annotations

import torch
from torch import Tensor

from stopgrad.contracts import Clock
from stopgrad.losses import correlation, unigrad
from stopgrad.nn.memory import MovingAverage
from stopgrad.siamese.family import Part, Siamese, Vectors
from stopgrad.siamese.objectives import similarity
from stopgrad.siamese.pairs import Pairs


class CorrelationGradient(Part):
    """Towards the target, away from where all targets lie: -t + weight F u for a unit u (UniGrad, arXiv:2112.05141).

    F is a moving average of the correlation of all target views, over all processes. A batch is compared with the F
    that already counts it; one of several micro-batches with the F that counts it alone, while the step moves F by the
    mean of all. The first step's batch is F.

    The loss is a surrogate (losses.unigrad); the log has the `objective` whose gradient it has, and the similarity of
    positives as `similarity`.
    """

    says = "correlation gradient (moving average F)"

    def __init__(self, dim: int, weight: float, momentum: float) -> None:
        super().__init__()
        self.correlation = MovingAverage((dim, dim), momentum, first_batch_initialises=True)
        self.weight = weight

    def forward(
        self, p: Vectors, z: Vectors, t: Vectors, pairs: Pairs, index: Tensor, clock: Clock
    ) -> tuple[Tensor, dict[str, Tensor]]:
        batch = torch.stack([correlation(t[view]) for view in pairs.targets]).mean(dim=0)  # [D, D]
        moved = self.correlation.with_batch(batch)
        self.correlation.stage(batch)
        loss = torch.stack([unigrad(p[o], t[g], moved, self.weight) for o, g in pairs.both]).mean()
        alike = similarity(p, t, pairs)
        # the surrogate's value is -cos + weight u'Fu, the objective's -cos + weight / 2 u'Fu
        return loss, {"similarity": alike, "objective": (loss.detach() - alike) / 2}

    def after_step(self, online: Siamese, clock: Clock) -> None:
        self.correlation.commit()

    def discard(self) -> None:
        self.correlation.discard()
