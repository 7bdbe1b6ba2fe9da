"""`stopgrad gradients`: what reached the embeddings over a run, of several runs side by side, as text and as SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from stopgrad.contracts import ConfigError, MissingInputError
from stopgrad.recipe.text import load as load_recipe
from stopgrad.reporting.charts import thinned
from stopgrad.reporting.found import printable
from stopgrad.reporting.terminal import curves
from stopgrad.rundir import RunDir, check_place, write_bytes
from stopgrad.study.lab.curves import drawn

FIELDS = ("gradient_positive", "gradient_negative", "gradient_balance", "cosine_positive", "cosine_random", "rank_z")
HEAD = ("run", "method", "pull, first", "last", "push, first", "last", "push over pull, first", "last")


def gradients(runs: Sequence[Path], output: Path) -> tuple[list[list[str]], Path]:
    """A row a run, and the drawing. Raises MissingInputError, ConfigError for a run that has not measured them and for
    an output that is no .svg, StorageError."""
    if not runs:
        raise ConfigError("gradients: no run named; give one or more run folders, such as runs/NAME")
    if output.suffix != ".svg":
        raise ConfigError(f"--output {str(output)!r} must end in .svg")
    check_place(output)
    found = {name: of_run(path) for name, path in named(runs).items()}
    rows = [list(HEAD)]
    for name, (method, lines) in found.items():
        numbers = [lines[field][end][1] for field in FIELDS[:3] for end in (0, -1)]
        rows.append([name, method, *(f"{value:.3g}" for value in numbers)])
    write_bytes(output, drawn({name: lines for name, (_, lines) in found.items()}, FIELDS).encode())
    return rows, output


def of_run(path: Path) -> tuple[str, Mapping[str, list[list[float]]]]:
    """Its method, and its curves."""
    run = RunDir(path)
    if not run.recipe.is_file():
        raise MissingInputError(f"{path}: no run there (no recipe.yaml); a run folder is what `stopgrad train` made")
    method, log = load_recipe(run.recipe).method.name, run.read_log()
    lines = {field: [list(point) for point in thinned(curves(log, field))] for field in FIELDS}
    if not all(lines[field] for field in FIELDS[:3]):
        raise ConfigError(
            f"{path} has not measured what reaches its embeddings; train it with --set watch.gradients=true, as in: "
            f"stopgrad train {method} --set watch.gradients=true"
        )
    return method, {field: points for field, points in lines.items() if points}


def named(runs: Sequence[Path]) -> dict[str, Path]:
    """By the folders' names; by their whole paths where two have the same."""
    short = [printable(path.resolve().name) for path in runs]
    names = short if len(set(short)) == len(short) else [printable(str(path)) for path in runs]
    return dict(zip(names, runs))
