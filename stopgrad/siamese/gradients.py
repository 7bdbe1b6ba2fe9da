"""Objectives that are given by their gradient: UniGrad's, and the families' it compares."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from stopgrad import dist
from stopgrad.contracts import Clock
from stopgrad.losses import correlation, unigrad
from stopgrad.losses.gradients import (
    Parts,
    asymmetric_gradient,
    barlow_twins_gradient,
    contrastive_gradient,
    decorrelation_gradient,
    vicreg_gradient,
)
from stopgrad.losses.inputs import widen
from stopgrad.nn.memory import MovingAverage
from stopgrad.siamese.family import Part, Siamese, Vectors
from stopgrad.siamese.objectives import nearness, similarity
from stopgrad.siamese.pairs import Pairs
from stopgrad.siamese.predictors import direct_pred

Negatives = Literal["target", "online"]
Form = Literal[
    "contrastive",
    "asymmetric",
    "barlow_twins",
    "barlow_twins_identity",
    "decorrelation_target",
    "vicreg",
    "decorrelation_online",
]
WHOLE_BATCH = ("barlow_twins", "barlow_twins_identity", "vicreg")  # gradients of a loss of the batch, not of an image
BATCH_NORM_EPSILON = 1e-5


class CorrelationGradient(Part):
    """Towards the target, away from where all targets lie: -t + weight F u for a unit u (UniGrad, arXiv:2112.05141).

    F is a moving average of the correlation of all target views, over all processes. A batch is compared with the F
    that already counts it; one of several micro-batches with the F that counts it alone, while the step moves F by the
    mean of all. The first step's batch is F.

    The loss is a surrogate (losses.unigrad); the log has the `objective` whose gradient it has, and the similarity of
    positives as `similarity`.  negatives: whether F is made of what the target says or of the network's own features.
    """

    says = "correlation gradient (moving average F)"

    def __init__(self, dim: int, weight: float, momentum: float, negatives: Negatives = "target") -> None:
        super().__init__()
        self.correlation = MovingAverage((dim, dim), momentum, first_batch_initialises=True)
        self.weight = weight
        self.negatives = negatives

    def forward(
        self, p: Vectors, z: Vectors, t: Vectors, pairs: Pairs, index: Tensor, clock: Clock
    ) -> tuple[Tensor, dict[str, Tensor]]:
        others = t if self.negatives == "target" else z
        batch = torch.stack([correlation(others[view].detach()) for view in pairs.targets]).mean(dim=0)  # [D, D]
        moved = self.correlation.with_batch(batch)
        self.correlation.stage(batch)
        loss = torch.stack([unigrad(p[o], t[g], moved, self.weight) for o, g in pairs.both]).mean()
        alike = similarity(p, t, pairs)
        # the surrogate's value is -cos + weight u'Fu, the objective's -cos + weight / 2 u'Fu
        return loss, {"similarity": alike, "objective": (loss.detach() - alike) / 2}

    def attraction(
        self, p: Vectors, z: Vectors, t: Vectors, pairs: Pairs, index: Tensor, clock: Clock
    ) -> Tensor | None:
        return nearness(p, {view: rows.detach() for view, rows in t.items()}, pairs)

    def after_step(self, online: Siamese, clock: Clock) -> None:
        self.correlation.commit()

    def discard(self) -> None:
        self.correlation.discard()


class WrittenGradient(Part):
    """The other rows of UniGrad's comparison (arXiv:2112.05141, table 1): a family's gradient, in full or simplified.

    The network learns from it by the surrogate <sg(gradient), u>.

    contrastive: InfoNCE among all views of all processes.  asymmetric: a linear predictor that DirectPred computes from
    F, exactly.  barlow_twins: in full, on standardised features; _identity: with A = I.  decorrelation_target: what is
    left of it on unit vectors.  vicreg: in full, on features as they are; decorrelation_online: what is left of it on
    unit vectors.  negatives: the features that images are pushed away by: the target's, or the network's own, held
    constant, so that a slow target serves the positive part alone (table 2).

    The log has the similarity of positives and `balance`, how long the push is beside the pull.
    """

    def __init__(
        self,
        dim: int,
        form: Form,
        *,
        weight: float,
        temperature: float,
        epsilon: float,
        variance: float,
        momentum: float,
        negatives: Negatives,
    ) -> None:
        super().__init__()
        self.form = form
        self.weight, self.temperature, self.epsilon, self.variance = weight, temperature, epsilon, variance
        self.negatives = negatives
        self.correlation: MovingAverage | None = None
        if form == "asymmetric":
            self.correlation = MovingAverage((dim, dim), momentum, first_batch_initialises=True)

    @property
    def says(self) -> str:  # type: ignore[override]
        return f"written gradient ({self.form.replace('_', ' ')})"

    def forward(
        self, p: Vectors, z: Vectors, t: Vectors, pairs: Pairs, index: Tensor, clock: Clock
    ) -> tuple[Tensor, dict[str, Tensor]]:
        losses, balances = [], []
        for u, parts in self.written(p, z, t, pairs):
            each = (parts.whole * u).sum(dim=1)
            losses.append(each.sum() if self.form in WHOLE_BATCH else each.mean())
            balances.append(parts.balance)
        logs = {"similarity": similarity(p, t, pairs), "balance": torch.stack(balances).mean()}
        return torch.stack(losses).mean(), logs

    def attraction(
        self, p: Vectors, z: Vectors, t: Vectors, pairs: Pairs, index: Tensor, clock: Clock
    ) -> Tensor | None:
        drawn = [-(parts.positive * u).sum(dim=1) for u, parts in self.written(p, z, t, pairs, staged=False)]
        return torch.stack([each.sum() if self.form in WHOLE_BATCH else each.mean() for each in drawn]).mean()

    def written(
        self, p: Vectors, z: Vectors, t: Vectors, pairs: Pairs, staged: bool = True
    ) -> list[tuple[Tensor, Parts]]:
        """Of each pair the features [N, D] of all processes, with gradient, and what is written for them."""
        source = t if self.negatives == "target" else z
        target = {view: self.features(dist.gather(t[view].detach())) for view in pairs.targets}
        others = {view: self.features(dist.gather(source[view].detach())) for view in pairs.targets}
        predictor = self.predictor([source[view].detach() for view in pairs.targets], staged)
        keys = torch.cat([others[view] for view in pairs.targets])
        out = []
        for online, view in pairs.both:
            u = self.features(dist.gather(p[online]))  # of all processes: each computes the whole loss
            held = u.detach()
            pull, push = (self.parts(held, one, keys, predictor) for one in (target[view], others[view]))
            out.append((u, Parts(pull.positive, push.negative)))
        return out

    def features(self, x: Tensor) -> Tensor:
        """[N, D], the whole batch, as the form compares them."""
        x = widen(x)
        if self.form == "vicreg":
            return x
        if self.form in WHOLE_BATCH:
            return (x - x.mean(dim=0)) * (x.var(dim=0, correction=0) + BATCH_NORM_EPSILON).rsqrt()
        return F.normalize(x, dim=1)

    @torch.no_grad()
    def predictor(self, views: list[Tensor], staged: bool) -> Tensor:
        """W of the asymmetric form, from the F that counts this batch; nothing of it for any other."""
        if self.correlation is None:
            return torch.empty(0)
        batch = torch.stack([correlation(view) for view in views]).mean(dim=0)
        moved = self.correlation.with_batch(batch)
        if staged:
            self.correlation.stage(batch)
        return direct_pred(moved, self.epsilon)

    @torch.no_grad()
    def parts(self, u: Tensor, target: Tensor, keys: Tensor, predictor: Tensor) -> Parts:
        if self.form == "contrastive":
            return contrastive_gradient(u, target, keys, self.temperature)
        if self.form == "asymmetric":
            return asymmetric_gradient(u, target, predictor)
        if self.form == "vicreg":
            return vicreg_gradient(u, target, self.weight, self.variance)
        if self.form in WHOLE_BATCH:
            return barlow_twins_gradient(u, target, self.weight, identity=self.form == "barlow_twins_identity")
        return decorrelation_gradient(u, target, self.weight, "online" if self.form.endswith("online") else "target")

    def after_step(self, online: Siamese, clock: Clock) -> None:
        if self.correlation is not None:
            self.correlation.commit()

    def discard(self) -> None:
        if self.correlation is not None:
            self.correlation.discard()
