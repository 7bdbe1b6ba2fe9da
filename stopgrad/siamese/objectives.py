"""Objectives that only compare: one number from predictions and targets over the pairs. Those that keep a queue, a
bank, prototypes or a moving average stand in files of their own."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from stopgrad.contracts import Clock
from stopgrad.losses import negative_cosine
from stopgrad.siamese.family import Part, Vectors
from stopgrad.siamese.pairs import Pairs


class MeanOverPairs(Part):
    """A comparison of two sets of vectors, averaged over the pairs: SimSiam's 1/2 D(p1, z2) + 1/2 D(p2, z1).

    compare: (p [B, D], t [B, D]) -> scalar, a mean over the batch.  times: what the mean is multiplied by; 2 makes the
    sum of two directions of it (BYOL).
    """

    def __init__(self, compare: Callable[[Tensor, Tensor], Tensor], says: str = "", times: float = 1.0) -> None:
        super().__init__()
        self.compare = compare
        self.says = says
        self.times = times

    def forward(
        self, p: Vectors, z: Vectors, t: Vectors, pairs: Pairs, index: Tensor, clock: Clock
    ) -> tuple[Tensor, dict[str, Tensor]]:
        loss = torch.stack([self.compare(p[online], t[target]) for online, target in pairs.both]).mean()
        return self.times * loss, agreement(p, t, pairs)


def nearness(p: Vectors, t: Vectors, pairs: Pairs, temperature: float = 1.0) -> Tensor:
    """Mean over pairs and this process's images of the cosine with the target, over a temperature: with gradient."""
    return torch.stack([-negative_cosine(p[o], t[g]) for o, g in pairs.both]).mean() / temperature


@torch.no_grad()
def similarity(p: Vectors, t: Vectors, pairs: Pairs) -> Tensor:
    """The cosine of prediction and target, mean over pairs and batch."""
    return torch.stack([-negative_cosine(p[o], t[g]) for o, g in pairs.both]).mean()


def agreement(p: Vectors, t: Vectors, pairs: Pairs) -> dict[str, Tensor]:
    """`similarity` for the log, by the name that the verdict reads: low beside the cosine of two views, nothing has
    been learnt. Not for a target that only lags behind, with no predictor to follow it (MoCo, UniGrad, a bank)."""
    return {"agreement": similarity(p, t, pairs)}
