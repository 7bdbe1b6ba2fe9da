"""Weighted k-nearest-neighbour classification: exact, chunked, float32, on the CPU or a GPU.

score(c) = sum over the K nearest bank rows i of class c of exp(cos(x, x_i) / temperature)

Source: InstDisc, arXiv:1805.01978, section 3.4; constants in methods-contrastive.md, 14.1. Differs from DINO's
eval_knn.py: any number of queries (there, fewer than 100 fail), ties are decided the same way everywhere, similarities
are float32 whatever the run's precision (bfloat16 moves 8 % of the neighbours), and the votes are summed in float64
after the largest similarity is taken off, so that no temperature overflows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stopgrad.contracts import Result
from stopgrad.eval.search import exact
from stopgrad.eval.task import Encoded, Task, percent

VOTES = 4096  # queries whose votes are counted at a time: memory only


def knn(
    bank: Tensor,
    bank_labels: NDArray[np.int64],
    queries: Tensor,
    k: Sequence[int],
    temperature: float,
    classes: int,
    *,
    chunk: int | None = None,
) -> dict[int, NDArray[np.int64]]:
    """Predicted class of every query, for each of `k`: {k: [Q]}.

    bank: [N, D] and queries: [Q, D], of any length, on the device that computes.  bank_labels: [N], 0 to classes - 1.
    Above N, k is N. Of equally near rows the first of the bank counts, of equal classes the lowest.
    `chunk`: queries at a time; memory only (by default 34 MB of similarities).
    """
    labels = torch.as_tensor(bank_labels, dtype=torch.long)
    parts: dict[int, list[Tensor]] = {wanted: [] for wanted in k}
    near, index = exact(queries, bank, max(k), chunk=chunk)  # [Q, K] both
    for values, places in zip(torch.split(near.double(), VOTES), torch.split(index, VOTES)):
        weight = ((values - values[:, :1]) / temperature).exp()  # [R, K]
        voters = labels[places]  # [R, K]
        for wanted, found in parts.items():
            votes = weight.new_zeros(len(weight), classes)
            votes.scatter_add_(1, voters[:, :wanted], weight[:, :wanted])
            found.append(votes.argmax(dim=1))
    return {wanted: torch.cat(found).numpy() for wanted, found in parts.items()}


def knn_top1(
    bank: Tensor,
    bank_labels: NDArray[np.int64],
    queries: Tensor,
    query_labels: NDArray[np.int64],
    k: int = 20,
    temperature: float = 0.1,
) -> float:
    """Percentage of queries whose class the kNN names right."""
    classes = int(bank_labels.max()) + 1
    return percent(knn(bank, bank_labels, queries, (k,), temperature, classes)[k], query_labels)


def run(encoded: Encoded, task: Task) -> list[Result]:
    if encoded.bank is None or encoded.queries is None or task.bank_labels is None or task.query_labels is None:
        return []
    bank, queries = encoded.bank.to(task.device), encoded.queries.to(task.device)
    config, n, results = task.config, len(bank), []
    predictions = knn(bank, task.bank_labels, queries, config.k, config.temperature, int(task.bank_labels.max()) + 1)
    for position, k in enumerate(config.k):
        name = "knn_top1" if position == 0 else f"knn_top1_k{k}"
        clamped = f" (the bank has {n}: k={n})" if k > n else ""
        how = f"kNN, cosine, k={k}{clamped}, temperature={config.temperature:g}, bank: all {n} training {task.many}"
        results.append(task.result(name, percent(predictions[k], task.query_labels), len(queries), how))
    return results
