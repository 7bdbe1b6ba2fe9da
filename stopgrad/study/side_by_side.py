"""Finished runs side by side: what each came to, and the settings in which they differ. Nothing is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stopgrad.assemble.report import names, same
from stopgrad.contracts import ConfigError
from stopgrad.reporting.found import printable
from stopgrad.rundir import as_json
from stopgrad.study.measured import Run, differing, read_finished
from stopgrad.study.table import NOTHING, Table, as_markdown, as_text, escaped, table

LABELS = "Labels were used for kNN and the linear probe alone, after training."


@dataclass(frozen=True, kw_only=True, slots=True)
class SideBySide:
    """Runs by name, and what tells them apart."""

    runs: dict[str, Run]
    differences: dict[str, list[Any]]  # dotted key: a value a run, None where it has no such setting

    @property
    def sentences(self) -> list[str]:
        """What is to be known about the numbers."""
        protocols = dict.fromkeys(run.protocol for run in self.runs.values() if run.protocol)
        data = {part for told in protocols for part in told.split("; ") if part.startswith("data ")}
        warning = "These runs were scored on different images: their scores can't be compared."
        speed = "images/s and minutes are of the machine each was trained on."
        return [*([warning] if len(data) > 1 else []), LABELS, speed, *(f"Protocol: {told}" for told in protocols)]

    @property
    def scores(self) -> Table:
        return table({name: [run] for name, run in self.runs.items()}, "run")

    @property
    def settings(self) -> Table:
        """A row a setting, a column a run."""
        rows = [[key, *map(_shown, values)] for key, values in self.differences.items()]
        return Table(["setting", *self.runs], rows, [])

    def markdown(self) -> str:
        told = "".join(f"- {escaped(line)}\n" for line in self.sentences)
        differ = as_markdown(self.settings) if self.differences else "None.\n"
        return f"# Runs side by side\n\n{as_markdown(self.scores)}\n{told}\n## Settings that differ\n\n{differ}"

    def text(self, width: int) -> str:
        told = "\n".join(map(printable, self.sentences))
        differ = as_text(self.settings, width) if self.differences else "none"
        return f"{as_text(self.scores, width)}\n\n{told}\n\nSettings that differ:\n{differ}"

    def json(self) -> bytes:
        runs = {name: {**run.as_dict(), "protocol": run.protocol} for name, run in self.runs.items()}
        return as_json({"runs": runs, "differences": self.differences})


def _shown(value: Any) -> str:
    return NOTHING if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def side_by_side(paths: Sequence[Path]) -> SideBySide:
    """Reads runs that are finished. Raises ConfigError (fewer than two), MissingInputError (no run, not finished)."""
    different = [path for at, path in enumerate(paths) if not any(same(path, other) for other in paths[:at])]
    if len(different) < 2:
        raise ConfigError(
            f"compare: {len(different)} run named; name two or more run folders, or train methods with "
            "--data SRC --minutes N"
        )
    found = [read_finished(path) for path in different]
    runs = {name: run for name, (run, _) in zip(names(different), found)}
    return SideBySide(runs=runs, differences=differing([recipe for _, recipe in found]))
