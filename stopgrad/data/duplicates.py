"""Which images are copies of each other: byte for byte by their content, nearly by a perceptual hash.

The hash is 64 signs of the lowest frequencies of a small gray picture (pHash: DCT of 32 x 32, the 8 x 8 corner without
its mean). Pairs whose hashes differ in at most DISTANCE bits are found by banding: cut into DISTANCE + 1 pieces, such
hashes agree in one piece at least, so only images that share a piece are compared. Smooth pictures of different things
can share a hash, hence a pair also has to look alike in a small colour thumbnail, whatever its brightness and contrast.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Groups = list[NDArray[np.int64]]  # positions of the images of each group, ascending; the largest group first

DISTANCE = 6  # bits of 64 that the hashes of near duplicates may differ in
ALIKE = 0.96  # least correlation of their thumbnails
_SIDE, _CORNER, _THUMB = 32, 8, 8  # pixels, frequencies, pixels
_BANDS = 4  # OpenCV averages no more at once, and the first ones tell images apart
_CHUNK = 1 << 22  # candidate pairs looked at together
_COMPARED = 1 << 15  # pairs whose thumbnails are compared together
MOST_PAIRS = 4_000_000  # near pairs that are held
MOST_CANDIDATES = 500_000_000  # pairs that are compared: half a minute


@dataclass(frozen=True, slots=True)
class Looks:
    """What images look like from afar."""

    hashes: NDArray[np.uint64]  # [N]
    thumbs: NDArray[np.float32]  # [N, T], of mean 0 and length 1, or all 0 where the image is of one colour

    @property
    def flat(self) -> NDArray[np.bool_]:
        """[N], images of one colour: they look like nothing, and so like no other."""
        return np.asarray(~self.thumbs.any(axis=1))


def looks(images: Iterable[NDArray[Any]]) -> Looks:
    """Hash and thumbnail of each image [H, W, C] of one number of channels, whatever its depth."""
    hashes, thumbs = [], []
    for image in images:
        pixels = _small(image)  # [32, 32, at most 4]
        hashes.append(_hash(pixels))
        thumbs.append(_thumb(pixels))
    return Looks(np.array(hashes, np.uint64), np.array(thumbs, np.float32).reshape(len(hashes), -1))


def exact_groups(content: NDArray[np.uint64]) -> Groups:
    """Groups of two or more positions of equal `content` [N]."""
    order = np.argsort(content, kind="stable")
    starts = np.flatnonzero(np.diff(content[order], prepend=content[order][:1] + np.uint64(1)))
    return _largest_first(group for group in np.split(order, starts) if len(group) > 1)


def near_groups(found: Looks, distance: int = DISTANCE, alike: float = ALIKE) -> Groups:
    """Groups of two or more images that look alike. Every member is a near duplicate of the group's first-found image,
    so that a chain of small steps does not join what differs. Exact copies are near duplicates too.

    Where nearly everything looks alike (a camera that stands still) there are more pairs than can be held: then fewer
    bits may differ, and only the closest are found.
    """
    usable = np.flatnonzero(~found.flat)
    keys, first, of_key = np.unique(found.hashes[usable], return_index=True, return_inverse=True)
    edges = None
    while edges is None:  # ends where no bit may differ, at the latest
        pairs = near_pairs(keys, distance)
        edges = None if pairs is None else _beside(pairs, usable, first, of_key)
        distance -= 1
    good = [_alike(found.thumbs, edges[at : at + _COMPARED], alike) for at in range(0, len(edges), _COMPARED)]
    edges = np.unique(np.sort(edges[np.concatenate([*good, np.empty(0, np.bool_)])], axis=1), axis=0)
    return _led(np.concatenate([edges, edges[:, ::-1]]), len(found.hashes))


def _beside(
    pairs: NDArray[np.int64], usable: NDArray[np.int64], first: NDArray[np.int64], of_key: NDArray[np.int64]
) -> NDArray[np.int64] | None:
    """[E, 2]: the first image of each hash with all others of its own and of the near hashes; None: too many."""
    keys = np.arange(len(first))
    linked = np.concatenate([pairs, pairs[:, ::-1], np.stack([keys, keys], axis=1)])  # [L, 2], hashes
    sizes = np.bincount(of_key, minlength=len(first))
    lengths = sizes[linked[:, 1]]
    if lengths.sum() > MOST_PAIRS + len(usable):
        return None
    members, begins = np.argsort(of_key, kind="stable"), np.cumsum(sizes) - sizes
    within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    others = members[np.repeat(begins[linked[:, 1]], lengths) + within]
    edges = np.stack([np.repeat(first[linked[:, 0]], lengths), others], axis=1)
    return np.asarray(usable[edges[edges[:, 0] != edges[:, 1]]])


def _alike(thumbs: NDArray[np.float32], edges: NDArray[np.int64], least: float) -> NDArray[np.bool_]:
    """[E], whether the thumbnails of two images look alike too."""
    return np.asarray(np.einsum("et,et->e", thumbs[edges[:, 0]], thumbs[edges[:, 1]]) >= least)


def _led(edges: NDArray[np.int64], count: int) -> Groups:
    """Groups around those with the most others beside them. edges [E, 2]: both ways."""
    beside = edges[np.lexsort((edges[:, 1], edges[:, 0]))]
    degrees = np.bincount(beside[:, 0], minlength=count)
    ends = np.cumsum(degrees)
    taken = np.zeros(count, np.bool_)
    groups = []
    for leader in np.lexsort((np.arange(count), -degrees))[: np.count_nonzero(degrees)].tolist():
        if taken[leader]:
            continue
        others = beside[ends[leader] - degrees[leader] : ends[leader], 1]
        others = others[~taken[others]]
        if len(others):
            group = np.sort(np.append(others, leader))
            taken[group] = True
            groups.append(group)
    return _largest_first(groups)


def near_pairs(hashes: NDArray[np.uint64], distance: int) -> NDArray[np.int64] | None:
    """Positions [P, 2], left below right, of all pairs of the different `hashes` [N] that differ in at most `distance`
    bits; None where they are more than MOST_PAIRS, or more than MOST_CANDIDATES share a piece.
    """
    edges = np.linspace(0, 64, distance + 2).astype(int)
    masks = [np.uint64(((1 << (high - low)) - 1) << low) for low, high in pairwise(edges.tolist())]
    if sum(_candidates(hashes & mask) for mask in masks) > MOST_CANDIDATES:
        return None
    found, count = [np.empty((0, 2), np.int64)], 0
    for number, mask in enumerate(masks):
        for left, right in _sharing(hashes & mask):
            differ = hashes[left] ^ hashes[right]
            close = np.bitwise_count(differ) <= distance
            for earlier in masks[:number]:  # found already, by that piece
                close &= (differ & earlier) != 0
            found.append(np.stack([left[close], right[close]], axis=1))
            count += len(found[-1])
            if count > MOST_PAIRS:
                return None
    pairs = np.sort(np.concatenate(found), axis=1)
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


def _candidates(key: NDArray[np.uint64]) -> int:
    """How many pairs have an equal key."""
    sizes = np.unique(key, return_counts=True)[1]
    return int((sizes * (sizes - 1) // 2).sum())


def _sharing(key: NDArray[np.uint64]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """All pairs of positions with an equal key, in pieces of bounded size."""
    order = np.argsort(key, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(key[order])) + 1, len(key))
    end_of = np.repeat(ends, np.diff(ends, prepend=0))  # [N], where each one's run ends in the order
    here = np.arange(len(key))
    for shift in range(1, len(key)):
        here = here[here + shift < end_of[here]]
        if not len(here):
            return
        for start in range(0, len(here), _CHUNK):
            part = here[start : start + _CHUNK]
            yield order[part], order[part + shift]


def _small(image: NDArray[Any]) -> NDArray[np.float32]:
    """[H, W, C] -> [32, 32, at most 4], averaged."""
    image = image[:, :, :_BANDS]
    height, width, channels = image.shape
    if height > 8 * _SIDE and width > 8 * _SIDE:  # every second or third pixel is enough, and much is read
        image = image[:: height // (4 * _SIDE), :: width // (4 * _SIDE)]
    small = np.asarray(cv2.resize(np.ascontiguousarray(image), (_SIDE, _SIDE), interpolation=cv2.INTER_AREA))
    return small.astype(np.float32).reshape(_SIDE, _SIDE, channels)


def _hash(pixels: NDArray[np.float32]) -> int:
    corner = np.asarray(cv2.dct(pixels.mean(axis=2)))[:_CORNER, :_CORNER].ravel()  # [64]
    bits = corner > np.median(corner[1:])
    bits[0] = False  # the mean says how bright it is
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def _thumb(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    step = _SIDE // _THUMB
    thumb = pixels.reshape(_THUMB, step, _THUMB, step, -1).mean(axis=(1, 3)).ravel()
    centred = thumb - thumb.mean()
    flat = np.ptp(pixels.reshape(_SIDE * _SIDE, -1), axis=0).max() == 0
    length = np.linalg.norm(centred)
    return np.zeros_like(centred) if flat or length == 0 else centred / length


def _largest_first(groups: Iterable[NDArray[np.int64]]) -> Groups:
    return sorted(groups, key=lambda group: (-len(group), int(group[0])))
