"""Every loss again, as slowly and as literally as its formula reads: loops over numbers, no matrices.

A number is a torch scalar in float64, so that autograd gives the loops' gradient too.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

Vector = list[Tensor]


def rows(x: Tensor) -> list[Vector]:
    return [list(row.unbind()) for row in x]


def dot(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for p, q in zip(a, b, strict=True):
        total = total + p * q
    return total


def unit(a: Vector) -> Vector:
    length = dot(a, a).sqrt()
    return [p / length for p in a]


def units(x: Tensor) -> list[Vector]:
    return [unit(row) for row in rows(x)]


def distance(a: Vector, b: Vector) -> Tensor:
    difference = [p - q for p, q in zip(a, b, strict=True)]
    return dot(difference, difference).sqrt()


def total(values: Sequence[Tensor]) -> Tensor:
    result = torch.zeros((), dtype=torch.float64)
    for value in values:
        result = result + value
    return result


def mean(values: Sequence[Tensor]) -> Tensor:
    return total(values) / len(values)


def share(chosen: Tensor, all_of_them: Sequence[Tensor]) -> Tensor:
    return chosen.exp() / total([value.exp() for value in all_of_them])


def two_views(z0: Tensor, z1: Tensor, interleaved: bool) -> tuple[list[Vector], list[int]]:
    """2N unit rows in either stacking, and where each one's partner is."""
    a, b = units(z0), units(z1)
    n = len(a)
    if interleaved:
        return [row for pair in zip(a, b, strict=True) for row in pair], [i ^ 1 for i in range(2 * n)]
    return a + b, [(i + n) % (2 * n) for i in range(2 * n)]


def nt_xent(z0: Tensor, z1: Tensor, temperature: float, interleaved: bool = False) -> Tensor:
    z, partner = two_views(z0, z1, interleaved)
    terms = []
    for i, anchor in enumerate(z):
        others = [dot(anchor, other) / temperature for k, other in enumerate(z) if k != i]
        terms.append(-share(dot(anchor, z[partner[i]]) / temperature, others).log())
    return mean(terms)


def told_apart(
    query: Tensor, positive: Tensor, own: Tensor | None, first: int, semi_hard: bool
) -> list[tuple[Tensor, list[Tensor]]]:
    """Of each query the cosine with its positive, and those with the negatives that count."""
    keys, mine, found = units(positive), [] if own is None else units(own), []
    for i, q in enumerate(units(query)):
        near = dot(q, keys[first + i])
        far = [dot(q, key) for both in (keys, mine) for j, key in enumerate(both) if j != first + i]
        if semi_hard:
            beyond = [s for s in far if s < near]
            far = [max(beyond)] if beyond else [min(far)]
        found.append((near, far))
    return found


def sigmoid(x: Tensor) -> Tensor:
    return 1 / (1 + (-x).exp())


def nt_logistic_queries(
    query: Tensor,
    positive: Tensor,
    own: Tensor | None,
    temperature: float,
    first: int = 0,
    semi_hard: bool = False,
) -> Tensor:
    terms = []
    for near, far in told_apart(query, positive, own, first, semi_hard):
        no = mean([-sigmoid(-s / temperature).log() for s in far])
        terms.append(no - sigmoid(near / temperature).log())
    return mean(terms)


def margin_queries(
    query: Tensor, positive: Tensor, own: Tensor | None, margin: float, first: int = 0, semi_hard: bool = False
) -> Tensor:
    terms = []
    for near, far in told_apart(query, positive, own, first, semi_hard):
        terms.append(mean([(s - near + margin).clamp(min=0) for s in far]))
    return mean(terms)


def nt_xent_queries(query: Tensor, positive: Tensor, own: Tensor | None, temperature: float, first: int = 0) -> Tensor:
    keys, mine = units(positive), [] if own is None else units(own)
    terms = []
    for i, q in enumerate(units(query)):
        s = [dot(q, key) / temperature for key in keys]
        s += [dot(q, key) / temperature for j, key in enumerate(mine) if j != first + i]
        terms.append(-share(s[first + i], s).log())
    return mean(terms)


def spread_out(similarities: dict[int, Tensor], partner: int) -> Tensor:
    """-log P(partner) - sum over the others of log(1 - P), of one anchor."""
    p = {k: share(s, list(similarities.values())) for k, s in similarities.items()}
    return -p[partner].log() - total([(1 - p[k]).log() for k in p if k != partner])


def instance_spreading(z0: Tensor, z1: Tensor, temperature: float) -> Tensor:
    z, partner = two_views(z0, z1, interleaved=False)
    terms = []
    for i, anchor in enumerate(z):
        s = {k: dot(anchor, other) / temperature for k, other in enumerate(z) if k != i}
        terms.append(spread_out(s, partner[i]))
    return mean(terms)


def instance_spreading_queries(
    query: Tensor, positive: Tensor, own: Tensor, temperature: float, first: int = 0
) -> Tensor:
    terms = []
    for i, q in enumerate(units(query), start=first):
        s = {k: dot(q, key) / temperature for k, key in enumerate(units(positive) + units(own))}
        del s[len(positive) + i]
        terms.append(spread_out(s, i))
    return mean(terms)


def info_nce(query: Tensor, positive: Tensor, negatives: Tensor, temperature: float) -> Tensor:
    terms = []
    for q, k in zip(rows(query), rows(positive), strict=True):
        s = [dot(q, k) / temperature, *(dot(q, other) / temperature for other in rows(negatives))]
        terms.append(-share(s[0], s).log())
    return mean(terms)


def info_nce_batch(query: Tensor, keys: Tensor, temperature: float, first: int = 0) -> Tensor:
    terms = []
    for i, q in enumerate(rows(query)):
        s = [dot(q, key) / temperature for key in rows(keys)]
        terms.append(-share(s[first + i], s).log())
    return mean(terms)


def non_parametric_softmax(query: Tensor, bank: Tensor, index: Tensor, temperature: float) -> Tensor:
    terms = []
    for q, i in zip(rows(query), index.tolist(), strict=True):
        s = [dot(q, row) / temperature for row in rows(bank)]
        terms.append(-share(s[i], s).log())
    return mean(terms)


def nce(positive: Tensor, negatives: Tensor, images: int, log_normaliser: float, temperature: float) -> Tensor:
    m = negatives.shape[1]

    def accepted(s: Tensor) -> Tensor:
        p = (s / temperature).exp() / math.exp(log_normaliser)
        return p / (p + m * (1 / images))

    terms = []
    for own, others in zip(positive.unbind(), rows(negatives), strict=True):
        terms.append(-accepted(own).log() - total([(1 - accepted(s)).log() for s in others]))
    return mean(terms)


def margin_contrastive(x0: Tensor, x1: Tensor, same: Tensor, margin: float) -> Tensor:
    terms = []
    for a, b, alike in zip(rows(x0), rows(x1), same.tolist(), strict=True):
        d = distance(a, b)
        terms.append(d * d if alike else (margin - d) ** 2 if d < margin else 0 * d)
    return total(terms) / (2 * len(terms))


def triplet(anchor: Tensor, positive: Tensor, negative: Tensor, margin: float) -> Tensor:
    terms = []
    for a, p, n in zip(rows(anchor), rows(positive), rows(negative), strict=True):
        violation = distance(a, p) - distance(a, n) + margin
        terms.append(violation if violation > 0 else 0 * violation)
    return mean(terms)


def n_pair(anchors: Tensor, positives: Tensor) -> Tensor:
    a, p = rows(anchors), rows(positives)
    terms = []
    for i, anchor in enumerate(a):
        worse = [(dot(anchor, p[j]) - dot(anchor, p[i])).exp() for j in range(len(p)) if j != i]
        terms.append((1 + total(worse)).log())
    return mean(terms)


def logistic(x0: Tensor, x1: Tensor, temperature: float, bias: float) -> Tensor:
    a, b = units(x0), units(x1)
    terms = []
    for i, u in enumerate(a):
        for j, v in enumerate(b):
            y = 1 if i == j else -1
            terms.append(-(1 / (1 + (-y * (dot(u, v) / temperature + bias)).exp())).log())
    return total(terms) / len(a)


def channels(z: Tensor) -> list[Vector]:
    return [list(column.unbind()) for column in z.T]


def centred(column: Vector) -> Vector:
    middle = mean(column)
    return [value - middle for value in column]


def standardised(z: Tensor) -> list[Vector]:
    result = []
    for column in map(centred, channels(z)):
        std = (dot(column, column) / len(column) + 1e-5).sqrt()  # biased, with batch norm's epsilon
        result.append([value / std for value in column])
    return result


def barlow_twins(z0: Tensor, z1: Tensor, off_diagonal_weight: float) -> Tensor:
    a, b = standardised(z0), standardised(z1)
    terms = []
    for i, p in enumerate(a):
        for j, q in enumerate(b):
            c = dot(p, q) / len(p)
            terms.append((1 - c) ** 2 if i == j else off_diagonal_weight * c**2)
    return total(terms)


def vicreg(z0: Tensor, z1: Tensor, invariance: float = 25.0, variance: float = 25.0, covariance: float = 1.0) -> Tensor:
    n, d = z0.shape
    s = mean([distance(a, b) ** 2 for a, b in zip(rows(z0), rows(z1), strict=True)])
    v, c = [], []
    for columns in (list(map(centred, channels(z0))), list(map(centred, channels(z1)))):
        for i, p in enumerate(columns):
            short = 1 - (dot(p, p) / (n - 1) + 1e-4).sqrt()
            v.append(short / d if short > 0 else 0 * short)
            c += [(dot(p, q) / (n - 1)) ** 2 / d for j, q in enumerate(columns) if j != i]
    return invariance * s + variance * total(v) + covariance * total(c)


def sinkhorn(scores: Tensor, epsilon: float, iterations: int) -> Tensor:
    """The published loop: exponentials, prototypes by samples, sums that are divided by."""
    q = [[(s / epsilon).exp() for s in column] for column in channels(scores)]  # [K][B]
    k, b = len(q), len(q[0])
    whole = total([value for row in q for value in row])
    q = [[value / whole for value in row] for row in q]
    for _ in range(iterations):
        q = [[value / total(row) / k for value in row] for row in q]
        sums = [total([row[j] for row in q]) for j in range(b)]
        q = [[value / sums[j] / b for j, value in enumerate(row)] for row in q]
    return torch.stack([torch.stack([q[i][j] * b for i in range(k)]) for j in range(b)])


def swapped_prediction(scores: Tensor, codes: Tensor, temperature: float) -> Tensor:
    terms = []
    for s, q in zip(rows(scores), rows(codes), strict=True):
        logits = [value / temperature for value in s]
        terms.append(-total([wanted * share(value, logits).log() for wanted, value in zip(q, logits, strict=True)]))
    return mean(terms)


def centred_cross_entropy(
    student: Tensor, teacher: Tensor, centre: Tensor, student_temperature: float, teacher_temperature: float
) -> Tensor:
    terms = []
    for s, t in zip(rows(student), rows(teacher), strict=True):
        guess = [value / student_temperature for value in s]
        wanted = [(value - c) / teacher_temperature for value, c in zip(t, centre.unbind(), strict=True)]
        terms += [-share(w, wanted) * share(g, guess).log() for w, g in zip(wanted, guess, strict=True)]
    return total(terms) / len(student)


def unigrad(z: Tensor, target: Tensor, correlation: Tensor, weight: float) -> Tensor:
    terms = []
    for u, t in zip(units(z), units(target), strict=True):
        pushed = [weight * dot(row, u) for row in rows(correlation)]
        terms.append(dot([(p - q).detach() for p, q in zip(pushed, t, strict=True)], u))
    return mean(terms)


def correlation(z: Tensor) -> Tensor:
    u = units(z)
    return torch.stack([
        torch.stack([mean([row[i] * row[j] for row in u]) for j in range(z.shape[1])]) for i in range(z.shape[1])
    ])  # fmt: skip
