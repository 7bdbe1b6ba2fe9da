"""Texts as the words they have: what one gets without a network, the baseline beside a random encoder.

How often each token is there, whatever its place; what fills up, begins, ends or is unknown counts for nothing. With
the weights of `inverse_frequency` this is tf-idf (as scikit-learn has it, smoothed), whose cosines kNN and retrieval
compare.
"""

from __future__ import annotations

import torch
from torch import Tensor

MOST = 4096  # numbers of a text; of a larger vocabulary, tokens so far apart share one


def bag_of_words(ids: Tensor, size: int, hidden: tuple[int, ...]) -> Tensor:
    """ids: [B, L], of a vocabulary of `size` -> [B, D], float32, on the CPU: how often each token is there.

    hidden: ids that do not count.
    """
    width = min(size, MOST)
    ids = ids.cpu()
    counts = ~torch.isin(ids, torch.tensor(hidden, dtype=ids.dtype))  # [B, L]
    out = torch.zeros(len(ids), width)
    return out.scatter_add_(1, ids % width, counts.float())


def inverse_frequency(bank: Tensor) -> tuple[Tensor, Tensor]:
    """(shift, scale), [D] each, of counts [N, D]: nothing, and ln((1 + N) / (1 + texts that have the token)) + 1."""
    having = (bank > 0).sum(dim=0)
    return torch.zeros_like(bank[0]), ((1 + len(bank)) / (1 + having)).log() + 1
