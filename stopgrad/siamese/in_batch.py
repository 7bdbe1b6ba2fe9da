"""Objectives that pick an image's other view among the images of the step: NT-Xent, instance spreading, InfoNCE.

B images in this process, N in all of them, D channels.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from stopgrad import dist
from stopgrad.contracts import Clock
from stopgrad.losses import info_nce_batch
from stopgrad.losses.inputs import widen
from stopgrad.siamese.family import Part, Vectors
from stopgrad.siamese.objectives import agreement, nearness
from stopgrad.siamese.pairs import Pairs


class InBatch(Part):
    """A choice among the images of the batch, mean over the pairs and over this process's anchors.

    Candidates are gathered over processes with their gradient, where their target lets any through; anchors stay where
    they are. So the gradients, averaged over processes, are those of one process with the whole batch.

    compare: (query [B, D], positive [N, D], own [N, D] or None, temperature, first) -> scalar, a mean over the queries.
    positive is the other view of all images, own the queries' own view, None where it is no target (a local crop);
    query i is image first + i.  times: what the mean is multiplied by; 2 makes the sum of two directions of it.
    softmax: whether minus the loss has the positive's cosine over the temperature as a part of its own.
    """

    compares_images = True

    def __init__(
        self, compare: Callable[..., Tensor], says: str, temperature: float, times: float = 1.0, softmax: bool = True
    ) -> None:
        super().__init__()
        self.compare = compare
        self.says = says
        self.temperature = temperature
        self.times = times
        self.softmax = softmax

    def forward(
        self, p: Vectors, z: Vectors, t: Vectors, pairs: Pairs, index: Tensor, clock: Clock
    ) -> tuple[Tensor, dict[str, Tensor]]:
        # widened first: the gradient is summed over processes
        keys = {view: dist.gather(widen(t_view)) for view, t_view in t.items()}  # {view: [N, D]}
        first = dist.rank() * len(index)
        losses = [self.compare(p[o], keys[g], keys.get(o), self.temperature, first) for o, g in pairs.both]
        return self.times * torch.stack(losses).mean(), agreement(p, t, pairs)

    def attraction(
        self, p: Vectors, z: Vectors, t: Vectors, pairs: Pairs, index: Tensor, clock: Clock
    ) -> Tensor | None:
        return self.times * nearness(p, t, pairs, self.temperature) if self.softmax else None


def info_nce_among_keys(query: Tensor, positive: Tensor, own: Tensor | None, temperature: float, first: int) -> Tensor:
    """InfoNCE among the other view of all images; the own view has no negatives (MoCo v3, arXiv:2104.02057).

    query [B, D] and positive [N, D] of any length (normalised here).  own: as in InBatch, not read.
    """
    return info_nce_batch(F.normalize(widen(query), dim=1), F.normalize(widen(positive), dim=1), temperature, first)
