"""What is kept of a run of a study: its numbers, its curves, a sum of its weights. Runs are large and stay where they
were made; records are a few kilobytes each, and a study goes on from them on any machine.

A run's name is that of its recipe: METHOD-DIGEST-SEED. Studies that ask for the same recipe share it. A record has the
whole recipe and counts for one that is equal to it: a setting that came later, at its default, costs no run, and a
default that was changed does.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from stopgrad.assemble.api import diagnose_run
from stopgrad.contracts import ConfigError
from stopgrad.recipe import Recipe
from stopgrad.recipe.recipe import from_dict
from stopgrad.recipe.typed import chosen, plain
from stopgrad.reporting.charts import thinned
from stopgrad.reporting.found import results_in
from stopgrad.reporting.terminal import curves
from stopgrad.rundir import RunDir, write_bytes
from stopgrad.study.measured import read_finished
from stopgrad.version import __version__

FORMAT = 1
POINTS = 60  # of a curve
DIGEST = 12  # characters of a recipe's sha256
CURVES = (
    "loss",
    "std_ratio",
    "knn_top1",
    "rank_h",
    "rank_z",
    "correlation_z",
    "alignment",
    "uniformity",
    "cosine_positive",
    "cosine_random",
    "similarity",
    "agreement",
    "balance",
    "gradient_positive",
    "gradient_negative",
    "gradient_balance",
    "gradient_first_layer",
    "predictor_view",
    "predictor_mean",
    "projection_mean",
    "predictor_alignment",
    "predictor_asymmetry",
    "kl",
    "target_entropy",
)  # fields of the log that are kept, where there are any


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """One run."""

    name: str
    seed: int
    recipe: Mapping[str, Any]  # as it was asked for, before it met data and machine
    verdict: str
    values: Mapping[str, float] = field(default_factory=dict)  # as in results.json, and `loss`, the last of the log
    tested: int = 0  # images the scores were measured on
    curves: Mapping[str, list[list[float]]] = field(default_factory=dict)  # field of the log -> [[step, value], ...]
    weights: str = ""  # sha256 of encoder.safetensors
    why: str = ""  # where it did not come to an end
    machine: str = ""
    stopgrad: str = __version__


def run_name(recipe: Recipe) -> str:
    """METHOD-DIGEST-SEED. The digest is that of what is not at its default, but for the seed."""
    settings = json.dumps(chosen(replace(recipe, seed=0)), sort_keys=True)
    return f"{recipe.method.name}-{hashlib.sha256(settings.encode()).hexdigest()[:DIGEST]}-{recipe.seed}"


def of_run(path: Path, recipe: Recipe, machine: str) -> Record:
    """Of a finished run. Raises what `read_finished` raises."""
    run = RunDir(path)
    found, _ = read_finished(path, seed=recipe.seed)
    log = run.read_log()
    drawn = drawn_of(log)
    tested = max((row.n for row in results_in(run.results.read_text()) if row.split == "test"), default=0)
    ends = {"loss": curves(log, "loss")[-1][1]} if "loss" in drawn else {}
    return Record(
        name=run_name(recipe),
        seed=recipe.seed,
        recipe=plain(recipe),
        verdict=found.verdict,
        values={**found.values, **ends},
        tested=tested,
        curves=drawn,
        weights=hashlib.sha256(run.encoder.read_bytes()).hexdigest() if run.encoder.exists() else "",
        machine=machine,
    )


def failed(path: Path, recipe: Recipe, why: str, machine: str) -> Record:
    """Of a run that ended itself: its loss was no number, or it stopped because it collapsed."""
    return Record(
        name=run_name(recipe),
        seed=recipe.seed,
        recipe=plain(recipe),
        verdict=diagnose_run(path).verdict,
        curves=drawn_of(RunDir(path).read_log()),
        why=why,
        machine=machine,
    )


def drawn_of(log: Sequence[Mapping[str, Any]]) -> dict[str, list[list[float]]]:
    """The curves that a log has, in as many points and figures as a small drawing shows."""
    found = {key: thinned(curves(log, key), POINTS) for key in CURVES}
    return {key: [[step, float(f"{value:.4g}")] for step, value in points] for key, points in found.items() if points}


def write(folder: Path, record: Record) -> None:
    """A line for each field: small, and what changed is seen."""
    fields = {"format": FORMAT, **asdict(record)}
    lines = [f"{json.dumps(key)}:{json.dumps(value, separators=(',', ':'))}" for key, value in fields.items()]
    write_bytes(folder / f"{record.name}.json", ("{" + ",\n".join(lines) + "}\n").encode())


def read(folder: Path, recipe: Recipe) -> Record | None:
    """Of a recipe; None where there is none, or one of other defaults. Raises ConfigError for a file that is none."""
    path = folder / f"{run_name(recipe)}.json"
    if not path.exists():
        return None
    try:
        found: dict[str, Any] = json.loads(path.read_text())
        if found.pop("format") != FORMAT:
            raise ValueError("another format")
        record = Record(**found)
        if not all(isinstance(value, int | float) and math.isfinite(value) for value in record.values.values()):
            raise ValueError("values are no numbers")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ConfigError(
            f"{path} can't be read as a record ({error}); delete it, and its run is made again"
        ) from error
    return record if is_of(record, recipe) else None


def is_of(record: Record, recipe: Recipe) -> bool:
    """Whether a record is of this recipe; settings that came after it count as their defaults."""
    try:
        return from_dict(record.recipe) == recipe
    except ConfigError:  # a setting that is gone
        return False
