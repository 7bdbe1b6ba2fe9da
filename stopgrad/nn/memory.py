"""What a method remembers from step to step: a queue of keys, a bank of one row an image, a moving average.

All three work alike. `stage` is called in a forward, any number of times a step (views, micro-batches), and changes no
buffer; `commit` is called once after the optimiser's step, gathers what was staged over processes and writes it, so
that all processes hold the same; `discard` is called instead for a step that was not taken. What is staged belongs to
the step and is never saved; everything else is a buffer. Gathered parts are put in the order one process with the whole
batch would have staged them in: call by call, and within a call by rank.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stopgrad import dist
from stopgrad.contracts import ConfigError


class Memory(nn.Module, ABC):
    """State that moves once an optimiser step."""

    @abstractmethod
    def commit(self) -> None:
        """The step was taken: write what was staged, if anything was."""

    @abstractmethod
    def discard(self) -> None:
        """The step was not taken: forget what was staged."""


class Queue(Memory):
    """The last `size` keys, oldest overwritten first (MoCo, arXiv:1911.05722, section 3.1). Begins with random rows.

    `keys` is the live buffer: a forward may use it as it is, without a clone. `commit` writes into it in place, but
    after the step's backward, which is the last to read it; done earlier, autograd raises instead of going wrong.
    """

    keys: Tensor  # [K, D], unit rows as long as unit rows are staged
    written: Tensor  # int64, keys written since the run began

    def __init__(self, size: int, dim: int, seed: int) -> None:
        super().__init__()
        if size < 1:
            raise ConfigError(f"a queue needs at least 1 key, got {size}; MoCo's has 65536")
        self.register_buffer("keys", _unit_rows(size, dim, seed))
        self.register_buffer("written", torch.zeros((), dtype=torch.long))
        self._staged: list[Tensor] = []

    @property
    def cursor(self) -> Tensor:
        """int64, the row that the next key goes into."""
        return self.written % len(self.keys)

    def filled(self) -> int:
        """How many rows are keys and no longer the random ones of the start. Waits for the device."""
        return min(int(self.written), len(self.keys))

    def stage(self, keys: Tensor) -> None:
        """keys: [B, D] of this process, equally many on each. Raises ConfigError for more in a step than fit."""
        own = sum(len(part) for part in self._staged) + len(keys)
        if own * dist.world() > len(self.keys):
            raise ConfigError(
                f"a queue of {len(self.keys)} keys is given {own * dist.world()} in one step: some would be lost "
                f"as soon as written; use a queue of {own * dist.world()} or more, or a smaller batch"
            )
        self._staged.append(keys.detach())

    @torch.no_grad()
    def commit(self) -> None:
        if not self._staged:
            return
        keys = _gathered(self._staged)
        slots = (self.cursor + torch.arange(len(keys), device=keys.device)) % len(self.keys)
        self.keys[slots] = keys.to(self.keys.dtype)
        self.written += len(keys)
        self.discard()

    def discard(self) -> None:
        self._staged = []


class Bank(Memory):
    """One unit row an image, a moving average of its embeddings (InstDisc, arXiv:1805.01978, section 3.1).

    A row becomes norm(momentum * old + (1 - momentum) * new): 0.5 in the released code. An image that is staged twice
    in a step counts once, with the row that was staged last.
    """

    vectors: Tensor  # [N, D]

    def __init__(self, images: int, dim: int, seed: int, momentum: float = 0.5) -> None:
        super().__init__()
        if images < 1:
            raise ConfigError(f"a bank needs at least 1 image, got {images}; it has a row for each that is trained on")
        self.register_buffer("vectors", _unit_rows(images, dim, seed))
        self.momentum = momentum
        self._staged: list[tuple[Tensor, Tensor]] = []

    def rows(self, index: Tensor) -> Tensor:
        """index: int64 of any shape [...] -> [..., D]; a copy, so `commit` does not reach what a graph keeps."""
        return self.vectors[index]

    def stage(self, index: Tensor, rows: Tensor) -> None:
        """index: [B], positions of the images.  rows: [B, D], unit rows of this process; equally many on each."""
        assert index.shape == rows.shape[:1]
        self._staged.append((index, rows.detach()))

    @torch.no_grad()
    def commit(self) -> None:
        if not self._staged:
            return
        touched, new = _last_of_each(self._staged)
        old = self.vectors[touched]
        mixed = self.momentum * old + (1 - self.momentum) * new.to(old.dtype)
        self.vectors[touched] = F.normalize(mixed, dim=1)
        self.discard()

    def discard(self) -> None:
        self._staged = []


class Slots(Memory):
    """A vector an image, as it is written, and which images have been visited.

    An image that is staged twice in a step counts once, with the vector that was staged last.  seed: of random unit
    rows, which count as visited; None: rows of zeros that don't.
    """

    vectors: Tensor  # [N, D]
    seen: Tensor  # [N], bool

    def __init__(self, images: int, dim: int, seed: int | None = None) -> None:
        super().__init__()
        if images < 1:
            raise ConfigError(f"a slot an image needs at least 1 image, got {images}")
        self.register_buffer("vectors", torch.zeros(images, dim) if seed is None else _unit_rows(images, dim, seed))
        self.register_buffer("seen", torch.full((images,), seed is not None))
        self._staged: list[tuple[Tensor, Tensor]] = []

    def rows(self, index: Tensor) -> Tensor:
        """index: int64, [B] -> [B, D]; a copy."""
        return self.vectors[index]

    def visited(self, index: Tensor) -> Tensor:
        """index: int64, [B] -> bool, [B]"""
        return self.seen[index]

    def stage(self, index: Tensor, rows: Tensor) -> None:
        """index: [B], positions of the images.  rows: [B, D] of this process; equally many on each."""
        assert index.shape == rows.shape[:1]
        self._staged.append((index, rows.detach()))

    @torch.no_grad()
    def commit(self) -> None:
        if not self._staged:
            return
        touched, rows = _last_of_each(self._staged)
        self.vectors[touched] = rows.to(self.vectors.dtype)
        self.seen[touched] = True
        self.discard()

    def discard(self) -> None:
        self._staged = []


class MovingAverage(Memory):
    """value <- momentum * value + (1 - momentum) * mean over the step's batches and processes.

    DINO's centre begins at 0, the correlation matrices of DirectPred and UniGrad with the first batch's
    (`first_batch_initialises`). Batches of a step count equally.
    """

    value: Tensor
    counts: Tensor  # bool: whether `value` is to be averaged with, or replaced by the first batch's

    def __init__(self, shape: Sequence[int], momentum: float, first_batch_initialises: bool) -> None:
        super().__init__()
        self.register_buffer("value", torch.zeros(*shape))
        self.register_buffer("counts", torch.tensor(not first_batch_initialises))
        self.momentum = momentum
        self._sum: Tensor | None = None  # one tensor, however many micro-batches: a 2048 x 2048 matrix is 17 MB
        self._batches = 0

    @torch.no_grad()
    def with_batch(self, x: Tensor) -> Tensor:
        """What `value` would be after this batch alone; nothing is stored. x: as in `stage`."""
        return self._moved(dist.mean(self._as_value(x)))

    @torch.no_grad()
    def stage(self, x: Tensor) -> None:
        """x: of `value`'s shape, the mean over one batch of this process."""
        x = self._as_value(x)
        self._sum = x.clone() if self._sum is None else self._sum + x
        self._batches += 1

    @torch.no_grad()
    def commit(self) -> None:
        if self._sum is None:
            return
        self.value.copy_(self._moved(dist.mean(self._sum / self._batches)))
        self.counts.fill_(True)
        self.discard()

    def discard(self) -> None:
        self._sum, self._batches = None, 0

    def _moved(self, mean: Tensor) -> Tensor:
        return torch.where(self.counts, self.momentum * self.value + (1 - self.momentum) * mean, mean)

    def _as_value(self, x: Tensor) -> Tensor:
        assert x.shape == self.value.shape
        return x.detach().to(self.value.dtype)


def _unit_rows(count: int, dim: int, seed: int) -> Tensor:
    """[count, dim] random directions; the same for a seed, so that processes agree without talking."""
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(count, dim, generator=generator), dim=1)


def _last_of_each(staged: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """(positions [P], each once, ascending; the row staged last for each [P, D]) over all processes."""
    index = _gathered([index for index, _ in staged])  # [world * B]
    rows = _gathered([rows for _, rows in staged])
    touched, place = torch.unique(index, return_inverse=True)
    # a maximum does not depend on the order a GPU takes: writing duplicates would
    order = torch.arange(len(index), device=index.device)
    last = torch.zeros_like(touched).scatter_reduce_(0, place, order, "amax", include_self=False)
    return touched, rows[last]


def _gathered(parts: list[Tensor]) -> Tensor:
    """What all processes staged, [world * B, ...]: part by part, each by rank."""
    sizes = [len(part) for part in parts]
    every = dist.gather(torch.cat(parts))
    by_rank = [torch.split(whole, sizes) for whole in every.chunk(dist.world())]
    return torch.cat([own[i] for i in range(len(parts)) for own in by_rank])
