"""Near-duplicates: images whose features nearly point the same way, joined into groups."""

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
    """Groups of two images or more, joined wherever a pair has a cosine of `threshold` or above.

    features: [N, D], of any length, on the device that computes.  threshold: above 0, up to 1. Positions ascend within
    a group, and groups come in the order of their first image; an image is in one group at most. Two images of a group
    may be less alike than `threshold`, where others stand between them. Above a million images (search.EXACT_UP_TO)
    only the 32 nearest of each are looked at, through FAISS. Raises ConfigError.
    """
    if not 0 < threshold <= 1:
        raise ConfigError(f"--threshold must be a cosine above 0 and up to 1, got {threshold}; identical images have 1")
    parent = np.arange(len(features))
    if len(features) > search.EXACT_UP_TO:
        near, index = search.nearest(features, features, NEIGHBOURS, skip_self=True)
        rows, places = (near >= _reached(threshold)).nonzero().numpy().T
        _join(parent, rows, index.numpy()[rows, places])
    else:
        _join_exactly(parent, features, threshold)
    return _groups(parent)


def _join_exactly(parent: NDArray[np.int64], features: Tensor, threshold: float) -> None:
    chunk = max(1, SIMILARITIES // max(1, len(features)))
    with torch.no_grad(), search.in_float32(features.device.type):
        unit = F.normalize(features.float(), dim=1)  # [N, D]
        for start in range(0, len(unit), chunk):
            similarity = unit[start : start + chunk] @ unit[start:].T  # [R, N - start]: a pair is looked at once
            rows, columns = (similarity >= _reached(threshold)).nonzero().cpu().numpy().T + start
            _join(parent, rows, columns)


def _reached(threshold: float) -> float:
    """Identical vectors have a cosine of 1 but for rounding, and a threshold of 1 is to find them."""
    return threshold - 1e-6


def _join(parent: NDArray[np.int64], first: NDArray[np.int64], second: NDArray[np.int64]) -> None:
    """Join the groups of first[i] and second[i], for all i. `parent` [N] holds the first of each image's group."""
    apart = parent[first] != parent[second]
    if not apart.any():
        return

    def root(of: int) -> int:
        while parent[of] != of:
            parent[of] = parent[parent[of]]
            of = int(parent[of])
        return of

    for a, b in zip(*_fewer(first[apart], second[apart])):
        low, high = sorted((root(a), root(b)))
        parent[high] = low
    while (parent[parent] != parent).any():
        parent[:] = parent[parent]


def _fewer(first: NDArray[np.int64], second: NDArray[np.int64]) -> tuple[list[int], list[int]]:
    """Pairs that join the same: each `second` with the first it is paired with, and that with its other firsts.

    Of a collapsed encoder, where everything is a pair, this leaves one pair an image.
    """
    order = np.lexsort((first, second))
    first, second = first[order], second[order]
    begins = np.flatnonzero(np.diff(second, prepend=-1))
    leads = np.repeat(first[begins], np.diff(begins, append=len(second)))
    pairs = np.concatenate([np.stack([first[begins], second[begins]]), np.stack([leads, first])], axis=1)  # [2, M]
    codes = np.unique(pairs[0] << 32 | pairs[1])
    return (codes >> 32).tolist(), (codes & 0xFFFFFFFF).tolist()


def _groups(parent: NDArray[np.int64]) -> list[list[int]]:
    order = np.argsort(parent, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(parent[order])) + 1)
    return [group.tolist() for group in groups if len(group) > 1]
