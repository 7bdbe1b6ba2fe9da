"""Objectives over the channels of a whole batch: Barlow Twins' and VICReg's."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from stopgrad import dist
from stopgrad.contracts import Clock
from stopgrad.siamese.family import Part, Vectors
from stopgrad.siamese.objectives import agreement
from stopgrad.siamese.pairs import Pairs


class WholeBatch(Part):
    """A comparison that needs all images of the step at once, mean over the pairs, each counted once.

    Embeddings are gathered over processes with their gradient and every process computes the whole loss, so that the
    averaged gradients are those of one process. facebookresearch/barlowtwins sums its correlation matrix in place
    instead, unseen by autograd: its gradient is 1 / processes of this one.

    compare: (z0 [N, D], z1 [N, D]) -> scalar, the same both ways round.
    """

    def __init__(
        self, compare: Callable[[Tensor, Tensor], Tensor], says: str, draws: Callable[[Tensor, Tensor], Tensor]
    ) -> None:
        """draws: called as compare, the part of minus the loss that draws the views together."""
        super().__init__()
        self.compare = compare
        self.says = says
        self.draws = draws

    def forward(
        self, p: Vectors, z: Vectors, t: Vectors, pairs: Pairs, index: Tensor, clock: Clock
    ) -> tuple[Tensor, dict[str, Tensor]]:
        whole = {view: dist.gather(projection) for view, projection in (z | t | p).items()}
        loss = torch.stack([self.compare(whole[i], whole[j]) for i, j in pairs.unordered]).mean()
        return loss, agreement(p, t, pairs)

    def attraction(
        self, p: Vectors, z: Vectors, t: Vectors, pairs: Pairs, index: Tensor, clock: Clock
    ) -> Tensor | None:
        whole = {view: dist.gather(projection) for view, projection in (z | t | p).items()}
        return torch.stack([self.draws(whole[i], whole[j]) for i, j in pairs.unordered]).mean()
