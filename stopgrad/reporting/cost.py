"""What a training took: time, images, memory, on which machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stopgrad.reporting.found import Found


def cost(runs: Sequence[Found]) -> list[tuple[str, list[str]]]:
    """(quantity, its value in each run); quantities nobody has are left out."""
    rows = [(title, [read(run) for run in runs]) for title, read in QUANTITIES.items()]
    return [(title, values) for title, values in rows if any(value != "–" for value in values)]


def trained(log: Sequence[Mapping[str, Any]], batch_size: int) -> tuple[int, float]:
    """(images seen, seconds spent) over all sessions, from the log: each line has the speed since the one before."""
    images, spent, before = 0, 0.0, 0
    for line in log:
        if rate := line.get("images_per_second"):
            count = (line["step"] - before) * batch_size
            images, spent, before = images + count, spent + count / rate, line["step"]
    return images, spent


def _trained(run: Found) -> tuple[int, float]:
    return trained(run.log, int(run.recipe.get("loop", {}).get("batch_size", 0)))


def _time(run: Found) -> str:
    seconds = _trained(run)[1]
    if not seconds:
        return "–"
    minutes = round(seconds / 60)
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def _speed(run: Found) -> str:
    images, seconds = _trained(run)
    return f"{images / seconds:,.0f} {run.many.partition(' ')[0]}/s" if seconds else "–"


def _seen(run: Found) -> str:
    images, _ = _trained(run)
    epochs = run.log[-1].get("epoch", 0) if run.log else 0
    return f"{images:,} ({run.steps:,} steps, {epochs:g} epochs)" if images else "–"


def _memory(run: Found) -> str:
    value = next((row.value for row in run.results if row.name == "peak_memory_mb"), None)
    return "–" if not isinstance(value, int | float) else f"{value:,.0f} MB"


def _bad(run: Found) -> str:
    return f"{run.bad_files:,} (bad_files.csv)" if run.bad_files else "–"


QUANTITIES = {
    "Training time, monitors included": _time,
    "Speed": _speed,
    "Samples seen": _seen,
    "Peak memory": _memory,
    "Machine": lambda run: run.facts.get("machine", "–"),
    "Precision": lambda run: str(run.recipe.get("loop", {}).get("precision", "–")),
    "Files that could not be used": _bad,
}
