"""Target branches: what the other view's projection is compared with, and whether gradient flows into it.

All take the views, the online projections `z`, the online method, its `encode` and the views that are wanted; all
return {view: [B, D]}. A target holds its slow copies as submodules, so they stand in the checkpoint.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
from torch import nn

from stopgrad.contracts import Clock, Views
from stopgrad.siamese.family import Encode, Siamese, Vectors


class StopGradient(nn.Module):
    """The online projection, held constant: SimSiam's target (Algorithm 1 of arXiv:2011.10566)."""

    def forward(self, views: Views, z: Vectors, online: Siamese, encode: Encode, which: Sequence[int]) -> Vectors:
        missing = [view for view in which if view not in z]  # target-only views: the same weights, no gradient
        with torch.no_grad():
            extra = encode(views, missing, online.backbone, online.projector)
        return {view: (z[view] if view in z else extra[view]).detach() for view in which}

    def after_step(self, online: Siamese, clock: Clock) -> None:
        """Nothing moves."""


class Shared(nn.Module):
    """The online projection with its gradient: both sides move towards each other. SimSiam collapses with it."""

    def forward(self, views: Views, z: Vectors, online: Siamese, encode: Encode, which: Sequence[int]) -> Vectors:
        missing = [view for view in which if view not in z]
        extra = encode(views, missing, online.backbone, online.projector)
        return {view: z[view] if view in z else extra[view] for view in which}

    def after_step(self, online: Siamese, clock: Clock) -> None:
        """Nothing moves."""


class Momentum(nn.Module):
    """A slow copy of backbone and projector: BYOL's target (arXiv:2006.07733, section 3.1).

    Parameters follow as target <- m target + (1 - m) online after each optimiser step, m rising from `momentum` to 1 on
    a cosine over the run. Batch norm's running statistics are the copy's own, from its own train-mode forwards.
    """

    def __init__(self, backbone: nn.Module, projector: nn.Module, momentum: float) -> None:
        super().__init__()
        self.target_backbone = copy.deepcopy(backbone).requires_grad_(False)
        self.target_projector = copy.deepcopy(projector).requires_grad_(False)
        self.momentum = momentum

    def forward(self, views: Views, z: Vectors, online: Siamese, encode: Encode, which: Sequence[int]) -> Vectors:
        with torch.no_grad():
            return encode(views, which, self.target_backbone, self.target_projector)

    @torch.no_grad()
    def after_step(self, online: Siamese, clock: Clock) -> None:
        m = momentum_at(self.momentum, clock)
        slow: list[torch.Tensor] = [*self.target_backbone.parameters(), *self.target_projector.parameters()]
        fast: list[torch.Tensor] = [*online.backbone.parameters(), *online.projector.parameters()]
        torch._foreach_lerp_(slow, fast, 1 - m)


def momentum_at(start: float, clock: Clock) -> float:
    """start at the first step, exactly 1 at the end, on a cosine. BYOL, section 3.1."""
    return 1 - (1 - start) * (1 + math.cos(math.pi * clock.progress)) / 2
