"""Predict what comes later from what came before: CPC's one forward, beside the family on the same contract.

Latents are [B, T, P, D]: T steps, and P predictions side by side. A sequence is one wide; of a grid of patches, rows
come one after the other and columns stand side by side.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from typing import cast

import torch
from torch import Tensor, nn

from stopgrad.contracts import Clock, ConfigError, Output, Views
from stopgrad.losses.inputs import widen
from stopgrad.method import Method
from stopgrad.nn.patches import Patches, RowContext
from stopgrad.nn.sequence import SequenceTrunk
from stopgrad.siamese.candidates import Candidates
from stopgrad.siamese.patch_views import PatchViews


class Predictive(Method):
    """views -> latents -> context -> one linear prediction W_k for each step ahead, told from the candidates.

    skip: steps left out before the first that is predicted.  directions: 1, or 4: the grid is turned and read from each
    of its sides, with a context and predictions of its own.
    """

    def __init__(
        self, backbone: nn.Module, widths: tuple[int, int], steps: int, skip: int, directions: int, among: Candidates
    ) -> None:
        """widths: channels of a context and of a latent."""
        super().__init__()
        self.backbone = backbone
        self.steps, self.skip = steps, skip
        self.candidates = among
        self.predictors = nn.ModuleList(
            nn.ModuleList(nn.Linear(*widths, bias=False) for _ in range(steps)) for _ in range(directions)
        )
        for weight in self.predictors.parameters():
            nn.init.normal_(weight, std=1 / max(widths))  # products of unnormalised vectors would be far above 1

    @abstractmethod
    def latents(self, x: Tensor, index: Tensor | None = None, clock: Clock | None = None) -> Tensor:
        """x: a view [B, ...] -> [B, T, P, D]; as it is trained on where index and clock are given, else as it is."""

    @abstractmethod
    def context(self, z: Tensor, direction: int) -> Tensor:
        """z: [B, T, P, D], turned -> [B, T, P, C]: what each place knows of itself and of what came before it."""

    @abstractmethod
    def anchors(self, length: int, ahead: int) -> int:
        """From how many of `length` steps one that lies `ahead` is predicted, 1 or more ahead."""

    @abstractmethod
    def features(self, x: Tensor, z: Tensor) -> Tensor:
        """x: [B, ...], and its latents z: [B, T, P, D] -> what the backbone gives of x, [B, dim]."""

    @abstractmethod
    def in_words(self, needed: int) -> tuple[str, str]:
        """What a step is called, and what gives a view `needed` of them."""

    def there(self, x: Tensor, z: Tensor) -> Tensor | None:
        """x: a view, and its latents z: [B, T, P, D] -> bool, [B, T, P]: what is no padding; None: all of it."""
        return None

    def forward(self, views: Views, clock: Clock) -> Output:
        z = self.latents(views.crops[0], views.index, clock)
        self.check_length(z.shape[1])
        there = self.there(views.crops[0], z)  # [B, T, P]
        pool = self.candidates.pool(z.flatten(1, 2), views.index, None if there is None else there.flatten(1))
        place = torch.arange(z.shape[1] * z.shape[2], device=z.device).reshape(z.shape[1:3])
        results = []
        for direction, predictors in enumerate(cast(Iterable[nn.ModuleList], self.predictors)):
            turned, places = torch.rot90(z, direction, (1, 2)), torch.rot90(place, direction)
            c = self.context(turned, direction)
            for k, predictor in enumerate(predictors):
                count, first = self.anchors(z.shape[1], k + 1), k + 1 + self.skip
                p = predictor(c[:, :count]).flatten(1, 2)  # [B, A, D]
                later = turned[:, first : first + count].flatten(1, 2)
                at = places[first : first + count].flatten()
                results.append(self.candidates(p, later, at, pool, clock, direction * self.steps + k))
        losses, found = zip(*results)
        logs = {"accuracy": torch.stack(found).mean()}
        return Output(loss=torch.stack(losses).mean(), embedding=watched(z.detach(), there), logs=logs)

    def check_length(self, length: int) -> None:
        """Raises ConfigError where a view of so many steps has none from which the furthest can be predicted."""
        if self.anchors(length, self.steps) < 1:
            needed, most = self.steps + self.skip + 1, length - self.skip - 1
            unit, remedy = self.in_words(needed)
            skipped = f" with method.skip={self.skip}" if self.skip else ""
            fewer = f"type --set method.steps={most}, or " if most > 0 else ""
            raise ConfigError(
                f"method.steps={self.steps}{skipped} needs {needed} {unit} at least, a view has {length}; "
                f"{fewer}{remedy}"
            )

    def embed(self, crop: Tensor) -> tuple[Tensor, Tensor]:
        z = self.latents(crop)
        return self.features(crop, z), watched(z, self.there(crop, z))

    def set_groups(self, groups: Tensor) -> None:
        """groups: [images], which samples are alike (of one speaker), read by negatives=same_group and its kin."""
        self.candidates.set_groups(groups)

    def parts(self) -> Mapping[str, str]:
        whence, drawn = self.candidates.whence.replace("_", " "), self.candidates.drawn
        ahead = f"+{1 + self.skip}" if self.steps == 1 else f"+{1 + self.skip}..{self.steps + self.skip}"
        sides = f", from {len(self.predictors)} sides" if len(self.predictors) > 1 else ""
        return {
            "predictor": f"{self.steps} x linear",
            "target": "later latents",
            "objective": f"InfoNCE ({whence}{f', {drawn} drawn' if drawn else ''})",
            "pairs": f"(now, {ahead}{sides})",
            "keeps": "online",
        }


def watched(z: Tensor, there: Tensor | None = None) -> Tensor:
    """z: [B, T, P, D] -> [B, D], what the monitor looks at: mean latents, without what those of the batch have in
    common. The loss does not see that part, which adds the same to every score of an anchor, and it may grow.
    there: [B, T, P], what is no padding."""
    if there is None:
        mean = widen(z).mean(dim=(1, 2))
    else:
        share = there.unsqueeze(3)  # [B, T, P, 1]
        mean = (widen(z) * share).sum(dim=(1, 2)) / share.sum(dim=(1, 2)).clamp_min(1)
    return mean - mean.mean(dim=0)


class OverTime(Predictive):
    """Of a sequence, frame by frame or sentence by sentence; the context is the backbone's and is kept.

    Every step ahead is predicted from the same frames, those that have all of them; where sequences differ in length,
    from every frame that has it.
    """

    backbone: SequenceTrunk

    def latents(self, x: Tensor, index: Tensor | None = None, clock: Clock | None = None) -> Tensor:
        return self.backbone.latents(x).unsqueeze(2)

    def context(self, z: Tensor, direction: int) -> Tensor:
        return self.backbone.contexts(z.squeeze(2)).unsqueeze(2)

    def anchors(self, length: int, ahead: int) -> int:
        return length - self.skip - (ahead if self.backbone.padded else self.steps)

    def there(self, x: Tensor, z: Tensor) -> Tensor | None:
        found = self.backbone.there(x)
        return None if found is None else found.unsqueeze(2)

    def features(self, x: Tensor, z: Tensor) -> Tensor:
        return self.backbone.pooled(self.backbone.contexts(z.squeeze(2)), x)

    def in_words(self, needed: int) -> tuple[str, str]:
        return self.backbone.in_words(needed)


class OverRows(Predictive):
    """Of a grid of patches, row by row; a row is predicted from every row that lies so far above it.

    contexts: one for each direction, [B, G, G, D] -> [B, G, G, C]; they are not kept.
    """

    backbone: Patches

    def __init__(
        self,
        backbone: Patches,
        contexts: list[RowContext],
        widths: tuple[int, int],
        steps: int,
        skip: int,
        among: Candidates,
        patch_views: PatchViews,
    ) -> None:
        super().__init__(backbone, widths, steps, skip, len(contexts), among)
        self.contexts = nn.ModuleList(contexts)
        self.patch_views = patch_views

    def latents(self, x: Tensor, index: Tensor | None = None, clock: Clock | None = None) -> Tensor:
        patches = self.backbone.cut(x)
        if index is not None and clock is not None:
            patches = self.patch_views(patches, index, clock)
        return self.backbone.latents(patches)

    def context(self, z: Tensor, direction: int) -> Tensor:
        out: Tensor = self.contexts[direction](z)
        return out

    def anchors(self, length: int, ahead: int) -> int:
        return length - ahead - self.skip

    def features(self, x: Tensor, z: Tensor) -> Tensor:
        return z.mean(dim=(1, 2))

    def in_words(self, needed: int) -> tuple[str, str]:
        return "rows of patches", f"use smaller backbone.patches than {self.backbone.side}, or larger crops"
