"""What a paper says of the rows of its table, and whether runs support it, contradict it or can't tell.

Several seeds: differences are taken seed by seed, with Student's interval of 95 %. A single seed: the interval is that
of two shares of the test images, twice the standard error, and knows nothing of how much seeds differ.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from stopgrad.reporting.scores import margin
from stopgrad.study.lab.records import Record

Outcome = Literal["supported", "contradicted", "can't tell", "not run"]
Rows = Mapping[str, Sequence[Record]]  # case -> its runs, one a seed
RANDOM = "baseline_random_"


@dataclass(frozen=True, slots=True)
class Judged:
    """A claim beside what was measured."""

    outcome: Outcome
    told: str  # the numbers, in words


class Claim(Protocol):
    """`words` are the paper's, or close to them; `cases` are the rows it speaks of."""

    @property
    def words(self) -> str: ...

    @property
    def cases(self) -> tuple[str, ...]: ...

    def judge(self, rows: Rows) -> Judged: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Higher:
    """The one row is above the other, by more than `by`."""

    words: str
    of: str
    than: str
    by: float = 0.0
    measure: str = "knn_top1"

    @property
    def cases(self) -> tuple[str, ...]:
        return self.of, self.than

    def judge(self, rows: Rows) -> Judged:
        pairs = [
            (a.values[self.measure], b.values[self.measure], a.tested)
            for a, b in paired(rows, self.of, self.than)
            if self.measure in a.values and self.measure in b.values
        ]
        if not pairs:
            return not_run(rows, self.cases)
        low, middle, high = interval([a - b for a, b, _ in pairs], one=margin(*pairs[0]))
        told = f"{self.of} is {signed(middle)} points beside {self.than} ({signed(low)} to {signed(high)})"
        return Judged(placed(low, high, self.by), told)


@dataclass(frozen=True, kw_only=True, slots=True)
class NoBetterThanRandom:
    """A row's features are worth no more than those of the same network untrained: the mean is at most theirs."""

    words: str
    of: str
    measure: str = "knn_top1"

    @property
    def cases(self) -> tuple[str, ...]:
        return (self.of,)

    def judge(self, rows: Rows) -> Judged:
        low, middle, high = beside_random(rows, self.of, self.measure)
        if math.isnan(middle):
            return not_run(rows, self.cases)
        outcome: Outcome = "contradicted" if low > 0 else "supported" if middle <= 0 else "can't tell"
        return Judged(outcome, told_beside_random(self.of, low, middle, high))


@dataclass(frozen=True, kw_only=True, slots=True)
class BetterThanRandom:
    """A row's features are worth more than those of the same network untrained."""

    words: str
    of: str
    by: float = 0.0
    measure: str = "knn_top1"

    @property
    def cases(self) -> tuple[str, ...]:
        return (self.of,)

    def judge(self, rows: Rows) -> Judged:
        low, middle, high = beside_random(rows, self.of, self.measure)
        if math.isnan(middle):
            return not_run(rows, self.cases)
        return Judged(placed(low, high, self.by), told_beside_random(self.of, low, middle, high))


@dataclass(frozen=True, kw_only=True, slots=True)
class EndsAs:
    """Every run of a row ends with one of these verdicts."""

    words: str
    of: str
    verdicts: tuple[str, ...]

    @property
    def cases(self) -> tuple[str, ...]:
        return (self.of,)

    def judge(self, rows: Rows) -> Judged:
        said = [run.verdict for run in rows.get(self.of, ())]
        if not said:
            return not_run(rows, self.cases)
        right = sum(verdict in self.verdicts for verdict in said)
        outcome: Outcome = "supported" if right == len(said) else "can't tell" if right else "contradicted"
        return Judged(outcome, f"{self.of}: {', '.join(said)}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Below:
    """A number of every run of a row ends under a bound; of the log's last line, or of the results."""

    words: str
    of: str
    bound: float
    measure: str = "loss"

    @property
    def cases(self) -> tuple[str, ...]:
        return (self.of,)

    def judge(self, rows: Rows) -> Judged:
        ends = [run.values[self.measure] for run in rows.get(self.of, ()) if self.measure in run.values]
        if not ends:
            return not_run(rows, self.cases)
        under = sum(value < self.bound for value in ends)
        outcome: Outcome = "supported" if under == len(ends) else "can't tell" if under else "contradicted"
        ended = ", ".join(f"{value:.3g}" for value in ends)
        return Judged(outcome, f"{self.of}: {self.measure} ends at {ended}; the bound is {self.bound:g}")


@dataclass(frozen=True, kw_only=True, slots=True)
class EndsHigher:
    """Of one row, a curve ends above another, or above a bound; seed by seed."""

    words: str
    of: str
    curve: str
    than: str | float

    @property
    def cases(self) -> tuple[str, ...]:
        return (self.of,)

    def judge(self, rows: Rows) -> Judged:
        gaps = []
        for run in rows.get(self.of, ()):
            if self.curve in run.curves and (not isinstance(self.than, str) or self.than in run.curves):
                other = run.curves[self.than][-1][1] if isinstance(self.than, str) else self.than
                gaps.append(run.curves[self.curve][-1][1] - other)
        if not gaps:
            return not_run(rows, self.cases)
        low, middle, high = interval(gaps, one=0.0)
        spread = f"{low:+.3f} to {high:+.3f}" if len(gaps) > 1 else "one seed"
        told = f"{self.of}: {self.curve} ends {middle:+.3f} beside {self.than} ({spread})"
        return Judged(placed(low, high, 0.0), told)


@dataclass(frozen=True, kw_only=True, slots=True)
class SameBits:
    """Two rows leave the same weights, to the bit, seed by seed."""

    words: str
    of: str
    as_: str

    @property
    def cases(self) -> tuple[str, ...]:
        return self.of, self.as_

    def judge(self, rows: Rows) -> Judged:
        pairs = [(a, b) for a, b in paired(rows, self.of, self.as_) if a.weights and b.weights]
        if not pairs:
            return not_run(rows, self.cases)
        same = sum(a.weights == b.weights for a, b in pairs)
        told = f"{same} of {len(pairs)} pairs of encoders are equal to the bit"
        return Judged("supported" if same == len(pairs) else "contradicted", told)


@dataclass(frozen=True, kw_only=True, slots=True)
class KeepsShare:
    """Of what `full` gains over `base`, a row keeps at least a share."""

    words: str
    of: str
    full: str
    base: str
    share: float
    measure: str = "knn_top1"

    @property
    def cases(self) -> tuple[str, ...]:
        return self.of, self.full, self.base

    def judge(self, rows: Rows) -> Judged:
        seeds = {run.seed: run for run in rows.get(self.base, ())}
        gains, kept = [], []
        for some, whole in paired(rows, self.of, self.full):
            base = seeds.get(whole.seed)
            if base is not None and all(self.measure in run.values for run in (some, whole, base)):
                gains.append(whole.values[self.measure] - base.values[self.measure])
                kept.append(some.values[self.measure] - base.values[self.measure] - self.share * gains[-1])
        if not gains:
            return not_run(rows, self.cases)
        low, middle, _ = interval(gains, one=math.inf)
        if low <= 0:
            return Judged(
                "can't tell", f"{self.full} gains {signed(middle)} points over {self.base}, which may be nothing"
            )
        low, middle, high = interval(kept, one=math.inf)
        told = (
            f"{self.of} is {signed(middle)} points beside {self.share:g} of the gain ({signed(low)} to {signed(high)})"
        )
        return Judged(placed(low, high, 0.0), told)


def paired(rows: Rows, one: str, other: str) -> list[tuple[Record, Record]]:
    """The runs of two rows with the same seed, by seed; those that came to an end."""
    theirs = {run.seed: run for run in rows.get(other, ()) if run.values}
    return [(run, theirs[run.seed]) for run in rows.get(one, ()) if run.values and run.seed in theirs]


def interval(values: Sequence[float], one: float) -> tuple[float, float, float]:
    """(low, mean, high) of 95 % by Student's t; of a single value it is `one` to both sides."""
    n = len(values)
    mean = math.fsum(values) / n
    if n == 1:
        return mean - one, mean, mean + one
    from scipy.stats import t

    std = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    reach = float(t.ppf(0.975, n - 1)) * std / math.sqrt(n)
    return mean - reach, mean, mean + reach


def beside_random(rows: Rows, of: str, measure: str) -> tuple[float, float, float]:
    """Interval of a row's score minus that of random weights; nan where nothing was measured."""
    runs = [run for run in rows.get(of, ()) if measure in run.values and RANDOM + measure in run.values]
    if not runs:
        return math.nan, math.nan, math.nan
    gaps = [run.values[measure] - run.values[RANDOM + measure] for run in runs]
    first = runs[0]
    return interval(gaps, one=margin(first.values[measure], first.values[RANDOM + measure], first.tested))


def told_beside_random(of: str, low: float, middle: float, high: float) -> str:
    return f"{of} is {signed(middle)} points beside random weights ({signed(low)} to {signed(high)})"


def placed(low: float, high: float, bound: float) -> Outcome:
    """Whether all of an interval lies above a bound, below it, or neither."""
    return "supported" if low > bound else "contradicted" if high < bound else "can't tell"


def not_run(rows: Rows, cases: Sequence[str]) -> Judged:
    missing = [case for case in cases if not any(run.values or run.verdict for run in rows.get(case, ()))]
    return Judged("not run", f"without {' and '.join(missing or cases)}")


def signed(value: float) -> str:
    return f"{value:+.1f}" if math.isfinite(value) else "any number of"
