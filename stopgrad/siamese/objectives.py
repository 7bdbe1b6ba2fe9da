"""Objectives: one number from predictions and targets over the pairs. State, where one has any, is its buffers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from stopgrad.contracts import Clock
from stopgrad.siamese.family import Vectors
from stopgrad.siamese.pairs import Pairs


class MeanOverPairs(nn.Module):
    """A comparison of two sets of vectors, averaged over the pairs: SimSiam's 1/2 D(p1, z2) + 1/2 D(p2, z1)."""

    def __init__(self, compare: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.compare = compare

    def forward(self, p: Vectors, z: Vectors, t: Vectors, pairs: Pairs, index: Tensor, clock: Clock) -> Tensor:
        return torch.stack([self.compare(p[online], t[target]) for online, target in pairs.both]).mean()
