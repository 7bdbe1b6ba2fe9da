"""NT-Xent whose negatives are those of the step's images and a queue of past ones together (SimCLR v2).

B images in this process, N in all of them, K in the queue, D channels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from stopgrad import dist
from stopgrad.contracts import Clock, Views
from stopgrad.losses.inputs import in_float32, widen
from stopgrad.nn.memory import Queue
from stopgrad.siamese.family import Part, Siamese, Vectors
from stopgrad.siamese.objectives import agreement, nearness
from stopgrad.siamese.pairs import Pairs
from stopgrad.siamese.targets import Momentum, Shared


class BatchAndQueue(Part):
    """A choice among the images of the batch and those of the queue, mean over the pairs and this process's anchors.

    The batch's candidates are gathered with their gradient, as in `in_batch.InBatch`; the queue is the same in every
    process and has none. What is staged joins it after the step, so no image is its own negative.  times: what the mean
    is multiplied by; 2 makes the sum of two directions of it.
    """

    says = "NT-Xent (batch and queue)"

    def __init__(self, queue: Queue, temperature: float, times: float = 1.0) -> None:
        super().__init__()
        self.queue = queue
        self.temperature = temperature
        self.times = times

    def forward(
        self, p: Vectors, z: Vectors, t: Vectors, pairs: Pairs, index: Tensor, clock: Clock
    ) -> tuple[Tensor, dict[str, Tensor]]:
        # widened first: the gradient is summed over processes
        keys = {view: dist.gather(widen(t_view)) for view, t_view in t.items()}  # {view: [N, D]}
        first = dist.rank() * len(index)
        past = self.queue.keys  # live, not a copy: what is staged is written after the backward that reads it
        losses = [among_past(p[o], keys[g], keys.get(o), past, self.temperature, first) for o, g in pairs.both]
        return self.times * torch.stack(losses).mean(), agreement(p, t, pairs)

    def attraction(
        self, p: Vectors, z: Vectors, t: Vectors, pairs: Pairs, index: Tensor, clock: Clock
    ) -> Tensor | None:
        return self.times * nearness(p, t, pairs, self.temperature)

    def stage(self, rows: Tensor) -> None:
        """rows: [B, D] of any length, of this process's images; unit rows join the queue after the step."""
        self.queue.stage(F.normalize(widen(rows), dim=1))

    def after_step(self, online: Siamese, clock: Clock) -> None:
        self.queue.commit()

    def discard(self) -> None:
        self.queue.discard()


class SharedAndQueued(Momentum):
    """The online projection with its gradient, as `Shared`; a slow copy encodes the same views for the queue of the
    objective, a `BatchAndQueue`."""

    @property
    def says(self) -> str:  # type: ignore[override]
        return f"{Shared.says}, the queue's from {super().says}"

    def forward(self, views: Views, z: Vectors, online: Siamese, which: Sequence[int], clock: Clock) -> Vectors:
        objective = online.objective
        assert isinstance(objective, BatchAndQueue)
        for rows in super().forward(views, z, online, which, clock).values():
            objective.stage(rows)
        return {view: z[view] for view in which}


@in_float32
def among_past(
    query: Tensor, positive: Tensor, own: Tensor | None, past: Tensor, temperature: float, first: int = 0
) -> Tensor:
    """NT-Xent of some anchors of one view with more negatives. SimCLR v2, arXiv:2006.10029, section 2.

    query [B, D], positive [N, D], own [N, D] or None, and first as in losses.nt_xent_queries, any length (normalised
    here).  past: [K, D], unit rows, negatives of every anchor.  Returns a scalar, the mean over B: log(2N - 1 + K)
    where all embeddings are equal.
    """
    batch = F.normalize(positive if own is None else torch.cat([positive, own]), dim=1)
    label = torch.arange(first, first + len(query), device=query.device)
    logits = (F.normalize(query, dim=1) / temperature) @ torch.cat([batch, past]).T  # [B, N + K] or [B, 2N + K]
    if own is not None:  # the anchor itself; -inf, not a large number, makes its weight exactly 0
        logits.scatter_(1, (len(positive) + label).unsqueeze(1), -math.inf)
    return F.cross_entropy(logits, label)
