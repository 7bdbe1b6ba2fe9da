"""Objectives that remember: InfoNCE against a queue of past keys, and the bank's two, with a row for every image.

What they remember is staged in a forward and written in `after_step`: a step's keys and rows are never among its own
negatives.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from stopgrad import dist, rng
from stopgrad.contracts import Clock, ConfigError
from stopgrad.losses import info_nce, nce, non_parametric_softmax
from stopgrad.losses.inputs import in_float32, widen
from stopgrad.nn.memory import Bank, Memory, Queue
from stopgrad.siamese.family import Part, Siamese, Vectors
from stopgrad.siamese.objectives import nearness, similarity
from stopgrad.siamese.pairs import Pairs


class InfoNCE(Part):
    """The own key among those of the queue, a mean over the pairs (MoCo, arXiv:1911.05722, eq. 1 and Algorithm 1).

    The keys of all target views and processes join the queue after the step.  times: what the mean is multiplied by; 2
    makes the sum of two directions of it.
    """

    says = "InfoNCE (queue)"

    def __init__(self, queue: Queue, temperature: float, times: float = 1.0) -> None:
        super().__init__()
        self.queue = queue
        self.temperature = temperature
        self.times = times

    def forward(
        self, p: Vectors, z: Vectors, t: Vectors, pairs: Pairs, index: Tensor, clock: Clock
    ) -> tuple[Tensor, dict[str, Tensor]]:
        query = {view: unit(p[view]) for view in pairs.online}  # each [B, D]
        key = {view: unit(t[view]).detach() for view in pairs.targets}
        for rows in key.values():
            self.queue.stage(rows)
        # the live queue, not a copy: what is staged is written after the backward that reads it
        losses = [info_nce(query[o], key[g], self.queue.keys, self.temperature) for o, g in pairs.both]
        return self.times * torch.stack(losses).mean(), {"similarity": similarity(p, t, pairs)}

    def attraction(
        self, p: Vectors, z: Vectors, t: Vectors, pairs: Pairs, index: Tensor, clock: Clock
    ) -> Tensor | None:
        held = {view: rows.detach() for view, rows in t.items()}
        return self.times * nearness(p, held, pairs, self.temperature)

    def after_step(self, online: Siamese, clock: Clock) -> None:
        self.queue.commit()

    def discard(self) -> None:
        self.queue.discard()


class BankSoftmax(Part):
    """Every image its own class, whose weight is the bank's row of it (InstDisc, arXiv:1805.01978, eq. 2).

    proximal: lambda of section 3.3, times the mean squared distance of an embedding to its image's row. `similarity`
    in the log is the cosine of the two.
    """

    says = "softmax (bank)"

    def __init__(self, bank: Bank, temperature: float, proximal: float = 0.0) -> None:
        super().__init__()
        self.bank = bank
        self.temperature = temperature
        self.proximal = proximal

    def forward(
        self, p: Vectors, z: Vectors, t: Vectors, pairs: Pairs, index: Tensor, clock: Clock
    ) -> tuple[Tensor, dict[str, Tensor]]:
        if len(self.bank.vectors) < 2:
            raise ConfigError(
                "instdisc has a row of its bank for every image and was built for less than 2; "
                "build it with Known(images=N), the number that are trained on"
            )
        (view,) = pairs.alone
        v = unit(p[view])  # [B, D]
        own = self.bank.rows(index)  # [B, D]
        self.bank.stage(index, v)
        distance = (v - own).square().sum(dim=1).mean()
        loss = self.compare(v, own, index, clock) + self.proximal * distance
        return loss, {"similarity": (v * own).sum(dim=1).mean().detach()}

    def attraction(
        self, p: Vectors, z: Vectors, t: Vectors, pairs: Pairs, index: Tensor, clock: Clock
    ) -> Tensor | None:
        (view,) = pairs.alone
        v, own = unit(p[view]), self.bank.rows(index)
        near = (v * own).sum(dim=1)  # [B]; |v - own|^2 is 2 - 2 of it
        return self.drawn_to(v, near, index, clock).mean() + 2 * self.proximal * near.mean()

    def drawn_to(self, v: Tensor, near: Tensor, index: Tensor, clock: Clock) -> Tensor:
        """v: [B, D], near: [B], its cosine with the own row -> [B], what `attraction` is the mean of."""
        return near / self.temperature

    def compare(self, v: Tensor, own: Tensor, index: Tensor, clock: Clock) -> Tensor:
        """v, own: [B, D], embeddings and their images' rows, unit vectors -> scalar."""
        return non_parametric_softmax(v, self.bank.vectors, index, self.temperature)

    def after_step(self, online: Siamese, clock: Clock) -> None:
        self.bank.commit()

    def discard(self) -> None:
        self.bank.discard()


class BankNCE(BankSoftmax):
    """The softmax over the bank by noise contrast: the own row against rows of images drawn uniformly, with
    replacement, the own one not left out (InstDisc, arXiv:1805.01978, eq. 7).

    Z is estimated from the first step that is taken, the own rows included, and then kept.
    """

    says = "NCE (bank, Z)"

    def __init__(self, bank: Bank, negatives: int, temperature: float, proximal: float = 0.0) -> None:
        super().__init__(bank, temperature, proximal)
        self.negatives = negatives
        self.normaliser = Normaliser()

    def compare(self, v: Tensor, own: Tensor, index: Tensor, clock: Clock) -> Tensor:
        positive = (v * own).sum(dim=1)  # [B]
        negatives = similarities(v, self.bank.rows(self.drawn(index, clock)))  # [B, m]
        batch = self.log_z_of(positive, negatives)
        log_z = self.normaliser.with_batch(batch)
        self.normaliser.stage(batch)
        return nce(positive, negatives, len(self.bank.vectors), log_z, self.temperature)

    @torch.no_grad()
    def log_z_of(self, positive: Tensor, negatives: Tensor) -> Tensor:
        """positive: [B], negatives: [B, m] -> scalar, the estimate of one batch."""
        every = torch.cat([positive.unsqueeze(1), negatives], dim=1)  # [B, 1 + m]
        return math.log(len(self.bank.vectors)) + log_mean_exp((every / self.temperature).flatten())

    def drawn_to(self, v: Tensor, near: Tensor, index: Tensor, clock: Clock) -> Tensor:
        negatives = similarities(v, self.bank.rows(self.drawn(index, clock)))
        log_z = self.normaliser.with_batch(self.log_z_of(near, negatives))
        noise = math.log(self.negatives / len(self.bank.vectors))
        return F.logsigmoid(near / self.temperature - log_z - noise)  # of being no noise: log h

    def drawn(self, index: Tensor, clock: Clock) -> Tensor:
        """[B, m] rows of the bank for the images `index` [B]."""
        return drawn_rows(len(self.bank.vectors), self.negatives, index, clock)

    def after_step(self, online: Siamese, clock: Clock) -> None:
        super().after_step(online, clock)
        self.normaliser.commit()

    def discard(self) -> None:
        super().discard()
        self.normaliser.discard()


class Normaliser(Memory):
    """Log of the first step's Z, the mean over its micro-batches and processes; it never moves again.

    A logarithm, since at low temperatures Z over- or underflows any float.
    """

    log_z: Tensor  # [1]
    kept: Tensor  # bool: whether a step has been taken

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("log_z", torch.zeros(1))
        self.register_buffer("kept", torch.tensor(False))
        self._staged: list[Tensor] = []

    @torch.no_grad()
    def with_batch(self, log_z: Tensor) -> Tensor:
        """What counts for one batch, [1]: what is kept, or its own over processes. log_z: scalar, this process's."""
        return torch.where(self.kept, self.log_z, log_mean_exp(dist.gather(log_z.reshape(1))).to(self.log_z.dtype))

    def stage(self, log_z: Tensor) -> None:
        """log_z: scalar, of one batch of this process."""
        self._staged.append(log_z.detach())

    @torch.no_grad()
    def commit(self) -> None:
        if self._staged:
            self.log_z.copy_(self.with_batch(log_mean_exp(torch.stack(self._staged))))
            self.kept.fill_(True)
        self.discard()

    def discard(self) -> None:
        self._staged = []


def drawn_rows(images: int, count: int, index: Tensor, clock: Clock) -> Tensor:
    """[B, count] rows of a bank of `images`, uniform, with replacement: the same for an image of `index` [B] in any
    batch of a step."""
    words = rng.bits(rng.NEGATIVES, clock.seed, clock.step, index.cpu().numpy(), count)
    rows = (words * np.uint64(images)) >> np.uint64(32)
    return torch.from_numpy(rows.astype(np.int64)).to(index.device)


def log_mean_exp(x: Tensor) -> Tensor:
    """log(mean(exp(x))) of x: [N], where exp(x) may be no float. Returns a scalar."""
    return torch.logsumexp(x, dim=0) - math.log(len(x))


def unit(x: Tensor) -> Tensor:
    """[B, D] to unit length, outside half precision."""
    return F.normalize(widen(x), dim=1)


@in_float32
def similarities(v: Tensor, rows: Tensor) -> Tensor:
    """v: [B, D].  rows: [B, m, D].  Returns [B, m]."""
    return torch.einsum("bd,bmd->bm", v, rows)
