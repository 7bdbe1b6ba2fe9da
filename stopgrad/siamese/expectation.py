"""Targets of SimSiam's hypothesis that it alternates between two sets of variables (arXiv:2011.10566, section 5).

L(theta, eta) = E |F(T(x)) - eta_x|^2 is lowered in theta by gradient, and in eta, one vector an image, by its mean over
views. SimSiam takes one step of the first and one view for the second; here are more steps, more views, and a mean that
is kept from one visit of an image to the next.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stopgrad.contracts import Clock, Views
from stopgrad.nn.memory import Slots
from stopgrad.siamese.family import Part, Siamese, Vectors
from stopgrad.siamese.targets import StopGradient

FirstVisit = Literal["view", "random"]
Order = Literal["before", "after"]


class Lagged(Part):
    """The network as it was when `every` steps began: eta is fixed for so many steps of theta (section 5.2, multi-step
    alternation). every: steps; 0 is an epoch.

    The paper caches eta of the next `every` batches instead, which is the same: the copy sees the same views in
    training mode. It has batch-norm buffers of its own. every=1 is SimSiam to the bit. Where the step that should have
    renewed the copy is skipped, the next one does.
    """

    renewed: Tensor  # int64, how often

    def __init__(self, backbone: nn.Module, projector: nn.Module, every: int) -> None:
        super().__init__()
        self.target_backbone = copy.deepcopy(backbone).requires_grad_(False)
        self.target_projector = copy.deepcopy(projector).requires_grad_(False)
        self.every = every
        self.register_buffer("renewed", torch.zeros((), dtype=torch.int64))

    @property
    def says(self) -> str:  # type: ignore[override]
        return f"a copy renewed every {f'{self.every} steps' if self.every else 'epoch'}"

    @torch.no_grad()
    def forward(self, views: Views, z: Vectors, online: Siamese, which: Sequence[int], clock: Clock) -> Vectors:
        return online.encode(views, which, self.target_backbone, self.target_projector)

    @torch.no_grad()
    def after_step(self, online: Siamese, clock: Clock) -> None:
        due = (clock.step + 1) // (self.every or clock.steps_per_epoch)
        if due == int(self.renewed):
            return
        self.renewed.fill_(due)
        for old, new in ((self.target_backbone, online.backbone), (self.target_projector, online.projector)):
            for slow, fast in zip(old.parameters(), new.parameters()):
                slow.copy_(fast)


class MeanOfViews(StopGradient):
    """The mean of a view's projection and those of views that nothing is trained on: more samples for the expectation
    over T that one view stands for (section 5.1). Projections are unit vectors before they are averaged.

    extra: views beyond the pairs', encoded without gradient, each a forward of its own.
    """

    def __init__(self, extra: Sequence[int]) -> None:
        super().__init__()
        self.extra = list(extra)

    @property
    def says(self) -> str:  # type: ignore[override]
        return f"stop-gradient, mean of {1 + len(self.extra)} views"

    def forward(self, views: Views, z: Vectors, online: Siamese, which: Sequence[int], clock: Clock) -> Vectors:
        found = super().forward(views, z, online, [*which, *self.extra], clock)
        unit = {view: F.normalize(vectors, dim=1) for view, vectors in found.items()}
        return {view: torch.stack([unit[one] for one in (view, *self.extra)]).mean(dim=0) for view in which}


class MovingAverage(StopGradient):
    """eta, a vector an image that is kept: eta <- m eta + (1 - m) z' (section 5.2, expectation over augmentations).

    The paper says neither what eta is before an image's first visit, nor whether z' is a unit vector, nor what comes
    first, the average or its use. Here: `first` view, eta is what the first view says, or random, a random direction;
    `normalised`; and `order` before, the target of a view is the average that already counts the other one's z', or
    after, the average as it was. What is kept of a visit is the mean over both views. With m = 0 and order before it is
    SimSiam without a predictor, to the bit, whatever the rest.
    """

    def __init__(
        self, images: int, dim: int, momentum: float, first: FirstVisit, order: Order, normalised: bool, seed: int
    ) -> None:
        super().__init__()
        self.eta = Slots(images, dim, seed if first == "random" else None)
        self.momentum = momentum
        self.order = order
        self.normalised = normalised

    @property
    def says(self) -> str:  # type: ignore[override]
        return f"moving average {self.momentum:g} of each image"

    @torch.no_grad()
    def forward(self, views: Views, z: Vectors, online: Siamese, which: Sequence[int], clock: Clock) -> Vectors:
        new = super().forward(views, z, online, which, clock)
        if self.normalised:
            new = {view: F.normalize(vectors, dim=1) for view, vectors in new.items()}
        some = next(iter(new.values()))
        known = self.eta.visited(views.index).unsqueeze(1)  # [B, 1]
        old = self.eta.rows(views.index).to(some.dtype)
        m = known.to(some.dtype) * self.momentum
        if self.momentum == 0:  # else 0 times a row that has diverged would be no number
            moved = new
        else:
            moved = {view: m * old + (1 - m) * vectors for view, vectors in new.items()}
        self.eta.stage(views.index, torch.stack(list(moved.values())).mean(dim=0))
        if self.order == "before":
            return moved
        return {view: torch.where(known, old, vectors) for view, vectors in new.items()}

    def after_step(self, online: Siamese, clock: Clock) -> None:
        self.eta.commit()

    def discard(self) -> None:
        self.eta.discard()
