"""Where the negatives of a prediction come from: other times, other sequences, the same group (CPC, section 3.1).

B sequences in this process, N in all of them, M places in each (frames, or patches), A anchors, D channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stopgrad import dist, rng
from stopgrad.contracts import Clock, ConfigError
from stopgrad.losses.inputs import widen
from stopgrad.losses.predictive import predictive_info_nce

Whence = Literal["batch", "other_sequences", "own_sequence", "same_group", "same_group_others"]
WITHOUT_OWN = ("other_sequences", "same_group_others")
GROUPED = ("same_group", "same_group_others")


@dataclass(frozen=True)
class Pool:
    """The latents of a step, over all processes, and which of them a sequence may be told from."""

    latents: Tensor  # [N, M, D], with gradient
    own: Tensor  # [B, N], bool: the sequence itself
    allowed: Tensor  # [B, N], bool
    index: Tensor  # [B]
    there: Tensor | None  # [N, M], bool: what is no padding; None: all of it


class Candidates(nn.Module):
    """InfoNCE of predictions against negatives from `whence`; all of them, or `drawn` of them for each sequence.

    Draws are with replacement, uniform over sequences and places, from (seed, step, index), anew for each step ahead;
    the anchors of a sequence share them. Where an anchor's own target is drawn, it counts once, as the target.
    images: of which `groups` says what is alike (a speaker), for the choices that ask for it.
    """

    groups: Tensor  # [images], int64; -1: nobody has said

    def __init__(self, whence: Whence, drawn: int, images: int) -> None:
        super().__init__()
        self.whence = whence
        self.drawn = drawn
        if whence in GROUPED:
            self.register_buffer("groups", torch.full((max(1, images),), -1))

    def set_groups(self, groups: Tensor) -> None:
        """groups: [images], whole numbers, 0 or more; equal for samples of one group. Raises ConfigError."""
        if self.whence not in GROUPED:
            raise ConfigError(f"method.negatives={self.whence} asks for no groups; use same_group, or give none")
        if groups.shape != self.groups.shape or groups.is_floating_point() or bool((groups < 0).any()):
            raise ConfigError(
                f"groups: one whole number of 0 or more is needed for each of the {len(self.groups)} samples, got "
                f"{groups.dtype} {list(groups.shape)}"
            )
        self.groups.copy_(groups)

    def pool(self, z: Tensor, index: Tensor, there: Tensor | None = None) -> Pool:
        """z: [B, M, D], this process's latents.  index: [B].  there: [B, M], bool, what is no padding; None: all of it.

        Raises ConfigError where there is nothing to tell from.
        """
        latents = dist.gather(widen(z))  # widened first: the gradient is summed over processes
        first, count = dist.rank() * len(z), len(latents)
        if count < 2 and self.whence in WITHOUT_OWN:
            raise ConfigError(
                f"method.negatives={self.whence} needs 2 sequences a batch, got 1; type --set loop.batch_size=2, or "
                "more, or --set method.negatives=batch"
            )
        own = torch.arange(first, first + len(z), device=z.device)[:, None] == torch.arange(count, device=z.device)
        of_all = None if there is None else dist.gather(there.to(torch.uint8)) > 0
        return Pool(latents, own, self._allowed(own, index), index, of_all)

    def _allowed(self, own: Tensor, index: Tensor) -> Tensor:
        if self.whence == "batch":
            return torch.ones_like(own)
        if self.whence == "own_sequence":
            return own
        if self.whence == "other_sequences":
            return ~own
        group = self.groups[index]
        if bool((group < 0).any()):
            raise ConfigError(
                f"method.negatives={self.whence} needs to know which samples are alike (of one speaker) and was told "
                "of none; give the data a grouping, or type --set method.negatives=batch"
            )
        alike = group[:, None] == dist.gather(group)
        return alike if self.whence == "same_group" else alike & ~own

    def forward(
        self, predicted: Tensor, target: Tensor, places: Tensor, pool: Pool, clock: Clock, draw: int
    ) -> tuple[Tensor, Tensor]:
        """predicted, target: [B, A, D].  places: [A], each target's in its sequence.  draw: other numbers, other draws.

        Returns the loss and the share of targets that are found, means over this process's anchors; where some targets
        are padding, over those of all processes that are not, so that the mean over processes is that.
        """
        count = pool.latents.shape[1]
        weights = None
        if pool.there is not None:
            kept = pool.there[:, places]  # [N, A]
            processes = len(kept) // len(predicted)
            mine = kept[dist.rank() * len(predicted) :][: len(predicted)].to(pool.latents.dtype)  # [B, A]
            weights = mine * processes / kept.sum().clamp_min(1)
        if not self.drawn:
            at = places[:, None] == torch.arange(count, device=places.device)  # [A, M]
            is_target = pool.own[:, None, :, None] & at[None, :, None, :]  # [B, A, N, M]
            refused = is_target | ~pool.allowed[:, None, :, None]
            if pool.there is not None:
                refused = refused | ~pool.there
            return predictive_info_nce(predicted, target, pool.latents.flatten(0, 1), refused.flatten(2), weights)
        sequence, place = self.draws(pool, clock, draw)
        # an embedding's look-up, not an index: its backward adds up in a fixed order, and fast
        drawn = F.embedding(sequence * count + place, pool.latents.flatten(0, 1))  # [B, n, D]
        from_own = pool.own.gather(1, sequence)  # [B, n]
        is_target = from_own[:, None, :] & (place[:, None, :] == places[None, :, None])  # [B, A, n]
        nothing = ~pool.allowed.any(dim=1)[:, None, None]
        return predictive_info_nce(predicted, target, drawn, is_target | nothing, weights)

    def draws(self, pool: Pool, clock: Clock, draw: int) -> tuple[Tensor, Tensor]:
        """[B, n] each: sequences of the pool that are allowed, and places in them that are no padding."""
        count = pool.latents.shape[1]
        words = rng.bits(rng.NEGATIVES, clock.seed, clock.step, pool.index.cpu().numpy(), self.drawn, view=draw)
        word = torch.from_numpy(words.astype(np.int64)).to(pool.index.device)  # below 2**32
        if pool.there is not None:
            from_any = (pool.allowed.unsqueeze(2) & pool.there).flatten(1)  # [B, N * M]
            order = torch.argsort((~from_any).to(torch.uint8), dim=1, stable=True)
            at = order.gather(1, (word * from_any.sum(dim=1)[:, None]) >> 32)  # [B, n]
            return at // count, at % count
        number = (word * (pool.allowed.sum(dim=1) * count)[:, None]) >> 32  # [B, n], among what is allowed
        order = torch.argsort((~pool.allowed).to(torch.uint8), dim=1, stable=True)  # [B, N], the allowed ones first
        return order.gather(1, number // count), number % count
