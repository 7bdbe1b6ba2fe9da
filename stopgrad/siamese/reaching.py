"""The gradient that reaches the embeddings of a batch, as a pull towards the target and a push away from the rest.

UniGrad (arXiv:2112.05141) writes every method's gradient so. Of a loss that has a part which draws a view to its target
(an objective's `attraction`: the positive's logit, the code's half of a cross-entropy, the diagonal of a correlation),
the positive part is that part's gradient and the negative part the rest. A cosine has none: BYOL's and SimSiam's
negatives are hidden in the predictor, and their gradient is split into its component along the target and the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stopgrad.contracts import Clock, ConfigError, Views
from stopgrad.losses.gradients import Parts, along_target
from stopgrad.losses.inputs import widen
from stopgrad.method import Method
from stopgrad.siamese.family import Part, Siamese


def reaching(method: Method, views: Views, clock: Clock) -> dict[int, Parts]:
    """{online view: its gradient [B, D]}, of unit embeddings and of the sum over images; what changes an embedding's
    length alone is left out. Nothing is learnt, and nothing is remembered of it but batch norm's statistics, which the
    caller keeps. Raises ConfigError for a method that is none of the family."""
    check(method)
    assert isinstance(method, Siamese)
    with torch.enable_grad(), _caught(method.objective) as given:
        loss = method(views, clock).loss
        p, z, t, pairs, index, _ = given[0]
        online = [view for view in pairs.online if z[view].requires_grad]
        objective = method.objective  # of a user's own method perhaps no Part
        attraction = objective.attraction(p, z, t, pairs, index, clock) if isinstance(objective, Part) else None
        vectors = [z[view] for view in online]
        whole = found(loss, vectors, kept=attraction is not None)
        drawn = [None] * len(online) if attraction is None else found(attraction, vectors)
    method.discard()
    out = {}
    for view, gradient, pull in zip(online, whole, drawn):
        if gradient is None:
            continue
        vector = z[view].detach()
        turned = turning(gradient, vector)
        if attraction is not None:
            positive = -turning(torch.zeros_like(vector) if pull is None else pull, vector)
            out[view] = Parts(positive, turned - positive)
        else:
            targets = [F.normalize(t[target].detach(), dim=1) for one, target in pairs.both if one == view]
            towards = F.normalize(turning(torch.stack(targets).sum(dim=0), vector), dim=1)
            out[view] = along_target(turned, towards)
    return out


def measured(method: Method, views: Views, clock: Clock) -> dict[str, float]:
    """For the log: mean lengths of both parts over views and images, the balance of the two, and how much of the pull
    goes where the target is."""
    parts = list(reaching(method, views, clock).values())
    positive, negative = (
        float(torch.stack([part.norm(dim=1).mean() for part in each]).mean())
        for each in zip(*((one.positive, one.negative) for one in parts))
    )
    return {
        "gradient_positive": positive,
        "gradient_negative": negative,
        "gradient_balance": negative / positive if positive else float("nan"),
    }


def check(method: Method) -> None:
    """Raises ConfigError for a method whose gradient is not taken apart here."""
    if not isinstance(method, Siamese):
        raise ConfigError(
            "watch.gradients takes apart what reaches one backbone's embeddings, and this method is none of that "
            "family (cpc, cmc, clip and fine-tuning are not); remove it"
        )


def found(loss: Tensor, vectors: Sequence[Tensor], kept: bool = False) -> list[Tensor | None]:
    """The gradient by each of `vectors`; None of one that the loss does not see.  kept: the graph is wanted again."""
    return list(torch.autograd.grad(loss, vectors, retain_graph=kept, allow_unused=True))


def turning(gradient: Tensor, vector: Tensor) -> Tensor:
    """Of a gradient by z [B, D], a mean over B: what it is by the unit vector z / |z|, of the sum over B, at right
    angles to it."""
    vector = widen(vector)
    length = vector.norm(dim=1, keepdim=True)
    u = vector / length.clamp_min(1e-12)
    scaled = widen(gradient) * length * len(vector)
    turned: Tensor = scaled - (scaled * u).sum(dim=1, keepdim=True) * u
    return turned


class _caught:
    """What an objective is called with: a list of its arguments, filled while this is open."""

    def __init__(self, objective: nn.Module) -> None:
        self.given: list[Any] = []
        self.handle = objective.register_forward_pre_hook(lambda _, args: self.given.append(args))

    def __enter__(self) -> list[Any]:
        return self.given

    def __exit__(self, *_: object) -> None:
        self.handle.remove()
