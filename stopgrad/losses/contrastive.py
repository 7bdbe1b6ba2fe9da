"""Pick the positive among candidates: NT-Xent, InfoNCE, NCE, the non-parametric softmax, instance spreading.

B queries, N images in the whole batch, K or m negatives, D channels. The caller gathers the keys of other processes
and detaches what shall not learn: neither is hidden in a formula.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from stopgrad.losses.inputs import check_above_0, check_at_least_2, check_equal_shapes, check_rows, in_float32


def nt_xent(z0: Tensor, z1: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of the other view among all 2N - 1 other embeddings. SimCLR, arXiv:2002.05709, eq. 1.

    z0, z1: [N, D], row i of both from image i, any length (normalised here).  Returns a scalar, 0 or more, the mean
    over the 2N anchors: log(2N - 1) where all embeddings are equal. google-research/simclr returns twice this mean.
    """
    check_equal_shapes(z0=z0, z1=z1)
    return 0.5 * (nt_xent_queries(z0, z1, z0, temperature) + nt_xent_queries(z1, z0, z1, temperature))


@in_float32
def nt_xent_queries(query: Tensor, positive: Tensor, own: Tensor | None, temperature: float, first: int = 0) -> Tensor:
    """NT-Xent of some anchors of one view, which may differ from the keys. SimCLR, arXiv:2002.05709, eq. 1.

    query: [B, D], the anchors: images first .. first + B of the batch.  positive: [N, D], the other view of the whole
    batch; row first + i is query i's positive, the rest are negatives.  own: [N, D], the queries' own view; row
    first + i is query i itself and is left out; None for no negatives from the own view.  All of any length
    (normalised here).  Returns a scalar, the mean over B. `first` is where a process's slice of the batch begins.
    """
    logits, label = _logits(query, positive, own, temperature, first)
    return F.cross_entropy(logits, label)


def instance_spreading(z0: Tensor, z1: Tensor, temperature: float) -> Tensor:
    """Be recognised as the other view, and not as any other image. InvaSpread, arXiv:1904.03436, section 3.

    -log P(positive) - sum over the 2N - 2 others of log(1 - P(other)), P the softmax of an anchor over all other
    embeddings, as the authors' code computes it.  z0, z1: [N, D], any length (normalised here).  Returns a scalar, 0 or
    more, the mean over the 2N anchors: log(2N-1) - (2N-2) log(1 - 1/(2N-1)) where all embeddings are equal. Their code
    detaches the keys, which instance_spreading_queries leaves to the caller.
    """
    check_equal_shapes(z0=z0, z1=z1)
    return 0.5 * (
        instance_spreading_queries(z0, z1, z0, temperature) + instance_spreading_queries(z1, z0, z1, temperature)
    )


@in_float32
def instance_spreading_queries(
    query: Tensor, positive: Tensor, own: Tensor, temperature: float, first: int = 0
) -> Tensor:
    """Instance spreading of some anchors of one view. InvaSpread, arXiv:1904.03436, section 3.

    query [B, D], positive [N, D], own [N, D] and first as in nt_xent_queries, any length (normalised here).
    Returns a scalar, the mean over B.
    """
    logits, label = _logits(query, positive, own, temperature, first)  # [B, 2N]
    log_p = F.log_softmax(logits, dim=1)
    # log(1 - P); the clamp is for a negative whose P rounds to 1
    log_rest = torch.log1p(-log_p.exp().clamp_max(1 - torch.finfo(log_p.dtype).eps))
    spread = log_rest.scatter(1, label.unsqueeze(1), 0.0).sum(dim=1)  # the own column is log(1 - 0) already
    return F.nll_loss(log_p, label) - spread.mean()


@in_float32
def nt_logistic_queries(
    query: Tensor,
    positive: Tensor,
    own: Tensor | None,
    temperature: float,
    first: int = 0,
    semi_hard: bool = False,
) -> Tensor:
    """Say yes to the other view and no to the rest: -log sigmoid(s+ / t) - log sigmoid(-s- / t). SimCLR, table 2.

    s+ is the cosine with the other view, s- with a negative; the second term is a mean over the negatives, which SimCLR
    leaves open, or, semi_hard, of the nearest of those that are farther than the positive (the farthest of all, where
    none is). query, positive, own and first as in nt_xent_queries.  Returns a scalar, 0 or more, the mean over B:
    2 log 2 where all cosines are 0.
    """
    near, far, weight = _told_apart(query, positive, own, temperature, first, semi_hard)
    return -(F.logsigmoid(near / temperature) + (weight * F.logsigmoid(-far / temperature)).sum(dim=1)).mean()


@in_float32
def margin_queries(
    query: Tensor, positive: Tensor, own: Tensor | None, margin: float, first: int = 0, semi_hard: bool = False
) -> Tensor:
    """The other view nearer than a negative by a margin: max(s- - s+ + margin, 0). SimCLR, table 2.

    Cosines, mean over the negatives, or of the semi-hard one, as in nt_logistic_queries.  margin: above 0.  Returns a
    scalar, 0 or more, the mean over B: the margin where all similarities are equal.
    """
    near, far, weight = _told_apart(query, positive, own, margin, first, semi_hard)
    return (weight * F.relu(far - near.unsqueeze(1) + margin)).sum(dim=1).mean()


def _told_apart(
    query: Tensor, positive: Tensor, own: Tensor | None, scale: float, first: int, semi_hard: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Cosines with the positive [B] and with all others [B, N or 2N], and what each of those counts: shares of 1 a
    query, 0 for the positive and for the query itself."""
    logits, label = _logits(query, positive, own, 1.0, first)
    check_above_0(temperature_or_margin=scale)
    near = logits.gather(1, label.unsqueeze(1)).squeeze(1)
    others = logits.isfinite().scatter(1, label.unsqueeze(1), False)
    far = logits.masked_fill(~others, 0.0)  # an infinity times a weight of 0 would be no number
    if not semi_hard:
        return near, far, others / others.sum(dim=1, keepdim=True)
    with torch.no_grad():
        beyond = others & (logits < near.unsqueeze(1))
        nearest = logits.masked_fill(~beyond, -math.inf).argmax(dim=1)
        farthest = logits.masked_fill(~others, math.inf).argmin(dim=1)
        chosen = torch.where(beyond.any(dim=1), nearest, farthest)
    return near, far, F.one_hot(chosen, far.shape[1]).to(far.dtype)


def _logits(
    query: Tensor, positive: Tensor, own: Tensor | None, temperature: float, first: int
) -> tuple[Tensor, Tensor]:
    """Similarities over temperature with each query's self masked, [B, N] or [B, 2N], and the positive's column [B]."""
    check_above_0(temperature=temperature)
    check_at_least_2(len(positive))
    check_rows(len(query), first, len(positive))
    if own is not None:
        check_equal_shapes(positive=positive, own=own)
    keys = F.normalize(positive if own is None else torch.cat([positive, own]), dim=1)
    label = torch.arange(first, first + len(query), device=query.device)
    logits = (F.normalize(query, dim=1) / temperature) @ keys.T
    if own is not None:
        # -inf, not a large number: the column's weight is 0 exactly. In place: a matrix product never needs its result.
        logits.scatter_(1, (len(positive) + label).unsqueeze(1), -math.inf)
    return logits, label


@in_float32
def info_nce(query: Tensor, positive: Tensor, negatives: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of the positive among 1 + K candidates. MoCo, arXiv:1911.05722, eq. 1.

    query, positive: [B, D], unit length.  negatives: [K, D], unit length.  Returns a scalar, the mean over B:
    log(1 + K) where all similarities are equal.
    """
    check_above_0(temperature=temperature)
    check_equal_shapes(query=query, positive=positive)
    query = query / temperature  # B x D divisions instead of B x (1 + K)
    pos = (query * positive).sum(dim=1, keepdim=True)  # [B, 1]
    neg = query @ negatives.T  # [B, K]
    logits = torch.cat([pos, neg], dim=1)  # [B, 1 + K]
    return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long, device=logits.device))


@in_float32
def info_nce_batch(query: Tensor, keys: Tensor, temperature: float | Tensor, first: int = 0) -> Tensor:
    """Cross-entropy of the own key among the keys of the whole batch. MoCo v3, arXiv:2104.02057, eq. 1.

    query: [B, D], unit length, images first .. first + B of the batch.  keys: [N, D], unit length.  temperature: may be
    learnt.  Returns a scalar, the mean over B: log N where all similarities are equal. MoCo v3's factor 2 * temperature
    and its sum over the two directions (Algorithm 1) are not in here: they are the caller's.
    """
    check_above_0(temperature=temperature)
    check_at_least_2(len(keys))
    check_rows(len(query), first, len(keys))
    label = torch.arange(first, first + len(query), device=query.device)
    return F.cross_entropy((query / temperature) @ keys.T, label)


@in_float32
def non_parametric_softmax(query: Tensor, bank: Tensor, index: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of the own row among all rows of the bank. InstDisc, arXiv:1805.01978, eq. 2.

    query: [B, D], unit length.  bank: [N, D], unit length, one row an image.  index: [B], whole numbers, each query's
    row.  Returns a scalar, the mean over B: log N where all similarities are equal.
    """
    check_above_0(temperature=temperature)
    return F.cross_entropy((query / temperature) @ bank.T, index)


@in_float32
def nce(positive: Tensor, negatives: Tensor, images: int, log_normaliser: float | Tensor, temperature: float) -> Tensor:
    """Tell the own row of the bank from m rows drawn uniformly, by noise contrast. InstDisc, arXiv:1805.01978, eq. 7.

    h = P / (P + m / images) with P = exp(similarity / temperature) / Z; the loss is -log h(positive) minus the sum of
    log(1 - h) over the negatives.  positive: [B], negatives: [B, m], similarities in [-1, 1].  images: rows of the
    bank.  log_normaliser: log Z, which the paper estimates once, from the first batch's similarities s, as
    log(images) + logsumexp(s / temperature) - log(how many), and keeps.  Returns a scalar, the mean over B:
    log(m+1) + m log(1 + 1/m) where all similarities are equal. Everything stays a logarithm: exp(1/.07) * 1.28 million
    is no problem here.
    """
    check_above_0(temperature=temperature, images=images)
    m = negatives.shape[1]
    # log of P / (m / images): h is its sigmoid
    offset = math.log(images) - math.log(m) - log_normaliser
    accepted = F.logsigmoid(positive / temperature + offset)  # [B]
    refused = F.logsigmoid(-(negatives / temperature + offset)).sum(dim=1)  # [B]
    return -(accepted + refused).mean()
