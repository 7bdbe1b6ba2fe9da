"""Charts in plain text: curves of several runs over their steps, told apart by letter, readable without colour."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

Curve = Sequence[tuple[float, float]]  # (step, value)


def curves(log: Sequence[Mapping[str, object]], field: str) -> list[tuple[float, float]]:
    """(step, value) of one field over the lines of a log that have it as a number."""
    found = []
    for line in log:
        step, value = line.get("step"), line.get(field)
        if isinstance(step, int | float) and isinstance(value, int | float) and math.isfinite(value):
            found.append((float(step), float(value)))
    return found


def chart(title: str, lines: Mapping[str, Curve], width: int = 60, height: int = 9) -> str:
    """Curves drawn with the first letter of their names over a common axis; `*` where two meet.

    lines: {name: points}, at most as many as have different first letters.  Returns height + 2 lines of text.
    """
    points = [point for line in lines.values() for point in line]
    if not points:
        return f"{title}: nothing was logged"
    low, high = min(y for _, y in points), max(y for _, y in points)
    span = high - low or 1.0
    last = max(x for x, _ in points) or 1.0
    grid = [[" "] * width for _ in range(height)]
    for name, line in lines.items():
        for column, value in _columns(line, last, width):
            row = height - 1 - round((value - low) / span * (height - 1))
            grid[row][column] = name[0] if grid[row][column] in (" ", name[0]) else "*"
    edge = {0: f"{high:8.2f}", height - 1: f"{low:8.2f}"}
    body = [f"{edge.get(i, ''):>8} |{''.join(cells).rstrip()}" for i, cells in enumerate(grid)]
    legend = ", ".join(f"{name[0]} = {name}" for name in lines)
    return "\n".join([f"{title}   ({legend})", *body, f"{'step':>8} 0{f'{last:.0f}':>{width - 1}}"])


def _columns(line: Curve, last: float, width: int) -> list[tuple[int, float]]:
    """One value a column: the mean of the points that fall there."""
    cells: dict[int, list[float]] = {}
    for x, y in line:
        cells.setdefault(min(width - 1, int(x / last * (width - 1))), []).append(y)
    return [(column, sum(values) / len(values)) for column, values in sorted(cells.items())]
