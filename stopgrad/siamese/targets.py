"""Target branches: what the other view's projection is compared with, and whether gradient flows into it.

All take the views, the online projections `z`, the online method, the views that are wanted and the clock; all return
{view: [B, D]}. A target holds its slow copies as submodules, so they stand in the checkpoint.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from stopgrad import dist, rng
from stopgrad.contracts import Clock, Views
from stopgrad.nn.batch_norm import SplitBatchNorm
from stopgrad.siamese.family import Part, Siamese, Vectors


class StopGradient(Part):
    """The online projection, held constant: SimSiam's target (Algorithm 1 of arXiv:2011.10566)."""

    says = "stop-gradient"

    def forward(self, views: Views, z: Vectors, online: Siamese, which: Sequence[int], clock: Clock) -> Vectors:
        missing = [view for view in which if view not in z]  # target-only views: the same weights, no gradient
        with torch.no_grad():
            extra = online.encode(views, missing, online.backbone, online.projector)
        return {view: (z[view] if view in z else extra[view]).detach() for view in which}


class Shared(Part):
    """The online projection with its gradient: both sides move towards each other. SimSiam collapses with it."""

    says = "shared (gradient flows)"

    def forward(self, views: Views, z: Vectors, online: Siamese, which: Sequence[int], clock: Clock) -> Vectors:
        missing = [view for view in which if view not in z]
        extra = online.encode(views, missing, online.backbone, online.projector)
        return {view: z[view] if view in z else extra[view] for view in which}


class NoTarget(Part):
    """No branch: the objective has what the views are compared with (SwAV's codes, InstDisc's bank)."""

    says = "none"

    def forward(self, views: Views, z: Vectors, online: Siamese, which: Sequence[int], clock: Clock) -> Vectors:
        return {}


class Momentum(Part):
    """A slow copy of backbone and projector: MoCo's (arXiv:1911.05722, eq. 2), BYOL's (arXiv:2006.07733, section 3.1).

    Parameters follow as target <- m target + (1 - m) online after each optimiser step. schedule: m stays at `momentum`
    (MoCo v1 and v2, DirectPred), or rises from there to 1 on a cosine over the run. Batch norm's running statistics are
    the copy's own, from its own train-mode forwards. MoCo v3's and UniGrad's code moves the copy before the next
    forward instead: the same sequence, but for m, which is one step further there.

    follows: also copies the predictor, where it is a layer that both branches end in (DINO's prototypes).
    """

    def __init__(
        self,
        backbone: nn.Module,
        projector: nn.Module,
        momentum: float,
        schedule: Literal["cosine", "constant"] = "cosine",
        follows: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.target_backbone = copy.deepcopy(backbone).requires_grad_(False)
        self.target_projector = copy.deepcopy(projector).requires_grad_(False)
        self.target_predictor = None if follows is None else copy.deepcopy(follows).requires_grad_(False)
        self.momentum = momentum
        self.schedule = schedule

    @property
    def says(self) -> str:  # type: ignore[override]
        return f"momentum {self.momentum:g}" + (" to 1" if self.schedule == "cosine" else "")

    @torch.no_grad()
    def forward(self, views: Views, z: Vectors, online: Siamese, which: Sequence[int], clock: Clock) -> Vectors:
        slow = online.encode(views, which, self.target_backbone, self.target_projector)
        if self.target_predictor is not None:
            return {view: self.target_predictor(z_view) for view, z_view in slow.items()}
        return slow

    @torch.no_grad()
    def after_step(self, online: Siamese, clock: Clock) -> None:
        m = momentum_at(self.momentum, clock) if self.schedule == "cosine" else self.momentum
        pairs = [(self.target_backbone, online.backbone), (self.target_projector, online.projector)]
        if self.target_predictor is not None:
            pairs.append((self.target_predictor, online.predictor))
        slow: list[Tensor] = [parameter for module, _ in pairs for parameter in module.parameters()]
        fast: list[Tensor] = [parameter for _, module in pairs for parameter in module.parameters()]
        torch._foreach_lerp_(slow, fast, 1 - m)


class ShuffledMomentum(Momentum):
    """A momentum copy that sees each batch in another order, so that its batch norm does not give away which images
    stood together in the online branch (MoCo, arXiv:1911.05722, section 3.3: shuffling BN).

    The order is drawn from (seed, step) and spans all processes: crops are gathered, each process encodes its slice of
    the shuffled batch with batch-norm statistics of its own, and the keys are put back. On one process it has an effect
    only where batch norm is split (nn.batch_norm.split).
    """

    @property
    def says(self) -> str:  # type: ignore[override]
        norms = [part for part in self.modules() if isinstance(part, _BatchNorm)]
        split = any(isinstance(norm, SplitBatchNorm) and norm.splits > 1 for norm in norms)
        return super().says + (", shuffled batch norm" if split or (norms and dist.world() > 1) else "")

    @torch.no_grad()
    def forward(self, views: Views, z: Vectors, online: Siamese, which: Sequence[int], clock: Clock) -> Vectors:
        count = len(views.index) * dist.world()
        order = rng.permutation(count, clock.seed, clock.step, purpose=rng.SHUFFLE)
        mine = torch.from_numpy(np.array_split(order, dist.world())[dist.rank()])
        shuffled = Views(
            tuple(
                dist.gather(crop)[mine.to(crop.device)] if i in which else crop for i, crop in enumerate(views.crops)
            ),
            views.index,
        )
        keys = super().forward(shuffled, z, online, which, clock)
        back = torch.from_numpy(np.argsort(order))[dist.rank() * len(views.index) :][: len(views.index)]
        return {view: dist.gather(t)[back.to(t.device)] for view, t in keys.items()}


def momentum_at(start: float, clock: Clock) -> float:
    """start at the first step, exactly 1 at the end, on a cosine. BYOL, section 3.1."""
    return 1 - (1 - start) * (1 + math.cos(math.pi * clock.progress)) / 2
