"""A second method that is SimSiam under another name, runs that were never trained, and a trainer that makes them."""

import json
from pathlib import Path

import pytest

from stopgrad.contracts import ConfigError
from stopgrad.recipe import Recipe
from stopgrad.recipes import RECIPES
from stopgrad.rundir import RunDir
from stopgrad.study import plan
from stopgrad.study.process import Said
from tests.reporting import made


def two_methods(monkeypatch: pytest.MonkeyPatch) -> None:
    """METHODS are simsiam and `second`, which has views of its own; `broken` has no recipe that can be composed."""

    def second() -> Recipe:
        from stopgrad.recipe.text import override

        one = "{scale: [0.1, 0.5], blur: 0.0}"
        return override(RECIPES["simsiam/scenes"](), [f"views.crops=[{one}, {one}]"])

    def broken() -> Recipe:
        raise ConfigError("broken has no parts")

    monkeypatch.setitem(RECIPES, "second/scenes", second)
    monkeypatch.setitem(RECIPES, "broken/scenes", broken)
    rows = dict.fromkeys(("simsiam", "second", "broken"), plan.METHODS["simsiam"])
    monkeypatch.setattr(plan, "METHODS", rows)


def finished(path: Path, *settings: str, knn: float = 40.0, verdict: str = "healthy") -> Path:
    """The folder of a finished run."""
    rows = (
        made.row("verdict", verdict),
        made.row("std_ratio", 0.97),
        made.row("images_per_second", 1234.5),
        made.row("peak_memory_mb", 800.0),
        made.row("knn_top1", knn),
        made.row("linear_top1", knn + 10),
        made.row("retrieval_at_1", 77.0),
        made.row("effective_rank", 100.0),
        made.row("baseline_random_knn_top1", 25.0),
        made.row("baseline_pixels_knn_top1", 27.0),
    )
    if path.is_dir():  # made by whoever looked for its lock
        for leftover in path.iterdir():
            leftover.unlink()
        path.rmdir()
    return made.run(path, *settings, results=rows, pictures=False)


class Trainer:
    """Instead of a process: makes the run at once, or ends as it was told."""

    def __init__(self, fails: dict[str, Said] | None = None, interrupt: str = "") -> None:
        self.fails, self.interrupt = fails or {}, interrupt
        self.names: list[str] = []

    def __call__(self, out: Path, name: str, recipe: Path, seed: int, minutes: float) -> Said:
        if name == self.interrupt:
            raise KeyboardInterrupt
        self.names.append(name)
        if name in self.fails:
            code, why = self.fails[name]
            RunDir(out / name).set_status("failed", message=why, exit_code=code)
            (out / name / "log.jsonl").write_text("")
            return code, why
        finished(out / name, f"seed={seed}", knn=40.0 + 2 * seed)
        return 0, ""


def stored(out: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((out / "compare.json").read_text())
    return found
