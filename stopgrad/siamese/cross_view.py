"""CMC's forward (arXiv:1906.05849): views of different kinds, an encoder each, every view to be found by the others.

Beside the family, whose views share a backbone. A tower is an encoder with an input of its own, a crop of the image or
a sensor; one that is split (nn.colour_split) sees two views of its crop. M views, B images in this process, N in all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stopgrad import dist
from stopgrad.contracts import Clock, ConfigError, Output, Views
from stopgrad.losses import info_nce_batch, nce, non_parametric_softmax
from stopgrad.method import Method
from stopgrad.nn.memory import Bank, Memory
from stopgrad.nn.towers import parts_of
from stopgrad.siamese.pairs import Pairs
from stopgrad.siamese.remembered import Normaliser, drawn_rows, log_mean_exp, similarities, unit

Graph = Literal["core", "full"]
Directions = dict[tuple[int, int], Tensor]  # (anchor's view, the view it is sought in) -> of this direction


def pairs_of_graph(graph: Graph, views: int) -> Pairs:
    """Both directions of each pair that is compared.

    core: the first view with each other one, M - 1 pairs.  full: every two views, M (M - 1) / 2 pairs.
    """
    pairs = [(i, j) for i in range(views) for j in range(i + 1, views) if graph == "full" or i == 0]
    return Pairs(tuple(direction for i, j in pairs for direction in ((i, j), (j, i))))


class CrossView(Method):
    """views -> towers -> a projector a view -> unit vectors, compared over the pairs of the graph; the losses of all
    directions are added.

    towers: {name: tower}, in the order of views.crops; `backbone` is the first, which the monitor reads. An image
    without sensors has one tower, split.  projectors: one a view, in the order of the towers, L before ab.  objective:
    (z: M of [B, D], unit vectors; pairs; index [B]; clock) -> loss, scalars to log; its memories are committed and
    forgotten here. `similarity` in the log is the cosine of what is compared. It is not called agreement, by which the
    verdict is made: two kinds of view agree less than two crops.
    """

    def __init__(
        self,
        towers: Mapping[str, nn.Module],
        projectors: Sequence[nn.Module],
        objective: AmongBatch | AmongBank,
        pairs: Pairs,
    ) -> None:
        super().__init__()
        (self.first, self.backbone), *others = towers.items()
        self.others = nn.ModuleDict(dict(others))
        self.projectors = nn.ModuleList(projectors)
        self.objective = objective
        self.pairs = pairs

    def forward(self, views: Views, clock: Clock) -> Output:
        towers = self.trunks()
        if len(views.crops) != len(towers):
            raise ConfigError(
                f"views.crops: {len(views.crops)} given, the method has an encoder for each of {len(towers)} "
                f"({', '.join(towers)}); give these, in this order"
            )
        features = [h for tower, crop in zip(towers.values(), views.crops) for h in parts_of(tower, crop)]
        z = [unit(projector(h)) for projector, h in zip(self.projectors, features, strict=True)]  # M of [B, D]
        loss, logs = self.objective(z, self.pairs, views.index, clock)
        return Output(loss=loss, embedding=torch.cat([v.detach() for v in z]), logs=logs)

    def _memories(self) -> list[Memory]:
        return [part for part in self.modules() if isinstance(part, Memory)]

    def after_step(self, clock: Clock) -> None:
        for memory in self._memories():
            memory.commit()

    def discard(self) -> None:
        for memory in self._memories():
            memory.discard()

    def embed(self, crop: Tensor) -> tuple[Tensor, Tensor]:
        """crop: the first tower's [B, ...] -> its features and projections; those of a split one side by side, which is
        what the paper evaluates."""
        features = parts_of(self.backbone, crop)
        z = [unit(projector(h)) for projector, h in zip(self.projectors, features)]
        return torch.cat(features, dim=1), torch.cat(z, dim=1)

    def across(self, crop: Tensor) -> tuple[Tensor, Tensor] | None:
        """The first kind of view of a crop, and the mean of the others; None where the first tower is not split."""
        features = parts_of(self.backbone, crop)
        first, *others = [unit(projector(h)) for projector, h in zip(self.projectors, features)]
        return (first, unit(torch.stack(others).mean(dim=0))) if others else None

    def trunks(self) -> Mapping[str, nn.Module]:
        return {self.first: self.backbone, **dict(self.others.items())}

    def parts(self) -> Mapping[str, str]:
        return {
            "predictor": "none",
            "target": self.objective.target,
            "objective": self.objective.says,
            "pairs": str(self.pairs),
            "batch norm": "one forward a view",
            "keeps": "online",
        }


class AmongBatch(nn.Module):
    """The other view of an image among that view of all images of the step. An addition: the paper has banks.

    Candidates are gathered over processes with their gradient; anchors stay where they are.
    """

    says = "InfoNCE (in the batch)"
    target = "shared (gradient flows)"

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(
        self, z: Sequence[Tensor], pairs: Pairs, index: Tensor, clock: Clock
    ) -> tuple[Tensor, dict[str, Tensor]]:
        keys = [dist.gather(v) for v in z]  # M of [N, D]
        first = dist.rank() * len(index)
        losses = [info_nce_batch(z[i], keys[j], self.temperature, first) for i, j in pairs.both]
        cosines = [(z[i] * z[j]).sum(dim=1).mean() for i, j in pairs.both]
        return torch.stack(losses).sum(), {"similarity": torch.stack(cosines).mean().detach()}


class AmongBank(nn.Module):
    """The row of an image among all rows of the other view's bank.

    banks: one a view; a view is looked for in the others' and written to its own, after the step.
    """

    says = "softmax (bank a view)"
    target = "none"

    def __init__(self, banks: Sequence[Bank], temperature: float) -> None:
        super().__init__()
        self.banks = nn.ModuleList(banks)
        self.temperature = temperature

    def forward(
        self, z: Sequence[Tensor], pairs: Pairs, index: Tensor, clock: Clock
    ) -> tuple[Tensor, dict[str, Tensor]]:
        if self.images < 2:
            raise ConfigError(
                "cmc has a row of its banks for every image and was built for less than 2; build it with "
                "Known(images=N), the number that are trained on"
            )
        for view, v in enumerate(z):
            self.bank(view).stage(index, v)
        cosines = [(z[i] * self.bank(j).rows(index)).sum(dim=1).mean() for i, j in pairs.both]
        losses = self.losses(z, pairs, index, clock)
        return torch.stack(losses).sum(), {"similarity": torch.stack(cosines).mean().detach()}

    def bank(self, view: int) -> Bank:
        found = self.banks[view]
        assert isinstance(found, Bank)
        return found

    @property
    def images(self) -> int:
        return len(self.bank(0).vectors)

    def losses(self, z: Sequence[Tensor], pairs: Pairs, index: Tensor, clock: Clock) -> list[Tensor]:
        """A scalar for each direction, in the order of the pairs."""
        return [non_parametric_softmax(z[i], self.bank(j).vectors, index, self.temperature) for i, j in pairs.both]


class AmongDrawn(AmongBank):
    """The own row of the other view's bank among `negatives` that are drawn: the softmax over 1 + m (the code's
    --softmax). Rows are drawn uniformly, with replacement, the own one not left out; the same of an image for all
    directions."""

    says = "softmax (bank a view, drawn)"

    def __init__(self, banks: Sequence[Bank], temperature: float, negatives: int) -> None:
        super().__init__(banks, temperature)
        self.negatives = negatives

    def scores(self, z: Sequence[Tensor], pairs: Pairs, index: Tensor, clock: Clock) -> Directions:
        """Cosines with the own row, then with the drawn ones: [B, 1 + m]."""
        drawn = drawn_rows(self.images, self.negatives, index, clock)
        rows = torch.cat([index.unsqueeze(1), drawn], dim=1)  # [B, 1 + m]
        candidates = {view: self.bank(view).rows(rows) for view in pairs.targets}  # [B, 1 + m, D]
        return {(i, j): similarities(z[i], candidates[j]) for i, j in pairs.both}

    def losses(self, z: Sequence[Tensor], pairs: Pairs, index: Tensor, clock: Clock) -> list[Tensor]:
        scores = self.scores(z, pairs, index, clock)
        return [first_of(cosines, self.temperature) for cosines in scores.values()]


class AmongDrawnByNCE(AmongDrawn):
    """The own row told from the drawn ones one by one, by noise contrast, as InstDisc does. Each view as an anchor has
    a normaliser Z, estimated over all its directions from the first step that is taken, and then kept."""

    says = "NCE (bank and Z a view)"

    def __init__(self, banks: Sequence[Bank], temperature: float, negatives: int) -> None:
        super().__init__(banks, temperature, negatives)
        self.normalisers = nn.ModuleList(Normaliser() for _ in banks)

    def losses(self, z: Sequence[Tensor], pairs: Pairs, index: Tensor, clock: Clock) -> list[Tensor]:
        scores = self.scores(z, pairs, index, clock)
        log_z = {view: self._log_z(view, scores) for view in pairs.online}
        return [
            nce(cosines[:, 0], cosines[:, 1:], self.images, log_z[anchor], self.temperature)
            for (anchor, _), cosines in scores.items()
        ]

    @torch.no_grad()
    def _log_z(self, view: int, scores: Directions) -> Tensor:
        """[1]: what is kept, or that of this batch, which is staged either way."""
        every = torch.cat([cosines.flatten() for (anchor, _), cosines in scores.items() if anchor == view])
        batch = math.log(self.images) + log_mean_exp(every / self.temperature)
        normaliser = self.normalisers[view]
        assert isinstance(normaliser, Normaliser)
        found = normaliser.with_batch(batch)
        normaliser.stage(batch)
        return found


def first_of(scores: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of the first of 1 + m candidates, mean over [B, 1 + m]: log(1 + m) where all scores are equal."""
    return -F.log_softmax(scores / temperature, dim=1)[:, 0].mean()
