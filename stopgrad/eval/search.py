"""The nearest vectors by cosine: exact in torch, through FAISS where a bank has more than a million.

The exact search is chunked, float32 on a CPU or a GPU, and decides ties by position, so that its answer depends on
nothing but the vectors. Past EXACT_UP_TO the bank is divided into cells (FAISS, IVF) and the PROBED cells nearest to a
query are searched: vectors that nearly coincide share a cell and are found, far neighbours may be missed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from stopgrad.contracts import ConfigError

EXACT_UP_TO = 1_000_000  # bank vectors; above it FAISS searches
SIMILARITIES = 2**23  # held at a time: 34 MB; four times as many are no faster
PROBED = 64  # cells a query looks into; of 4 * sqrt(N), so a bank of a few thousand is searched whole
POINTS_PER_CELL = 39  # below it FAISS's k-means warns that cells are not determined by the data


def nearest(
    queries: Tensor, bank: Tensor, k: int, *, skip_self: bool = False, chunk: int | None = None
) -> tuple[Tensor, Tensor]:
    """The k bank vectors nearest to each query: (cosine similarity, position in the bank), both [Q, K], on the CPU.

    queries: [Q, D] and bank: [N, D], of any length, on the device that computes.  skip_self: the queries are the bank,
    and a vector is not its own neighbour.  K is k, or what the bank has where that is less. Nearest first, and of
    equally near vectors the first of the bank.  chunk: queries at a time; memory only (by default 34 MB).
    Raises ConfigError where there is no bank, or more than EXACT_UP_TO vectors and no FAISS.
    """
    if len(bank) - int(skip_self) < 1 or k < 1:
        raise ConfigError(f"neighbours: {k} of {len(bank)} images can't be found; at least one of two images is needed")
    if skip_self and len(queries) != len(bank):
        raise ConfigError(f"neighbours: skip_self needs the bank as queries, got {len(queries)} and {len(bank)}")
    if len(bank) > EXACT_UP_TO:
        return _through_faiss(queries, bank, k, skip_self)
    return exact(queries, bank, k, skip_self=skip_self, chunk=chunk)


def exact(
    queries: Tensor, bank: Tensor, k: int, *, skip_self: bool = False, chunk: int | None = None
) -> tuple[Tensor, Tensor]:
    """`nearest` without FAISS, however large the bank is."""
    k = min(k, len(bank) - int(skip_self))
    chunk = chunk or max(1, SIMILARITIES // len(bank))
    near, index = [], []
    with torch.no_grad(), in_float32(queries.device.type):
        bank_t = F.normalize(bank.to(queries.device).float(), dim=1).T  # [D, N]
        for start, rows in enumerate(torch.split(F.normalize(queries.float(), dim=1), chunk)):
            similarity = rows @ bank_t  # [R, N]
            if skip_self:
                similarity.diagonal(start * chunk).fill_(-torch.inf)
            values, found = _largest(similarity, k)
            near.append(values.cpu())
            index.append(found.cpu())
    if not near:
        return torch.zeros(0, k), torch.zeros(0, k, dtype=torch.long)
    return torch.cat(near), torch.cat(index)


def _largest(similarity: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of each row of [R, N] and where they stand: [R, k] both, descending, ties by position."""
    values, index = _top(similarity, min(k + 1, similarity.shape[1]))
    # topk is free to choose among equals at its border; a collapsed encoder has nothing but equals.
    for row in (values[:, k - 1] == values[:, -1]).nonzero()[:, 0].tolist() if values.shape[1] > k else ():
        above = (similarity[row] > values[row, -1]).nonzero()[:, 0]
        level = (similarity[row] == values[row, -1]).nonzero()[:, 0]
        index[row, :k] = torch.cat([above, level])[:k]
    index = index[:, :k].sort(dim=1).values
    values, order = similarity.gather(1, index).sort(dim=1, descending=True, stable=True)
    return values, index.gather(1, order)


def _top(similarity: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """`similarity.topk(k, dim=1)` in about half the time, where k is a small part of the row.

    The columns are dealt out to `groups`. The k largest of a row stand in the k groups with the largest maxima: no
    value outside of them is above the least of these k maxima, which are k values themselves. So topk looks through
    the maxima, then through k groups; neighbouring groups lie side by side, which makes the maxima cheap.
    """
    rows, count = similarity.shape
    size = round((count / k) ** 0.5)  # of a group: about as many maxima as values in the chosen groups
    if size < 4:
        return similarity.topk(k, dim=1)
    groups = count // size
    dealt = groups * size
    maxima = similarity[:, :dealt].view(rows, size, groups).amax(dim=1)  # [R, groups]
    chosen = maxima.topk(k, dim=1, sorted=False).indices  # [R, k]
    of_group = torch.arange(0, dealt, groups, device=chosen.device)  # [size]
    left_over = torch.arange(dealt, count, device=chosen.device).expand(rows, -1)
    columns = torch.cat([(of_group[:, None] + chosen[:, None, :]).flatten(1), left_over], dim=1)
    values, place = similarity.gather(1, columns).topk(k, dim=1)
    return values, columns.gather(1, place)


def _through_faiss(queries: Tensor, bank: Tensor, k: int, skip_self: bool) -> tuple[Tensor, Tensor]:
    """By cells. A query whose cells hold fewer than k vectors is searched exactly."""
    wanted = min(k, len(bank) - int(skip_self))
    vectors = F.normalize(bank.float().cpu(), dim=1).numpy()
    asked = F.normalize(queries.float().cpu(), dim=1).numpy()
    index = _cells(vectors)
    near, found = index.search(asked, min(wanted + int(skip_self), len(bank)))  # [Q, K] both, -1 where there is none
    if skip_self:
        # Of many that coincide, a vector may be missing from its own list: then the last is one too many.
        own = found == np.arange(len(found))[:, None]
        own[~own.any(axis=1), -1] = True
        near, found = (part[~own].reshape(len(asked), -1) for part in (near, found))
    order = np.lexsort((found, -near), axis=1)
    values = torch.from_numpy(np.take_along_axis(near, order, axis=1))
    places = torch.from_numpy(np.take_along_axis(found, order, axis=1))
    for row in (places < 0).any(dim=1).nonzero()[:, 0].tolist():
        values[row], places[row] = _one(queries[row], bank, wanted, row if skip_self else None)
    return values, places


def _one(query: Tensor, bank: Tensor, k: int, own: int | None) -> tuple[Tensor, Tensor]:
    near, found = exact(query[None], bank, k + int(own is not None))
    kept = found[0] != -1 if own is None else found[0] != own
    return near[0][kept][:k], found[0][kept][:k]


def _cells(vectors: Any) -> Any:
    """A FAISS index of `vectors` [N, D], unit length."""
    try:
        import faiss
    except ImportError as error:
        raise ConfigError(
            f"neighbours: {len(vectors):,} images are more than {EXACT_UP_TO:,}, which needs FAISS: "
            "pip install 'stopgrad[search]'"
        ) from error
    count, dim = vectors.shape
    cells = max(1, min(4 * round(count**0.5), count // POINTS_PER_CELL))
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(dim), dim, cells, faiss.METRIC_INNER_PRODUCT)
    index.nprobe = min(PROBED, cells)
    index.train(vectors)
    index.add(vectors)
    return index


@contextmanager
def in_float32(device_type: str) -> Iterator[None]:
    """float32 products in float32, though the run around may have allowed TF32, bfloat16 or autocast."""
    allowed = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast(device_type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(allowed)
