"""A study's curves as one SVG: a panel a quantity, a line a case, told apart by dashes and by colour. Text and shapes
alone, so that it shows wherever Markdown does."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

from stopgrad.reporting.charts import number_text, spread, ticks

Points = Sequence[Sequence[float]]
WIDTH, HEIGHT = 300, 190  # of a panel, pixels
ACROSS = 3  # panels beside each other
LEFT, RIGHT, TOP, BOTTOM = 48, 10, 26, 24
LINE = 18  # of the legend, pixels
COLOURS = ("#0072b2", "#c44e00", "#00795a", "#b0568d", "#9a6c00", "#2b8fc9", "#6a4bb3", "#555d66", "#a0371f", "#4c7a10")
DASHES = ("", "6 3", "2 3", "8 3 2 3", "1 2", "10 4")
TITLES = {
    "loss": "loss",
    "std_ratio": "std_ratio (1: spread out, 0: a point)",
    "knn_top1": "kNN on held-out training images, %",
    "rank_h": "effective rank of the backbone",
    "rank_z": "effective rank of the projection",
    "correlation_z": "correlation of two channels",
    "alignment": "alignment (0: both views at one place)",
    "uniformity": "uniformity (lower: more evenly spread)",
    "cosine_positive": "cosine of two views",
    "cosine_random": "cosine of two images",
    "agreement": "cosine of prediction and target",
    "similarity": "cosine of positives",
    "balance": "negative over positive part of the gradient",
    "gradient_positive": "pull towards the target",
    "gradient_negative": "push away from the rest",
    "gradient_balance": "push over pull",
    "gradient_first_layer": "largest gradient of the first layer",
    "predictor_view": "cosine of the prediction and a view",
    "predictor_mean": "cosine of the prediction and the mean",
    "projection_mean": "cosine of a view and the mean",
    "predictor_alignment": "predictor along the eigenvectors",
    "predictor_asymmetry": "predictor's asymmetry",
    "kl": "divergence from the target",
    "target_entropy": "entropy of the target",
}


def drawn(curves: Mapping[str, Mapping[str, Points]], fields: Sequence[str]) -> str:
    """The SVG of those fields that any case has; "" where none has.  curves: case -> field -> [[step, value], ...]."""
    shown = [field for field in fields if any(field in lines for lines in curves.values())]
    if not shown:
        return ""
    cases = list(curves)
    width = WIDTH * min(ACROSS, len(shown))
    below = HEIGHT * -(-len(shown) // ACROSS)
    height = below + LINE * len(cases) + 8
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="system-ui, sans-serif" font-size="11">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
    ]
    for at, field in enumerate(shown):
        parts.append(f'<g transform="translate({at % ACROSS * WIDTH} {at // ACROSS * HEIGHT})">')
        parts += [*panel(field, {case: curves[case].get(field, []) for case in cases}), "</g>"]
    for number, case in enumerate(cases):
        y = below + LINE * number + 12
        parts.append(f'<path d="M{LEFT} {y - 4}h34" {style(number)}/>')
        parts.append(f'<text x="{LEFT + 42}" y="{y}" fill="#1c2228">{html.escape(case)}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def panel(field: str, lines: Mapping[str, Points]) -> list[str]:
    """One quantity over steps; cases are told apart by their place in `lines`."""
    points = [point for line in lines.values() for point in line]
    low, high = spread(min(y for _, y in points), max(y for _, y in points), field)
    last = max(x for x, _ in points) or 1.0

    def at(x: float, y: float) -> str:
        across = LEFT + (WIDTH - LEFT - RIGHT) * x / last
        return f"{across:.1f} {HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (y - low) / (high - low):.1f}"

    title = html.escape(TITLES.get(field, field))
    out = [f'<text x="{LEFT}" y="15" font-weight="600" fill="#1c2228">{title}</text>']
    for value in ticks(low, high, 4):
        x, y = at(0, value).split()
        out.append(f'<path d="M{x} {y}H{WIDTH - RIGHT}" stroke="#dcdfe2" fill="none"/>')
        place = f'x="{float(x) - 5:.1f}" y="{float(y) + 4:.1f}" text-anchor="end"'
        out.append(f'<text {place} fill="#56616b">{number_text(value)}</text>')
    for value in ticks(0, last, 3):
        x, y = at(value, low).split()
        out.append(f'<text x="{x}" y="{float(y) + 15:.1f}" text-anchor="middle" fill="#56616b">{value:,.0f}</text>')
    for number, line in enumerate(lines.values()):
        if line:
            path = "L".join(at(x, y) for x, y in line)
            out.append(f'<path d="M{path}" {style(number)}/>')
    return out


def style(number: int) -> str:
    dash = DASHES[number % len(DASHES)]
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    return f'fill="none" stroke-width="1.8" stroke="{COLOURS[number % len(COLOURS)]}"{dashed}'
