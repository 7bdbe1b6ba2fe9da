"""Near-duplicates: images whose features nearly point the same way, in groups around their first."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from stopgrad.contracts import ConfigError
from stopgrad.eval import search

SIMILARITIES = 2**22  # held at a time; a collapsed encoder makes every one of them a pair
NEIGHBOURS = 32  # looked at for each image where FAISS searches


def near_duplicates(features: Tensor, threshold: float) -> list[list[int]]:
    """Groups of two images or more, each with a cosine of `threshold` or above to the first of its group.

    features: [N, D], of any length, on the device that computes.  threshold: above 0, up to 1. An image joins the first
    group that takes it, so a chain of small changes does not become one group. Positions ascend within a group, and
    groups come in the order of their first image. Above a million images (search.EXACT_UP_TO) only the 32 nearest of
    each are looked at, through FAISS. Raises ConfigError.
    """
    check_threshold(threshold)
    leader = np.arange(len(features))
    if len(features) > search.EXACT_UP_TO:
        near, index = search.nearest(features, features, NEIGHBOURS, skip_self=True)
        rows, places = (near >= _reached(threshold)).nonzero().numpy().T
        pairs = np.sort(np.stack([rows, index.numpy()[rows, places]], axis=1), axis=1)  # [M, 2], the lower first
        for first, second in np.unique(pairs, axis=0):
            _follow(leader, int(first), np.array([second]))
    else:
        _follow_exactly(leader, features, threshold)
    return _groups(leader)


def check_threshold(threshold: float) -> None:
    """Raises ConfigError for what is no cosine to look for."""
    if not 0 < threshold <= 1:
        raise ConfigError(f"--threshold must be a cosine above 0 and up to 1, got {threshold}; identical images have 1")


def _follow_exactly(leader: NDArray[np.int64], features: Tensor, threshold: float) -> None:
    chunk = max(1, SIMILARITIES // max(1, len(features)))
    with torch.no_grad(), search.in_float32(features.device.type):
        unit = F.normalize(features.float(), dim=1)  # [N, D]
        for start in range(0, len(unit), chunk):
            similarity = unit[start : start + chunk] @ unit[start:].T  # [R, N - start]: a pair is looked at once
            near = (similarity >= _reached(threshold)).cpu().numpy()
            for row in np.flatnonzero(near.sum(axis=1) > 1):
                places = start + np.flatnonzero(near[row])
                _follow(leader, start + int(row), places[places > start + row])


def _reached(threshold: float) -> float:
    """Identical vectors have a cosine of 1 but for rounding, and a threshold of 1 is to find them."""
    return threshold - 1e-6


def _follow(leader: NDArray[np.int64], first: int, others: NDArray[np.int64]) -> None:
    """`others` that are in no group yet join `first`, unless it follows somebody itself.

    Called in the order of `first`, so none of the others leads anybody.
    """
    if leader[first] == first:
        free = others[leader[others] == others]
        leader[free] = first


def _groups(leader: NDArray[np.int64]) -> list[list[int]]:
    order = np.argsort(leader, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(leader[order])) + 1)
    return [group.tolist() for group in groups if len(group) > 1]
