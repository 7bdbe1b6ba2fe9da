"""A composed recipe becomes a run: its folder is taken, the recipe is written, then torch is imported."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from stopgrad.contracts import ConfigError
from stopgrad.recipe import Recipe
from stopgrad.recipe.text import dump
from stopgrad.rundir import RunDir

if TYPE_CHECKING:
    from stopgrad.assemble.train import Finished
    from stopgrad.training.progress import Progress


def begin_run(
    run: RunDir, recipe: Recipe, reasons: Sequence[str], minutes: float | None, progress: Progress | None
) -> Finished:
    """Train a recipe as it is. reasons: why its settings are as they are, a line each.

    Raises ConfigError where the folder holds a run, and what `train.carry_out` raises.
    """
    with run.locked():
        if run.writes and run.begun():
            raise ConfigError(
                f"{run.path} already holds a run; continue it with `stopgrad train {run.path} --resume`, "
                "or choose another --name"
            )
        run.set_status("running", **({"minutes": minutes} if minutes else {}))
        run.write(run.recipe, dump(recipe).encode())
        _say_why(reasons, run, progress)
        from stopgrad.assemble.train import carry_out

        return carry_out(run, recipe, minutes or 0.0, progress)


def _say_why(reasons: Sequence[str], run: RunDir, progress: Progress | None) -> None:
    from stopgrad.training.progress import Progress

    progress = progress or Progress(quiet=not run.writes)
    if reasons:
        progress.say("settings that were chosen for this run, and why:")
    for line in reasons:
        progress.say(f"  {line}")
