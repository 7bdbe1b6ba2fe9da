"""Few labels: which images of a training split may be known by their class, where the rest may not.

As many of each class, drawn from (seed, image) alone: the same in every process, and in every command on the same data
with the same seed. With one seed, fewer labels are a part of more.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stopgrad import rng
from stopgrad.contracts import ConfigError, DataError, Images

Labels = NDArray[np.int64]

FEWEST = 16  # watched images; fewer would say nothing
_PERCENT = re.compile(r"(\d+(?:\.\d+)?|\.\d+)\s*%")
_EACH = re.compile(r"(\d+)-per-class")


@dataclass(frozen=True, slots=True)
class Amount:
    """How many labels: a share of them all, or a number of each class."""

    text: str  # as it is typed
    share: float = 0.0  # 0 to 1; 0 where `each` says it
    each: int = 0


def read_amount(text: str) -> Amount:
    """`1%` or `5-per-class`. Raises ConfigError."""
    text = text.strip()
    if found := _PERCENT.fullmatch(text):
        percent = float(found[1])
        if 0 < percent <= 100:
            return Amount(f"{percent:g}%", share=percent / 100)
        raise ConfigError(f"--labels {text!r}: a share of the labels is above 0 % and at most 100 %; type 1% or 10%")
    if found := _EACH.fullmatch(text):
        if int(found[1]) > 0:
            return Amount(f"{int(found[1])}-per-class", each=int(found[1]))
        raise ConfigError(f"--labels {text!r}: at least 1 image of each class is needed; type 1-per-class or more")
    raise ConfigError(f"--labels {text!r}: needs a share such as 1% or 10%, or a number of each class: 5-per-class")


def choose(labels: Labels | None, classes: Sequence[str], amount: Amount, seed: int, source: str) -> Labels:
    """[M], rising: positions in the split whose labels may be known.

    labels: [N], -1 where nobody said.  source: where the images are, for messages. Raises DataError where there are no
    labels, and where a class has fewer than were asked for.
    """
    known = np.flatnonzero(labels >= 0) if labels is not None and len(classes) > 1 else np.zeros(0, np.int64)
    if labels is None or not len(known):
        raise DataError(
            f"data: {source} has no labels to learn from; a folder a class gives them, {source}/CLASS/*.jpg, or "
            "train/CLASS/*.jpg beside test/CLASS/*.jpg, each image exactly one folder down"
        )
    counts = np.bincount(labels[known], minlength=len(classes))  # [C]
    wanted = _of_each(counts, classes, amount) if amount.each else _evenly(counts, amount.share, seed)
    high, low = rng.bits(rng.LABELS, seed, 0, known, 2).T
    order = known[np.lexsort((low, high, labels[known]))]  # class after class, each shuffled
    begins = np.cumsum(counts) - counts
    return np.sort(np.concatenate([order[begin : begin + count] for begin, count in zip(begins, wanted)]))


def _of_each(counts: Labels, classes: Sequence[str], amount: Amount) -> Labels:
    fewest = int(counts.argmin())
    if counts[fewest] < amount.each:
        short = [
            f"{classes[c]} has {counts[c]}" for c in np.argsort(counts, kind="stable")[:5] if counts[c] < amount.each
        ]
        most = int(counts[fewest])
        fix = f"type --labels {most}-per-class or less, " if most else ""
        raise DataError(
            f"--labels {amount.text}: {', '.join(short)} training images; {fix}or a share such as 10%, which takes "
            "what there is"
        )
    return np.full(len(counts), amount.each, np.int64)


def _evenly(counts: Labels, share: float, seed: int) -> Labels:
    """How many of each class: as equal as the set allows, at least 1; where a class ends, the others fill up."""
    total = max(int((counts > 0).sum()), round(share * int(counts.sum())))
    levels = np.arange(counts.max() + 1)
    reached = np.minimum(counts[None], levels[:, None]).sum(axis=1)  # [L], images where each class gives up to a level
    level = int(np.flatnonzero(reached <= total)[-1])
    wanted = np.minimum(counts, level)
    more = [c for c in rng.permutation(len(counts), seed, 1, rng.LABELS) if counts[c] > level]
    wanted[more[: total - int(wanted.sum())]] += 1
    return wanted


def set_aside(subset: Labels, labels: Labels | None, most: int, seed: int) -> tuple[Labels, Labels]:
    """(positions that are trained on, positions that are watched) where the labels of `subset` may be known.

    Watched are at most `most` others with a label, which is looked at and not learnt; where there are too few, a tenth
    of the subset; where that is too few as well, all are both.  labels: [N], of the split.
    """
    assert labels is not None
    others = np.setdiff1d(np.flatnonzero(labels >= 0), subset)
    if (count := min(most, len(others))) >= FEWEST:
        return subset, drawn(others, count, seed)
    if (count := min(most, len(subset) // 10)) >= FEWEST:
        held = drawn(subset, count, seed)
        return np.setdiff1d(subset, held), held
    return subset, subset


def drawn(pool: Labels, count: int, seed: int) -> Labels:
    """`count` of the positions `pool`, rising."""
    return np.sort(pool[rng.permutation(len(pool), seed, 0, rng.WATCH)[:count]])


def listed(images: Images, classes: Sequence[str]) -> bytes:
    """labels.csv: name and class of each image, a line each. Both are escaped, so that no cell is a formula."""
    assert images.labels is not None
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["name", "class"])
    writer.writerows((images.name(i), classes[int(label)]) for i, label in enumerate(images.labels))
    return text.getvalue().encode("utf-8")
