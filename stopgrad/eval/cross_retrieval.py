"""Retrieval between two kinds of samples: of an image its caption, of a caption its image. Recall at k.

The share of queries that have a right answer among the k nearest by cosine (CLIP, arXiv:2103.00020, and the retrieval
tables of Flickr30k and COCO before it). An image with several captions is answered by any of them, and a caption that
several images have by any of these. Of equally near ones the wrong come first: an encoder that has collapsed to a point
finds nothing. Letters: Q queries, N answers, P right pairs, D channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from stopgrad.eval.search import SIMILARITIES, in_float32

AT = (1, 5, 10)


def ranks(queries: Tensor, answers: Tensor, pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """[Q], how many wrong answers are as near to a query as its nearest right one, or nearer: 0 where it is found.

    queries: [Q, D] and answers: [N, D], of any length, on the device that computes.  pairs: [P, 2], a query and a right
    answer; every query has one or more.
    """
    order = np.argsort(pairs[:, 0], kind="stable")
    query, answer = torch.from_numpy(pairs[order].T.copy())  # [P] each, query by query
    chunk = max(1, SIMILARITIES // len(answers))
    found = []
    with torch.no_grad(), in_float32(queries.device.type):
        answers_t = F.normalize(answers.to(queries.device).float(), dim=1).T  # [D, N]
        for start in range(0, len(queries), chunk):
            rows = F.normalize(queries[start : start + chunk].float(), dim=1) @ answers_t  # [R, N]
            own = slice(*np.searchsorted(query.numpy(), (start, start + len(rows))).tolist())
            right = torch.zeros_like(rows, dtype=torch.bool)
            right[query[own].to(rows.device) - start, answer[own].to(rows.device)] = True
            best = rows.masked_fill(~right, -torch.inf).amax(dim=1, keepdim=True)  # [R, 1]
            found.append(((rows >= best) & ~right).sum(dim=1).cpu())
    return torch.cat(found).numpy().astype(np.int64)


def recall(queries: Tensor, answers: Tensor, pairs: NDArray[np.int64], at: Sequence[int] = AT) -> dict[int, float]:
    """{k: percentage of queries with a right answer among the k nearest}. The rest as of `ranks`.

    Features that are not finite find nothing.
    """
    if not bool(torch.isfinite(queries).all() and torch.isfinite(answers).all()):
        return dict.fromkeys(at, 0.0)
    found = ranks(queries, answers, pairs)
    return {k: 100.0 * float(np.mean(found < k)) for k in at}


def chance(answers: int, pairs: NDArray[np.int64], at: Sequence[int] = AT) -> dict[int, float]:
    """{k: percentage expected of an order drawn at random}: 1 - C(N - r, k) / C(N, k) with r right answers, mean."""
    right = np.unique(pairs[:, 0], return_counts=True)[1].astype(np.float64)  # [Q]
    out = {}
    for k in at:
        missed = np.ones(len(right))
        for place in range(min(k, answers)):
            missed *= np.clip((answers - right - place) / (answers - place), 0, None)
        out[k] = 100.0 * float(1 - missed.mean())
    return out
