"""What a finished run came to, as the numbers of a table. A run may be a stranger's: nothing it says is trusted."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stopgrad.contracts import MissingInputError, Result
from stopgrad.recipe import Recipe
from stopgrad.recipe.text import load as load_recipe
from stopgrad.recipe.typed import plain
from stopgrad.reporting.cost import trained
from stopgrad.reporting.found import printable, results_in
from stopgrad.rundir import RunDir

FINISHED, FAILED, TO_COME = "finished", "failed", "to come"
LARGEST = 1e15  # no score, speed or memory is above it
HEADLINES = ("knn_top1", "retrieval_at_1")  # whose protocol is told: with labels, without


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One run of a table."""

    state: str = TO_COME
    seed: int | None = None
    path: str = ""
    why: str = ""  # where it failed
    verdict: str = ""
    values: Mapping[str, float] = field(default_factory=dict)  # as in results.json, with epochs, minutes and seed's own
    protocol: str = ""  # of the headline

    def as_dict(self) -> dict[str, Any]:
        return {
            "seed": self.seed,
            "state": self.state,
            "path": self.path,
            "why": self.why,
            "verdict": self.verdict,
            "values": dict(self.values),
        }


def read_finished(path: Path, *, shown: str = "", seed: int | None = None) -> tuple[Run, Recipe]:
    """A finished run and its resolved recipe. Raises MissingInputError with what to type, ConfigError for its recipe.

    shown: the path as a table has it.
    """
    run = RunDir(path)
    if not run.recipe.is_file():
        raise MissingInputError(f"{path}: no run there (no recipe.yaml); a run folder is what `stopgrad train` made")
    state = str(run.state().get("state", "")) or "not begun"
    if state != "finished":
        raise MissingInputError(f"{path} is not finished ({state}); finish it with `stopgrad train {path} --resume`")
    try:
        results = results_in(run.results.read_text())
    except (OSError, ValueError) as error:
        fix = f"delete {run.status} and type `stopgrad train {path} --resume`"
        raise MissingInputError(f"{run.results}: no results that can be read; {fix}") from error
    recipe = load_recipe(run.recipe)
    values = {**_numbers(results), "epochs": float(recipe.loop.epochs), **_minutes(run, recipe)}
    verdict = next((row.value for row in results if row.name == "verdict"), None)
    told = next((row.protocol for name in HEADLINES for row in results if row.name == name), "")
    found = Run(
        state=FINISHED,
        seed=seed,
        path=shown or str(path),
        verdict=printable(str(verdict or "none")),
        values=values,
        protocol=printable(told),
    )
    return found, recipe


def _numbers(results: Sequence[Result]) -> dict[str, float]:
    """Rows that are numbers a table can hold: JSON knows 1e999, and whole numbers without end."""
    found = {row.name: row.value for row in results if isinstance(row.value, int | float)}
    return {name: float(value) for name, value in found.items() if abs(value) < LARGEST}


def _minutes(run: RunDir, recipe: Recipe) -> dict[str, float]:
    """Minutes spent training, over all sessions; nothing where the log does not say."""
    with contextlib.suppress(KeyError, TypeError, ValueError, ArithmeticError):
        _, seconds = trained(run.read_log(), recipe.loop.batch_size)
        if 0 < seconds < LARGEST:
            return {"minutes": seconds / 60}
    return {}


def mean_and_std(values: Sequence[float]) -> dict[str, float | int | None]:
    """{mean, std, n}; std of a sample (n - 1), None of a single value."""
    n = len(values)
    mean = math.fsum(values) / n
    std = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1)) if n > 1 else None
    return {"mean": mean, "std": std, "n": n}


def flat(values: Any, where: str = "") -> dict[str, Any]:
    """Nested plain settings by dotted key: {"optim.base_lr": 0.03, "views.crops.0.blur": 0.5, ...}."""
    if isinstance(values, dict):
        items = list(values.items())
    elif isinstance(values, list) and any(isinstance(value, dict) for value in values):
        items = list(enumerate(values))
    else:
        return {where: values}
    return {key: value for name, inner in items for key, value in flat(inner, f"{where}.{name}".lstrip(".")).items()}


def differing(recipes: Sequence[Recipe]) -> dict[str, list[Any]]:
    """Settings that are not equal in all of `recipes`, by dotted key: a value each, None where it has no such."""
    flats = [flat(plain(recipe)) for recipe in recipes]
    keys = dict.fromkeys(key for one in flats for key in one)
    rows = {key: [one.get(key) for one in flats] for key in keys}
    return {key: values for key, values in rows.items() if any(value != values[0] for value in values[1:])}
