"""Curves of one or several runs over their steps, as shapes that a template draws: no script is needed to see them.

A line is told from the others by its dashes and by the mark at its end, then by colour.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stopgrad.reporting.terminal import curves

WIDTH, HEIGHT = 360, 216  # units of the drawing, about pixels
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 12, 30
POINTS = 240  # of a line; more than the pixels it has help nobody
STYLES = 6  # dashes and marks the style sheet knows

# key, title, what it means, (field of the log, what it is called)
_RANKS = "directions the features really use"
_LOSS = ("loss", "Loss", "lower is not better by itself: a collapsed run has the lowest", (("loss", ""),))
_SPREAD = ("std_ratio", "std_ratio", "spread of the projections: near 1 healthy, 0 a point", (("std_ratio", ""),))
_KNN = (
    "knn_top1",
    "kNN on held-out training samples, %",
    "needs labels; never used for the verdict",
    (("knn_top1", ""),),
)
_ACCURACY = (
    "accuracy",
    "Classifier accuracy on held-out samples, %",
    "of a run that is taught; judged beside chance",
    (("accuracy", ""),),
)
_SPEED = ("images_per_second", "Samples a second", "the whole loop with its monitors", (("images_per_second", ""),))
CURVES = (
    _LOSS,
    _SPREAD,
    ("rank", "Effective rank", _RANKS, (("rank_h", "backbone"), ("rank_z", "projection"))),
    _ACCURACY,
    _KNN,
    _SPEED,
)
SIDE_BY_SIDE = (
    _LOSS,
    _SPREAD,
    ("rank_h", "Effective rank of the backbone", _RANKS, (("rank_h", ""),)),
    ("rank_z", "Effective rank of the projection", _RANKS, (("rank_z", ""),)),
    _ACCURACY,
    _KNN,
    _SPEED,
)
FROM_ZERO = ("std_ratio", "rank", "rank_h", "rank_z", "images_per_second")


@dataclass(frozen=True, slots=True)
class Line:
    name: str
    style: int
    path: str  # of an SVG path
    end: tuple[float, float]
    data: list[list[float]]  # [x in the drawing, y in the drawing, step, value]


@dataclass(frozen=True, slots=True)
class Chart:
    key: str
    title: str
    about: str
    alt: str  # what the picture says, in words
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    lines: list[Line]
    low: float  # y of the lower edge


def charts(runs: Sequence[tuple[str, Sequence[Mapping[str, Any]]]]) -> list[Chart]:
    """One chart a quantity that any run has logged. runs: (name, lines of the log)."""
    out = []
    for key, title, about, parts in CURVES if len(runs) == 1 else SIDE_BY_SIDE:
        named = []
        for name, log in runs:
            for field, part in parts:
                points = thinned(curves(log, field))
                if points:
                    named.append((part or (name if len(runs) > 1 else title), points))
        if named:
            out.append(draw(key, title, about, named))
    return out


def thinned(points: Sequence[tuple[float, float]], most: int = POINTS) -> list[tuple[float, float]]:
    """At most so many: means of neighbours, the last as it is."""
    if len(points) <= most:
        return list(points)
    step = math.ceil(len(points) / most)
    parts = [points[at : at + step] for at in range(0, len(points), step)]
    return [*((part[0][0], sum(y for _, y in part) / len(part)) for part in parts[:-1]), points[-1]]


def draw(key: str, title: str, about: str, named: Sequence[tuple[str, Sequence[tuple[float, float]]]]) -> Chart:
    """Lines over common axes. Each has one point or more."""
    values = [y for _, points in named for _, y in points]
    low, high = spread(min(values), max(values), key)
    last = max(x for _, points in named for x, _ in points) or 1.0

    def at(x: float, y: float) -> tuple[float, float]:
        across = LEFT + (WIDTH - LEFT - RIGHT) * x / last
        return round(across, 1), round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (y - low) / (high - low), 1)

    lines = []
    for number, (name, points) in enumerate(named):
        data = [[*at(x, y), x, y] for x, y in points]
        path = "M" + "L".join(f"{px:g} {py:g}" for px, py, *_ in data)
        lines.append(Line(name, number % STYLES, path, (data[-1][0], data[-1][1]), data))
    y_ticks = [(at(0, value)[1], number_text(value)) for value in ticks(low, high, 4)]
    x_ticks = [(at(value, low)[0], f"{value:,.0f}") for value in ticks(0, last, 4)]
    said = [
        f"{name}: {number_text(points[0][1])} at step {points[0][0]:.0f}, {number_text(points[-1][1])} at step "
        f"{points[-1][0]:.0f}"
        for name, points in named
    ]
    return Chart(key, title, about, f"{title} over steps. " + "; ".join(said), x_ticks, y_ticks, lines, HEIGHT - BOTTOM)


def spread(low: float, high: float, key: str) -> tuple[float, float]:
    """The range of an axis. A ratio and a speed are read against zero, so that a wiggle looks like one."""
    if key in FROM_ZERO:
        low = min(low, 0.0)
    if key == "std_ratio":
        high = max(high, 1.0)
    room = 0.05 * (high - low) or abs(high) * 0.1 or 1.0
    return (low if low == 0 else low - room), high + room


def ticks(low: float, high: float, about: int) -> list[float]:
    """Round values from low to high, about so many."""
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) + 0.0 for i in range(first, math.floor(high / step + 1e-9) + 1)]


def number_text(value: float) -> str:
    """Three figures, thousands with a comma."""
    size = abs(value)
    if size >= 1000:
        return f"{value:,.0f}"
    if size >= 100:
        return f"{value:.0f}"
    return f"{value:.3g}"
