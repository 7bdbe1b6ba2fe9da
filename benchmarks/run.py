"""`make bench`: ours beside the rivals, in turns. Writes results/GROUP.json and, from all of them, the table and chart.

    python -m benchmarks.run [GROUP[.MEASURE] ...]      a group alone, or one measure of it
    python -m benchmarks.run --draw                     the table, the chart and the README's section, from results/

It runs in .bench, an environment with the rivals beside ours (tools/bench-env.sh). Real images are read from
$STOPGRAD_BENCH_DATA (a folder with cifar10/ and imagenette/ unpacked); where they are absent, scenes and photographs
made on the spot take their place, and the measure's note says so.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks import draw
from benchmarks.pairs import Pair

RESULTS = Path(__file__).parent / "results"
GROUPS = ("views", "decode", "loops", "forwards", "scores", "memory", "start", "growth", "quality")

Measure = Callable[[], list[Pair]]


def measures(group: str) -> dict[str, Measure]:
    found: dict[str, Measure] = importlib.import_module(f"benchmarks.{group}").MEASURES
    return found


def main(names: list[str]) -> None:
    if names == ["--draw"]:
        draw.all_of(RESULTS)
        return
    wanted: dict[str, list[str]] = {}
    for name in names or GROUPS:
        group, _, measure = name.partition(".")
        if group not in GROUPS:
            sys.exit(f"bench: unknown group {group}; allowed: {', '.join(GROUPS)}")
        if measure and measure not in measures(group):
            sys.exit(f"bench: {group} has no measure {measure}; allowed: {', '.join(measures(group))}")
        wanted.setdefault(group, []).append(measure)
    RESULTS.mkdir(exist_ok=True)
    for group, chosen in wanted.items():
        for name, measure in measures(group).items():
            if "" in chosen or name in chosen:
                pairs = measure()
                for pair in pairs:
                    print(draw.row(pair.as_dict()), flush=True)
                keep(RESULTS / f"{group}.json", pairs)
                draw.all_of(RESULTS)


def keep(path: Path, pairs: list[Pair]) -> None:
    """Puts what was measured into a group's file, in the place of what was measured before under the same names."""
    old = json.loads(path.read_text()) if path.exists() else []
    new = {(pair.name, pair.rival_name): pair.as_dict() for pair in pairs}
    kept = [new.pop((pair["name"], pair["rival_name"]), pair) for pair in old]
    path.write_text(json.dumps([*kept, *new.values()], indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
