"""Every loss of stopgrad.losses at work, alone, on a problem of a second: find what two noisy views have in common.

A thing is 4 numbers. A view of it is these 4 and 4 of noise, mixed by a rotation; two views of one thing share 4 of 8
directions and no loss is told which. A small encoder learns from each loss in turn, by SGD. Where it worked, the two
views of a thing end near each other (cosine near 1), the things end apart (spread near 1; 0 is collapse), and the
nearest of the other views is the thing's own (found, in %).

    python examples/losses.py
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stopgrad import losses
from stopgrad.losses.geometry import retrieval_at_1, std_ratio

THINGS, SHARED, DIM = 128, 4, 8
Objective = Callable[[Tensor, Tensor], Tensor]  # embeddings of two views [N, D] -> the loss
Learned = list[nn.Parameter]  # what an objective learns beside the encoder


class Outcome(NamedTuple):
    """Of one loss, before and after: its value (mean of five steps), cosine of the views, spread, found."""

    name: str
    value: tuple[float, float]
    cosine: tuple[float, float]
    spread: tuple[float, float]
    found: tuple[float, float]


def predictor(learned: Learned) -> nn.Module:
    net = nn.Sequential(nn.Linear(DIM, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, DIM))
    learned += net.parameters()
    return net


def unit(z: Tensor) -> Tensor:
    return F.normalize(z, dim=1)


def negative_cosine(learned: Learned) -> Objective:
    p = predictor(learned)
    return lambda z0, z1: sum(losses.negative_cosine(p(a), b.detach()) for a, b in ((z0, z1), (z1, z0))) / 2


def softmax_similarity(learned: Learned) -> Objective:
    p = predictor(learned)
    return lambda z0, z1: sum(losses.softmax_similarity(p(a), b.detach()) for a, b in ((z0, z1), (z1, z0))) / 2


def nt_xent(learned: Learned) -> Objective:
    return lambda z0, z1: losses.nt_xent(z0, z1, temperature=0.2)


def nt_xent_queries(learned: Learned) -> Objective:
    """Queries from a predictor, keys held constant; half the batch at a time, as two processes would."""
    p = predictor(learned)

    def objective(z0: Tensor, z1: Tensor) -> Tensor:
        halves = zip((0, THINGS // 2), p(z0).split(THINGS // 2))
        return sum(losses.nt_xent_queries(q, z1.detach(), z0.detach(), 0.2, first) for first, q in halves) / 2

    return objective


def info_nce(learned: Learned) -> Objective:
    """Negatives are the keys of the last steps."""
    queue: list[Tensor] = [unit(torch.randn(THINGS, DIM))]

    def objective(z0: Tensor, z1: Tensor) -> Tensor:
        key = unit(z1.detach())
        loss = losses.info_nce(unit(z0), key, torch.cat(queue), temperature=0.2)
        queue.append(key)
        del queue[:-4]
        return loss

    return objective


def info_nce_batch(learned: Learned) -> Objective:
    p = predictor(learned)
    return lambda z0, z1: 2 * 0.2 * losses.info_nce_batch(unit(p(z0)), unit(z1.detach()), temperature=0.2)


def nce(learned: Learned) -> Objective:
    """One row of a bank for each thing, 64 drawn rows to tell it from, log Z from the first step."""
    bank, log_z = unit(torch.randn(THINGS, DIM)), None

    def objective(z0: Tensor, z1: Tensor) -> Tensor:
        nonlocal bank, log_z
        rows = torch.cat([torch.arange(THINGS)[:, None], torch.randint(THINGS, (THINGS, 64))], dim=1)
        s = (unit(z0)[:, None] * bank[rows]).sum(dim=2)  # [N, 65]
        if log_z is None:
            log_z = math.log(THINGS) + (s.detach() / 0.2).flatten().logsumexp(0) - math.log(s.numel())
        bank = unit(0.5 * bank + 0.5 * unit(z0.detach()))
        return losses.nce(s[:, 0], s[:, 1:], THINGS, log_z, temperature=0.2)

    return objective


def non_parametric_softmax(learned: Learned) -> Objective:
    bank = unit(torch.randn(THINGS, DIM))

    def objective(z0: Tensor, z1: Tensor) -> Tensor:
        nonlocal bank
        loss = losses.non_parametric_softmax(unit(z0), bank, torch.arange(THINGS), temperature=0.2)
        bank = unit(0.5 * bank + 0.5 * unit(z0.detach()))
        return loss

    return objective


def instance_spreading(learned: Learned) -> Objective:
    return lambda z0, z1: losses.instance_spreading(z0, z1, temperature=0.2)


def instance_spreading_queries(learned: Learned) -> Objective:
    """Keys held constant, as the authors' code has it."""

    def objective(z0: Tensor, z1: Tensor) -> Tensor:
        k0, k1 = z0.detach(), z1.detach()
        return (
            losses.instance_spreading_queries(z0, k1, k0, 0.2) + losses.instance_spreading_queries(z1, k0, k1, 0.2)
        ) / 2

    return objective


def margin_contrastive(learned: Learned) -> Objective:
    """As many pairs of two things as of one."""
    same = torch.arange(2 * THINGS) < THINGS
    return lambda z0, z1: losses.margin_contrastive(
        unit(z0).repeat(2, 1), torch.cat([unit(z1), unit(z1).roll(1, 0)]), same, margin=1.2
    )


def triplet(learned: Learned) -> Objective:
    return lambda z0, z1: losses.triplet(unit(z0), unit(z1), unit(z1).roll(1, 0), margin=0.8)


def n_pair(learned: Learned) -> Objective:
    """Lengths are free, so they get a small price."""
    return lambda z0, z1: losses.n_pair(z0, z1) + 0.02 * (z0.square().sum(dim=1) + z1.square().sum(dim=1)).mean()


def nt_logistic_queries(learned: Learned) -> Objective:
    """Yes or no for each pair."""
    return lambda z0, z1: (
        (
            losses.nt_logistic_queries(z0, z1, z0, temperature=0.5)
            + losses.nt_logistic_queries(z1, z0, z1, temperature=0.5)
        )
        / 2
    )


def margin_queries(learned: Learned) -> Objective:
    return lambda z0, z1: (
        (losses.margin_queries(z0, z1, z0, margin=0.8) + losses.margin_queries(z1, z0, z1, margin=0.8)) / 2
    )


def logistic(learned: Learned) -> Objective:
    log_t, bias = nn.Parameter(torch.tensor(math.log(10))), nn.Parameter(torch.tensor(-10.0))
    learned += [log_t, bias]
    return lambda z0, z1: losses.logistic(z0, z1, temperature=(-log_t).exp(), bias=bias)


def barlow_twins(learned: Learned) -> Objective:
    return lambda z0, z1: losses.barlow_twins(z0, z1, off_diagonal_weight=0.05)


def vicreg(learned: Learned) -> Objective:
    return losses.vicreg


def vicreg_terms(learned: Learned) -> Objective:
    """The authors' code's reading of 25, 25, 1, from the terms."""

    def objective(z0: Tensor, z1: Tensor) -> Tensor:
        invariance, variance, covariance = losses.vicreg_terms(z0, z1)
        return 25 * invariance / DIM + 25 * variance / 2 + covariance

    return objective


def swapped_prediction(learned: Learned) -> Objective:
    """16 prototypes; the codes of one view, from sinkhorn, are what the other has to guess."""
    prototypes = nn.Parameter(torch.randn(16, DIM))
    learned.append(prototypes)

    def objective(z0: Tensor, z1: Tensor) -> Tensor:
        s0, s1 = unit(z0) @ unit(prototypes).T, unit(z1) @ unit(prototypes).T
        q0, q1 = (losses.sinkhorn(s.detach(), epsilon=0.05, iterations=3) for s in (s0, s1))
        return (losses.swapped_prediction(s0, q1, 0.1) + losses.swapped_prediction(s1, q0, 0.1)) / 2

    return objective


def centred_cross_entropy(learned: Learned) -> Objective:
    """The teacher is slow: for each thing, the moving average of what the student said. Its own echo would collapse."""
    prototypes, centre = nn.Parameter(torch.randn(32, DIM)), torch.zeros(32)
    learned.append(prototypes)
    teacher: Tensor | None = None

    def objective(z0: Tensor, z1: Tensor) -> Tensor:
        nonlocal centre, teacher
        s0, s1 = unit(z0) @ unit(prototypes).T, unit(z1) @ unit(prototypes).T
        now = (s0 + s1).detach() / 2
        teacher = now if teacher is None else 0.9 * teacher + 0.1 * now
        loss = sum(losses.centred_cross_entropy(s, teacher, centre, 0.1, 0.03) for s in (s0, s1)) / 2
        centre = 0.9 * centre + 0.1 * teacher.mean(dim=0)
        return loss

    return objective


def unigrad(learned: Learned) -> Objective:
    """The value is not what is minimised: watch the cosine."""
    f: Tensor | None = None

    def objective(z0: Tensor, z1: Tensor) -> Tensor:
        nonlocal f
        now = (losses.correlation(z0.detach()) + losses.correlation(z1.detach())) / 2
        f = now if f is None else 0.9 * f + 0.1 * now
        return (losses.unigrad(z0, z1, f, weight=3.0) + losses.unigrad(z1, z0, f, weight=3.0)) / 2

    return objective


# Each with a learning rate for its scale.
PROBLEMS: list[tuple[Callable[[Learned], Objective], float]] = [
    (negative_cosine, 0.1),
    (softmax_similarity, 0.3),
    (nt_xent, 0.1),
    (nt_xent_queries, 0.1),
    (info_nce, 0.1),
    (info_nce_batch, 0.1),
    (nce, 0.2),
    (non_parametric_softmax, 0.1),
    (instance_spreading, 0.1),
    (instance_spreading_queries, 0.1),
    (nt_logistic_queries, 0.3),
    (margin_queries, 0.3),
    (margin_contrastive, 0.1),
    (triplet, 0.1),
    (n_pair, 0.03),
    (logistic, 0.003),
    (barlow_twins, 0.1),
    (vicreg, 0.003),
    (vicreg_terms, 0.01),
    (swapped_prediction, 0.1),
    (centred_cross_entropy, 0.1),
    (unigrad, 0.1),
]


def learn(problem: Callable[[Learned], Objective], rate: float, steps: int) -> Outcome:
    """Train a fresh encoder on fresh noise each step, and look at it before and after through the same two views."""
    torch.manual_seed(0)
    things, rotation = torch.randn(THINGS, SHARED), torch.linalg.qr(torch.randn(2 * SHARED, 2 * SHARED)).Q
    encoder = nn.Sequential(nn.Linear(2 * SHARED, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, DIM))
    learned: Learned = list(encoder.parameters())
    objective = problem(learned)
    optimiser = torch.optim.SGD(learned, lr=rate, momentum=0.9)

    def view() -> Tensor:
        return torch.cat([things, torch.randn(THINGS, SHARED)], dim=1) @ rotation

    shown = view(), view()

    def look() -> tuple[float, float, float]:
        with torch.no_grad():
            z0, z1 = (encoder(x) for x in shown)
        return -losses.negative_cosine(z0, z1).item(), std_ratio(z0), retrieval_at_1(z0, z1)

    before, values = look(), []
    for _ in range(steps):
        loss = objective(encoder(view()), encoder(view()))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        values.append(loss.item())
    cosine, spread, found = zip(before, look())
    value = (sum(values[:5]) / len(values[:5]), sum(values[-5:]) / len(values[-5:]))
    return Outcome(problem.__name__, value, cosine, spread, found)


def main(steps: int = 300) -> list[Outcome]:
    """Run every problem, print a line each, and return what was printed."""
    print(f"{'loss':<28}{'value':^18}{'cosine of views':^18}{'spread':^18}{'found, %':^18}")
    outcomes = []
    for problem, rate in PROBLEMS:
        outcome = learn(problem, rate, steps)
        columns = [f"{a:.3g} -> {b:.3g}" for a, b in outcome[1:]]
        print(f"{outcome.name:<28}" + "".join(f"{column:^18}" for column in columns).rstrip(), flush=True)
        outcomes.append(outcome)
    return outcomes


if __name__ == "__main__":
    main()
