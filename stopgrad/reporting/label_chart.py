"""Accuracy against the number of labels: one chart and its page, complete in itself. No torch, no script."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from stopgrad.contracts import ConfigError
from stopgrad.reporting.charts import STYLES, number_text, ticks
from stopgrad.reporting.page import ENDS, NEEDS, TEMPLATES, asset, available, policy
from stopgrad.version import __version__

WIDTH, HEIGHT = 720, 400  # units of the drawing, about pixels
LEFT, RIGHT, TOP, BOTTOM = 52, 24, 16, 56
WHISKER = 4.0  # half of the width of the bar at the end of a spread


@dataclass(frozen=True, slots=True)
class Measured:
    """One way to use labels, at one number of them."""

    labels: int  # images whose label is known
    text: str  # the amount as it was asked for
    values: tuple[float, ...]  # percentages, one a seed

    @property
    def mean(self) -> float:
        return math.fsum(self.values) / len(self.values)

    @property
    def spread(self) -> float:
        """Standard deviation over seeds (n - 1); 0 of a single one."""
        n, mean = len(self.values), self.mean
        return math.sqrt(math.fsum((value - mean) ** 2 for value in self.values) / (n - 1)) if n > 1 else 0.0


@dataclass(frozen=True, slots=True)
class Line:
    name: str
    style: int
    path: str
    spreads: str  # one path of vertical bars
    marks: list[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class LabelChart:
    alt: str  # what the picture says, in words
    lines: list[Line]
    x_ticks: list[tuple[float, str, str]]  # place, amount, images
    y_ticks: list[tuple[float, str]]
    chance: float | None  # y of the line of chance


def label_chart(ways: Sequence[tuple[str, Sequence[Measured]]], chance: float | None) -> LabelChart | None:
    """A line a way over the number of labels, which is drawn by its logarithm. None where nothing was measured.

    chance: percentage of the commonest class, drawn where it is near what was measured.
    """
    ways = [(name, sorted(points, key=lambda point: point.labels)) for name, points in ways if points]
    every = [point for _, points in ways for point in points]
    if not every:
        return None
    counts = sorted({point.labels for point in every})
    low = min(point.mean - point.spread for point in every)
    high = max(point.mean + point.spread for point in every)
    room = max(1.0, 0.06 * (high - low))
    low, high = max(0.0, low - room), min(100.0, high + room)
    if chance is not None and low - chance < high - low:
        low = max(0.0, min(low, chance - room))
    wide = math.log(counts[-1] / counts[0]) or 1.0

    def across(labels: int) -> float:
        share = math.log(labels / counts[0]) / wide if len(counts) > 1 else 0.5
        return round(LEFT + 20 + (WIDTH - LEFT - RIGHT - 40) * share, 1)

    def up(value: float) -> float:
        return round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - low) / (high - low), 1)

    lines = []
    for number, (name, points) in enumerate(ways):
        marks = [(across(point.labels), up(point.mean)) for point in points]
        # side by side where ways share a number of labels, so that no bar hides another
        aside = 3.0 * (number - (len(ways) - 1) / 2)
        spreads = "".join(
            f"M{x + aside:g} {up(p.mean - p.spread)}V{up(p.mean + p.spread)}"
            f"M{x + aside - WHISKER:g} {up(p.mean - p.spread)}h{2 * WHISKER:g}"
            f"M{x + aside - WHISKER:g} {up(p.mean + p.spread)}h{2 * WHISKER:g}"
            for (x, _), p in zip(marks, points)
            if p.spread
        )
        lines.append(Line(name, number % STYLES, "M" + "L".join(f"{x:g} {y:g}" for x, y in marks), spreads, marks))
    named = {point.labels: point.text for point in every}
    said = [
        f"{name}: " + ", ".join(f"{number_text(point.mean)} % with {point.text} of the labels" for point in points)
        for name, points in ways
    ]
    return LabelChart(
        alt="Accuracy on the test split against the number of labels. " + "; ".join(said),
        lines=lines,
        x_ticks=[(across(count), named[count], f"{count:,} images") for count in counts],
        y_ticks=[(up(value), number_text(value)) for value in ticks(low, high, 6)],
        chance=up(chance) if chance is not None and low <= chance <= high else None,
    )


def render(title: str, chart: LabelChart | None, head: Sequence[str], rows: Sequence[Sequence[str]],
           told: Sequence[str], synthetic: str) -> str:  # fmt: skip
    """The page: chart, the same numbers as a table, and what is to be known. Raises ConfigError without jinja2.

    synthetic: a sentence on images that were rendered; "" of photographs.
    """
    if not available():
        raise ConfigError(NEEDS)
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    css = asset("report.css")
    return environment.get_template("fewlabels.html.j2").render(
        title=title,
        csp=policy(css, ""),
        css=Markup(css),  # ours, without a `</`
        chart=chart,
        head=head,
        rows=rows,
        told=told,
        synthetic=synthetic,
        ends=ENDS,
        width=WIDTH,
        height=HEIGHT,
        left=LEFT,
        right=RIGHT,
        bottom=HEIGHT - BOTTOM,
        version=__version__,
    )
