"""results/*.json -> results/README.md (the table), results/speed.svg (the chart) and the README's section."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

HEAD = (
    "| | ours | beside | unit | ratio, median | range | floor / target | reached |\n|---|---|---|---|---|---|---|---|"
)
NOT_PAIRS = {"faults", "loss_curve"}  # files of results that hold something else
WIDTH, ROW, LEFT, RIGHT = 860, 26, 420, 90  # of the chart, in pixels
LETTERS = 62  # of a label: as many as fit in LEFT


def row(pair: Mapping[str, Any]) -> str:
    """One line of the table."""
    beside = "" if pair["rival"] is None else f"{_number(pair['rival'])} ({pair['rival_name']})"
    ratio = "" if pair["ratio"] is None else f"{pair['ratio']:.2f}"
    spread = " to ".join(_number(pair[key]) if pair["ratio"] is None else f"{pair[key]:.2f}" for key in ("low", "high"))
    goal, mark = "", ""
    if pair["floor"] is not None:
        most = "at most " if pair["at"] == "most" else ""
        goal = f"{most}{_number(pair['floor'])} / {_number(pair['target'])}"
        mark = reached(pair)
    cells = [pair["name"], _number(pair["ours"]), beside, pair["unit"], ratio, spread, goal, mark]
    return f"| {' | '.join(cells)} |"


def reached(pair: Mapping[str, Any]) -> str:
    """`target`, `floor`, `no`, or "" where nothing was set."""
    from benchmarks.pairs import Pair

    return Pair(**pair).reached()


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def all_of(results: Path) -> None:
    """Writes the table, the chart and the README's section from whatever results there are."""
    groups = {path.stem: json.loads(path.read_text()) for path in sorted(results.glob("*.json"))}
    groups = {name: pairs for name, pairs in groups.items() if name not in NOT_PAIRS and pairs}
    if not groups:
        return
    (results / "README.md").write_text(table(groups))
    (results / "speed.svg").write_text(chart([pair for pairs in groups.values() for pair in pairs]))
    readme = results.parent.parent / "README.md"
    readme.write_text(with_section(readme.read_text(), groups))


def table(groups: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    lines = [
        "# What was measured\n",
        "`make bench` wrote this page from the JSON files beside it. Every measure ran ours and the rival in turns;",
        "the machines are noisy, so only the ratios mean anything: the median over the rounds, and their range. A",
        "ratio is ours over the rival's: of rates and points of kNN more is better, of seconds, MB and shares less.",
        "Where no rival is named, the figure is ours alone and the range is its own.\n",
    ]
    for name, pairs in groups.items():
        lines += [f"## {name}\n", HEAD, *map(row, pairs), ""]
        lines += dict.fromkeys(f"- {pair['name']}: {pair['note']}" for pair in pairs if pair["note"])
        where = sorted({f"{pair['machine']}; {pair['versions']}" for pair in pairs})
        lines += ["", *(f"{place}." for place in where), ""]
    return "\n".join(lines)


def with_section(readme: str, groups: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """The README with what stands between its two marks drawn anew; as it is where it has none."""
    chosen = [pair for pairs in groups.values() for pair in pairs if pair["floor"] is not None]
    body = "\n".join([HEAD, *map(row, chosen)])
    where = sorted({f"{pair['machine']}; {pair['versions']}" for pair in chosen})
    text = f"<!-- bench -->\n{body}\n\n{'; '.join(where)}.\n<!-- /bench -->"
    return re.sub(r"<!-- bench -->.*?<!-- /bench -->", lambda _: text, readme, flags=re.DOTALL)


def chart(pairs: Sequence[Mapping[str, Any]]) -> str:
    """Ratios to the rivals as bars on a logarithmic axis, the range as a line, floor and target as ticks."""
    shown = [pair for pair in pairs if pair["ratio"] is not None and pair["rival_name"] and pair["at"] == "least"]
    shown = [pair for pair in shown if pair["floor"] is not None and pair["floor"] >= 1]  # below: ourselves, quality
    top = max([2.0, *(max(pair["high"], pair["target"]) for pair in shown)])
    low = min([1.0, *(pair["low"] for pair in shown)])

    def x(value: float) -> float:
        share = math.log(value / low) / math.log(top / low)
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    height = ROW * len(shown) + 50
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
        'font-family="sans-serif" font-size="12">',
        "<title>How many times as fast as the rival: median, range, floor and target</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
    ]
    for i, pair in enumerate(shown):
        y = 24 + i * ROW
        label = f"{pair['name']}: {pair['rival_name']}"
        label = label if len(label) <= LETTERS else f"{label[: LETTERS - 1]}…"
        out += [
            f'<text x="{LEFT - 8}" y="{y + 13}" text-anchor="end">{escape(label)}</text>',
            f'<rect x="{x(low):.1f}" y="{y + 3}" width="{max(1.0, x(pair["ratio"]) - x(low)):.1f}" height="13" '
            'fill="#4477aa"/>',
            f'<line x1="{x(pair["low"]):.1f}" x2="{x(pair["high"]):.1f}" y1="{y + 9.5}" y2="{y + 9.5}" '
            'stroke="black"/>',
            *(
                f'<line x1="{x(pair[key]):.1f}" x2="{x(pair[key]):.1f}" y1="{y}" y2="{y + 19}" stroke="{colour}" '
                f'stroke-width="2"><title>{key}</title></line>'
                for key, colour in (("floor", "#999933"), ("target", "#228833"))
            ),
            f'<text x="{x(max(pair["high"], pair["target"])) + 6:.1f}" y="{y + 13}">{pair["ratio"]:.2f}x</text>',
        ]
    out.append(
        f'<text x="{LEFT}" y="{height - 8}" fill="#555">bar: median ratio; thin line: range; ticks: floor, target; '
        "logarithmic</text></svg>"
    )
    return "\n".join(out) + "\n"
