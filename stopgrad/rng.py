"""Random numbers that depend on nothing but where they are used: a counter goes in, a number comes out.

Philox-4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"), vectorised in numpy integers, so
that image i of epoch e has the same views whatever the batch, the thread, the process or the machine. There is no
state to save or to lose: resuming, re-sharding and skipping need nothing.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Purposes: numbers drawn for one are independent of those drawn for another.
ORDER, VIEWS, SCENES, WATCH, NEGATIVES, EVAL, SHUFFLE, PATCHES, LABELS, CUT_MIX = 1, 2, 3, 4, 5, 6, 7, 8, 9, 10

_M0, _M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_W0, _W1 = 0x9E3779B9, 0xBB67AE85
_LOW, _SHIFT = np.uint64(0xFFFFFFFF), np.uint64(32)
_MASK64 = (1 << 64) - 1
_BLOCK = 1 << 16


def philox(counter: NDArray[np.uint64], key: int) -> NDArray[np.uint64]:
    """Ten rounds of Philox-4x32. counter: [..., 4], each below 2**32.  key: 64 bits.  Returns [..., 4] below 2**32."""
    c0, c1, c2, c3 = (counter[..., i] for i in range(4))
    k0, k1 = key & 0xFFFFFFFF, (key >> 32) & 0xFFFFFFFF
    for _ in range(10):
        p0, p1 = c0 * _M0, c2 * _M1
        c0, c1, c2, c3 = (
            (p1 >> _SHIFT) ^ c1 ^ np.uint64(k0),
            p1 & _LOW,
            (p0 >> _SHIFT) ^ c3 ^ np.uint64(k1),
            p0 & _LOW,
        )
        k0, k1 = (k0 + _W0) & 0xFFFFFFFF, (k1 + _W1) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3], axis=-1)


def key(*parts: int) -> int:
    """64 bits that differ whenever a part differs: splitmix64 over the parts."""
    state = 0
    for part in parts:
        state = (state ^ (part & _MASK64)) + 0x9E3779B97F4A7C15 & _MASK64
        state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 & _MASK64
        state = (state ^ (state >> 27)) * 0x94D049BB133111EB & _MASK64
        state ^= state >> 31
    return state


def bits(
    purpose: int, seed: int, epoch: int, index: NDArray[np.int64], draws: int, view: int = 0
) -> NDArray[np.uint64]:
    """[B, draws] whole numbers below 2**32 for the samples `index` [B]; the same for a sample in any batch."""
    blocks = -(-draws // 4)
    counter = np.zeros((len(index), blocks, 4), dtype=np.uint64)
    wide = index.astype(np.uint64)
    counter[:, :, 0] = np.arange(blocks, dtype=np.uint64)
    counter[:, :, 1] = np.uint64(view)
    counter[:, :, 2] = (wide & _LOW)[:, None]
    counter[:, :, 3] = (wide >> _SHIFT)[:, None]
    return philox(counter, key(purpose, seed, epoch)).reshape(len(index), -1)[:, :draws]


def uniform(
    purpose: int, seed: int, epoch: int, index: NDArray[np.int64], draws: int, view: int = 0
) -> NDArray[np.float64]:
    """[B, draws] in [0, 1), exact multiples of 2**-32, for the samples `index` [B]."""
    return bits(purpose, seed, epoch, index, draws, view).astype(np.float64) * 2.0**-32


def permutation(n: int, seed: int, epoch: int, purpose: int = ORDER) -> NDArray[np.int64]:
    """[n], each position once: the order of an epoch, the same for any number of processes."""
    words = np.empty(n, dtype=np.uint64)
    for start in range(0, n, _BLOCK):  # Philox needs 160 bytes a number while it works
        index = np.arange(start, min(n, start + _BLOCK), dtype=np.int64)
        high, low = bits(purpose, seed, epoch, index, 2).T
        words[start : start + len(index)] = (high << _SHIFT) | low
    return np.argsort(words, kind="stable").astype(np.int64)


def torch_seed(*parts: int) -> int:
    """A seed for a torch.Generator, below 2**63."""
    return key(*parts) >> 1
