"""JPEG files of about 500x375 to two 224-pixel SimSiam views an image, in batches: the first epoch, and one after it.

Ours: open_data, Loader, ViewMaker with two threads and Feed, as a run has them. The first epoch begins with an empty
cache and decodes every file into the packed store before its first view; a later one reads that store. Rivals decode in
every epoch: lightly's LightlyDataset and transform, and torchvision's ImageFolder with v2, each in a DataLoader with
two workers that live through the rounds. The files are in the page cache for all of them.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torchvision.datasets
from torchvision.transforms import v2

from benchmarks import images
from benchmarks.pairs import ROUNDS, Goal, Pair, paired, seconds
from benchmarks.views import (
    SPOKEN,
    Way,
    epoch,
    feed,
    in_turns,
    lightly_transform,
    maker_of,
    torchvision_transform,
    workers,
)
from stopgrad.data import DataConfig, Loader, open_data
from stopgrad.data.pack import PackedImages
from stopgrad.views import PRESETS, ViewMaker

PRESET, SIDE, HEIGHT, WIDTH = "moco_v2", 224, 375, 500
GOAL = Goal(floor=5, target=7)


def measure(
    count: int = 640, batch: int = 64, rounds: int = ROUNDS, rivals: Sequence[str] = ("lightly", "torchvision")
) -> list[Pair]:
    """The first epoch, then a later one, beside each rival; all in turns. count: JPEGs, a multiple of `batch`."""
    with tempfile.TemporaryDirectory(prefix="stopgrad-bench-") as top:
        folder = Path(top) / "photographs"
        what = images.jpeg_folder(folder, count, HEIGHT, WIDTH)
        # Those that fork come first: a worker should not inherit the middle of somebody's threads.
        ways = {name: RIVALS[name](folder, batch) for name in rivals}
        run = Run(folder, batch)
        rates = in_turns(ways | {"first": run.first, "later": run.later}, rounds)
        first = f"{what}; {run.stored()}, which takes {statistics.median(run.opening[1:]):.2f} s of the epoch"
        run.forget()

    def beside(way: str, rival: str, name: str, note: str, goal: Goal | None = None) -> Pair:
        found = [(rate[way], rate[rival]) for rate in rates]
        return paired(f"JPEG to two {SIDE}-px views, {name}", "images/s", found, SPOKEN[rival], goal=goal, note=note)

    goal = {"lightly": GOAL}
    pairs = [beside("first", rival, "first epoch", first, goal.get(rival)) for rival in rivals]
    later = f"{what}; the rivals decode again"
    return pairs + [
        beside("later", rival, "a later epoch", later, GOAL if rival == "lightly" else None) for rival in rivals
    ]


class Run:
    """The data path of a run on `folder`, without a model."""

    def __init__(self, folder: Path, batch: int) -> None:
        self.config, self.batch = DataConfig(source=str(folder)), batch
        self.opening: list[float] = []  # seconds open_data took, each time
        self.cache: tempfile.TemporaryDirectory[str] | None = None
        self.images: PackedImages
        self.maker: ViewMaker

    def first(self) -> float:
        """Images a second of the first epoch, from an empty cache to the last view."""
        self.forget()
        self.cache = tempfile.TemporaryDirectory(prefix="stopgrad-bench-cache-")
        with _cache_in(self.cache.name):
            return self._rate(self._first)

    def later(self) -> float:
        return self._rate(lambda: self._epoch(1))

    def stored(self) -> str:
        """What is in the store that the last `first` made."""
        pack = self.images.pack
        height, width = np.median(pack.sizes, axis=0)
        at = f"{width:.0f}x{height:.0f} (data.max_side {self.config.max_side})"
        return f"decoded and stored at {at}, {pack.pixels.nbytes / 1e6:,.0f} MB"

    def forget(self) -> None:
        if self.cache is not None:
            self.maker.close()
            self.cache.cleanup()

    def _rate(self, work: Callable[[], object]) -> float:
        taken = seconds(work)  # first: `work` may be what finds the images
        return len(self.images) / taken

    def _first(self) -> None:
        self.opening.append(seconds(self._open))
        self.maker = maker_of(PRESET, SIDE)
        self._epoch(0)

    def _open(self) -> None:
        train = open_data(self.config, SIDE).train
        assert isinstance(train, PackedImages)
        # The test's fifth is decoded as well; for as many views as images, they are one split here.
        self.images = PackedImages(train.pack, np.arange(len(train.pack)), labelled=True)

    def _epoch(self, number: int) -> None:
        loader = Loader(self.images, self.batch, seed=0)
        steps = loader.steps_per_epoch
        feed(self.maker, loader, number * steps, (number + 1) * steps)


@contextlib.contextmanager
def _cache_in(folder: str) -> Iterator[None]:
    before = os.environ.get("STOPGRAD_CACHE")
    os.environ["STOPGRAD_CACHE"] = folder
    try:
        yield
    finally:
        os.environ.pop("STOPGRAD_CACHE")
        if before is not None:
            os.environ["STOPGRAD_CACHE"] = before


def _epochs(dataset: Any, batch: int) -> Way:
    loader = workers(dataset, batch)
    return lambda: len(dataset) / seconds(lambda: epoch(loader))


def _lightly(folder: Path, batch: int) -> Way:
    from lightly.data import LightlyDataset

    return _epochs(LightlyDataset(str(folder), transform=lightly_transform(PRESETS[PRESET][0], SIDE)), batch)


def _torchvision(folder: Path, batch: int) -> Way:
    views = torchvision_transform(PRESETS[PRESET][0], SIDE)
    transform = v2.Compose([v2.PILToTensor(), views])
    return _epochs(torchvision.datasets.ImageFolder(str(folder), transform=transform), batch)


RIVALS: dict[str, Callable[[Path, int], Way]] = {"lightly": _lightly, "torchvision": _torchvision}
MEASURES: dict[str, Callable[[], list[Pair]]] = {"jpeg": measure}
