"""Numbers that describe a cloud of features, without labels: spread, spectrum, effective rank, alignment, uniformity.

They answer "has it collapsed, and how": to a point (std_ratio near 0), to a line (effective rank near 1 while
std_ratio may look fine), or not at all. Used by the evaluation, the monitor and the diagnosis, so that one word means
one formula everywhere.

Sources: std_ratio: SimSiam, arXiv:2011.10566, section 4.1. Effective rank: Roy & Vetterli 2007, "The effective rank: a
measure of effective dimensionality". Alignment and uniformity: Wang & Isola 2020, arXiv:2005.10242, eq. 8 and 9.

All are computed in float64 on the CPU, whatever comes in: the clouds are small (some thousand rows), and a value that
decides on "collapsed" must not depend on the precision of training. Where a feature is not finite the value is nan.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

# Below this part of the features' size, variation is float32 rounding, not information.
_ROUNDING = 1e-6
_ROWS = 1024  # rows compared at a time, to bound memory


def _cloud(x: Tensor) -> Tensor:
    """[N, D] or [N, ...] -> [N, D], float64, on the CPU, without gradient."""
    return x.detach().to("cpu", torch.float64).flatten(1)


def _unit(x: Tensor) -> Tensor:
    return F.normalize(_cloud(x), dim=1)


def std_ratio(z: Tensor) -> float:
    """Mean over channels of the population std of the l2-normalised rows of z [N, D], times sqrt(D).

    0 where all rows point the same way, near 1 where they spread over the sphere (sqrt(1 - 1/D) for the D unit
    vectors). SimSiam's figure 2 plots it divided by sqrt(D).
    """
    z = _unit(z)
    return float(z.std(dim=0, correction=0).mean()) * math.sqrt(z.shape[1])


def singular_values(x: Tensor) -> Tensor:
    """Singular values of the features x [N, D] after their mean is taken off: [min(N, D)], float64, descending.

    Roots of the eigenvalues of the smaller Gram matrix: several times faster than an SVD, exact to about 1e-8 of the
    largest value, which is finer than what float32 features carry.
    """
    x = _cloud(x)
    x = x - x.mean(dim=0)
    if not bool(torch.isfinite(x).all()):
        return x.new_full((min(x.shape),), math.nan)
    gram = x @ x.T if x.shape[0] <= x.shape[1] else x.T @ x
    squares: Tensor = torch.linalg.eigvalsh(gram)
    return squares.clamp_min(0).sqrt().flip(0)


def effective_rank(x: Tensor) -> float:
    """exp of the entropy of the singular values of the centred x [N, D], scaled to sum 1: between 1 and min(N - 1, D).

    1 for points on a line, D for a cloud of equal extent in D directions. 0 for one point: rows that differ by no more
    than float32 rounding (1e-6 of their size) span nothing, and the rank of rounding noise would look healthy.
    """
    values = singular_values(x)
    if not bool(torch.isfinite(values).all()):
        return math.nan
    if values[0] <= _ROUNDING * torch.linalg.norm(_cloud(x)):
        return 0.0
    p = values / values.sum()
    return float(torch.special.entr(p).sum().exp())


def alignment(a: Tensor, b: Tensor) -> float:
    """Mean squared distance of two views of the same image, both on the unit sphere: 0 (equal) to 4 (opposite).

    a, b: [N, D], row i of both from image i. Wang & Isola, eq. 8 with alpha = 2. Smaller is tighter.
    """
    return float((_unit(a) - _unit(b)).square().sum(dim=1).mean())


def uniformity(x: Tensor, t: float = 2.0) -> float:
    """log of the mean of exp(-t d^2) over all pairs of different rows of x [N, D] on the unit sphere.

    0 where all rows point the same way, down to about -2 t on a large sphere. Wang & Isola, eq. 9. nan for one row.
    """
    x = _unit(x)
    n = len(x)
    if n < 2:
        return math.nan
    total = 0.0
    for start in range(0, n, _ROWS):
        rows = x[start : start + _ROWS]
        exponent = -t * (2 - 2 * rows @ x.T).clamp_min(0)  # [R, N]
        exponent[torch.arange(len(rows)), torch.arange(start, start + len(rows))] = -math.inf  # not a pair
        total += float(exponent.exp().sum())
    # All pairs so far apart that exp underflows is a large t, not an error.
    return math.log(total / (n * (n - 1))) if total != 0 else -math.inf


def correlation(x: Tensor) -> float:
    """Mean absolute correlation of two different channels of x [N, D], 0 to 1: what Barlow Twins and VICReg lower.

    Channels that do not vary are left out; nan where fewer than two do.
    """
    x = _cloud(x)
    x = x - x.mean(dim=0)
    x = x[:, x.norm(dim=0) > _ROUNDING * x.norm() / max(1, x.shape[1]) ** 0.5]
    if x.shape[1] < 2:
        return math.nan
    unit = F.normalize(x, dim=0)
    found = (unit.T @ unit).abs()
    return float((found.sum() - found.diagonal().sum()) / (found.numel() - len(found)))


def dead_dimensions(x: Tensor) -> int:
    """How many channels of x [N, D] are constant: their std is below 1e-5 of the root mean square of all features."""
    x = _cloud(x)
    return int((x.std(dim=0, correction=0) <= 10 * _ROUNDING * x.square().mean().sqrt()).sum())


def retrieval_at_1(a: Tensor, b: Tensor) -> float:
    """Percentage of rows of a [N, D] whose nearest row of b [N, D] by cosine is the one of the same image.

    100 / N is chance. Of equally near rows the first counts, so a cloud that is one point scores chance.
    """
    a, b = _unit(a), _unit(b)
    if not bool(torch.isfinite(a).all() and torch.isfinite(b).all()):
        return math.nan
    hits = 0
    for start in range(0, len(a), _ROWS):
        nearest = (a[start : start + _ROWS] @ b.T).argmax(dim=1)  # [R]
        hits += int((nearest == torch.arange(start, start + len(nearest))).sum())
    return 100.0 * hits / len(a)


def separation(a: Tensor, b: Tensor) -> float:
    """Percentage of other images that are less like an image than its own second view, mean over images (cosine).

    a, b: [N, D], two views of N images in the same order.  50 is chance, ties count half, nan for one image. It says
    what retrieval at 1 says, but every image counts a little instead of a few counting all, so it is far less noisy.
    """
    a, b = _unit(a), _unit(b)
    n = len(a)
    if n < 2 or not bool(torch.isfinite(a).all() & torch.isfinite(b).all()):
        return math.nan
    share = 0.0
    for start in range(0, n, _ROWS):
        similarity = a[start : start + _ROWS] @ b.T  # [rows, N]
        own = similarity.diagonal(start).unsqueeze(1)
        less, equal = (similarity < own).sum(dim=1), (similarity == own).sum(dim=1) - 1
        share += float((less + 0.5 * equal).sum())
    return 100.0 * share / (n * (n - 1))
