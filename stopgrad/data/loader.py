"""The order in which a run sees its images, and parts of a split.

The order of an epoch is a counter-based permutation of (seed, epoch): step -> images is a pure function, so that
resuming, skipping and a change of ranks need no state (reliability.md, rows 11 and 13). A global batch is cut from
the order first and sliced by rank second, hence the sequence of global batches is the same for any number of
processes. The last N mod batch_size images of an epoch's order are left out; another epoch leaves out others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stopgrad import rng
from stopgrad.contracts import Batch, ConfigError, DataError, Images


class Subset:
    """The images of a split at `index` [M], as a split of their own; labels follow."""

    def __init__(self, images: Images, index: NDArray[np.int64]) -> None:
        self.images = images
        self.index = np.asarray(index, dtype=np.int64)
        self.labels = None if images.labels is None else images.labels[self.index]

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, index: int) -> NDArray[Any]:
        return self.images[int(self.index[index])]

    def name(self, index: int) -> str:
        return self.images.name(int(self.index[index]))

    def take(self, index: NDArray[np.int64]) -> Sequence[NDArray[Any]]:
        return self.images.take(self.index[index])


def hold_out(images: Images, count: int, seed: int) -> tuple[Subset, Subset]:
    """Sets `count` images aside: (kept, held), both in the split's own order, the same for the same seed.

    Raises DataError where nothing would be left to keep.
    """
    if not 0 < count < len(images):
        raise DataError(
            f"held-out part: {count} of {len(images)} images can't be set aside; needed is a number from 1 to "
            f"{len(images) - 1}, or more images"
        )
    order = rng.permutation(len(images), seed, epoch=0, purpose=rng.WATCH)
    return Subset(images, np.sort(order[count:])), Subset(images, np.sort(order[:count]))


class Loader:
    """Global batch number `step`, this rank's part of it. No state: everything follows from (seed, step).

    batch_size is the global one and is shared out evenly: rank r of `world` gets positions r*B/world to (r+1)*B/world.
    Raises ConfigError where it can't be, DataError where the split has fewer images than one batch.
    """

    def __init__(self, images: Images, batch_size: int, seed: int, *, rank: int = 0, world: int = 1) -> None:
        if batch_size < 1 or batch_size % world:
            near = max(world, batch_size - batch_size % world)
            raise ConfigError(
                f"batch_size: {batch_size} images can't be shared evenly by {world} processes; needed is a multiple of "
                f"{world}, such as {near}"
            )
        if len(images) < batch_size:
            usable = len(images) - len(images) % world
            fix = f"type --batch-size {usable} or less, or add images" if usable else "add images"
            raise DataError(
                f"data: {len(images)} training images are fewer than one batch of {batch_size}; the largest usable "
                f"batch is {usable}: {fix}"
            )
        self.images = images
        self.batch_size = batch_size
        self.seed = seed
        self.rank, self.world = rank, world
        self.steps_per_epoch = len(images) // batch_size
        self._orders: dict[int, NDArray[np.int64]] = {}  # a cache, of the two epochs that prefetching can straddle

    def order(self, epoch: int) -> NDArray[np.int64]:
        """[N], the order of an epoch: each position of the split once."""
        known = self._orders
        if epoch not in known:
            order = rng.permutation(len(self.images), self.seed, epoch)
            # Replaced whole, never edited: threads that prefetch may be reading the old one.
            self._orders = {epoch: order} | {e: o for e, o in known.items() if abs(e - epoch) == 1}
            return order
        return known[epoch]

    def index(self, step: int) -> NDArray[np.int64]:
        """[B / world], the positions this rank reads at `step`, counted from 0 over all epochs."""
        epoch, within = divmod(step, self.steps_per_epoch)
        share = self.batch_size // self.world
        start = within * self.batch_size + self.rank * share
        return self.order(epoch)[start : start + share]

    def batch(self, step: int) -> Batch:
        """This rank's slice of global batch number `step`."""
        index = self.index(step)
        return Batch(samples=self.images.take(index), index=index, epoch=step // self.steps_per_epoch)
