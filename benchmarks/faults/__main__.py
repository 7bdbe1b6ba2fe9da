"""`make bench-faults`: every fault so often, counted, into results/faults.json and the table of docs/reliability.md.

python -m benchmarks.faults [PART]      a part of everything, such as 0.1
"""

from __future__ import annotations

import re
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.faults.damage import damaged
from benchmarks.faults.disk import denied
from benchmarks.faults.kills import killed
from benchmarks.faults.runs import METHODS
from benchmarks.faults.signals import signalled
from stopgrad.rundir import as_json

RESULTS = Path(__file__).parents[1] / "results" / "faults.json"
PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
BEGIN, END = "<!-- faults -->", "<!-- /faults -->"
KILLS, SIGNALS, PAIRS, DAMAGES, DENIED = 200, 40, 10, 200, 40

Trial = Callable[[Path, str, int, int], list[str]]


def two(out: Path, method: str, count: int, seed: int) -> list[str]:
    return signalled(out, method, count, seed, world=2)


def planned(part: float) -> list[tuple[str, str, int, Trial]]:
    """(fault, method, how often, what does it)."""
    methods = list(METHODS)
    each = -(-int(KILLS * part) // len(methods))
    return [
        *(("kill -9 at a random moment", method, each, killed) for method in methods),
        ("SIGINT, SIGTERM, SIGUSR1 at a random moment", "simsiam", int(SIGNALS * part), signalled),
        ("the same, to two processes at once", "simsiam", int(PAIRS * part), two),
        ("newest checkpoint or manifest damaged", "moco_v2", int(DAMAGES * part), damaged),
        ("no file above a size can be written", "simsiam", int(DENIED * part), denied),
    ]


def main(part: float) -> None:
    rows: list[dict[str, Any]] = []
    for fault, method, count, trial in planned(part):
        begin = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="stopgrad-faults-") as folder:
            wrong = trial(Path(folder), method, count, 0)
        rows.append({"fault": fault, "method": method, "tried": count, "lost": len(wrong), "wrong": wrong})
        print(f"{fault}, {method}: {count} tried, {len(wrong)} lost, {time.monotonic() - begin:.0f} s", flush=True)
        for what in wrong:
            print(f"  {what}", flush=True)
        RESULTS.write_bytes(as_json(rows))
    draw(rows)
    sys.exit(1 if any(row["lost"] for row in rows) else 0)


def draw(rows: list[dict[str, Any]]) -> None:
    """The table in the page, between its marks."""
    lines = ["| fault | runs of | tried | survived | lost |", "| --- | --- | ---: | ---: | ---: |"]
    for row in rows:
        survived = row["tried"] - row["lost"]
        lines.append(f"| {row['fault']} | `{row['method']}` | {row['tried']} | {survived} | {row['lost']} |")
    table = "\n".join([BEGIN, *lines, END])
    PAGE.write_text(re.sub(f"{BEGIN}.*{END}", lambda _: table, PAGE.read_text(), flags=re.DOTALL))


if __name__ == "__main__":
    main(float(sys.argv[1]) if sys.argv[1:] else 1.0)
