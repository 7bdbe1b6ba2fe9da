"""`stopgrad compare`: every method with the same budget on the same images, seed after seed, in one table.

Each run has a process of its own, so that its memory and speed are its own and its crash takes nothing with it. The
table is written again after every run; the same command goes on where it was stopped. In the folder:

    compare.md, compare.json    the table, the second with every number of every run
    recipes/METHOD.yaml         what is trained
    METHOD-SEED/                a run like any other
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from stopgrad.assemble.report import processor
from stopgrad.contracts import ConfigError, DataError, InterruptedRunError, LockedError, StorageError
from stopgrad.data import Data, DataConfig, open_data
from stopgrad.data.probe import this_machine
from stopgrad.media import medium_of
from stopgrad.recipe import Recipe
from stopgrad.recipe.text import dump
from stopgrad.recipe.text import load as load_recipe
from stopgrad.reporting.found import printable
from stopgrad.rundir import RunDir, write_bytes
from stopgrad.study.comparison import FORMAT, Comparison, run_name
from stopgrad.study.measured import differing
from stopgrad.study.plan import Composed, Plan, command, compose, differences, folder_for
from stopgrad.study.process import Said, in_a_process
from stopgrad.training import signals
from stopgrad.training.progress import Progress
from stopgrad.views.config import ViewsConfig

STOPPED = 65  # exit code of a run that ended itself: its loss or features were not finite, it collapsed and should stop
STORAGE = 74
LOCK_POLL = 0.5  # seconds

Train = Callable[[Path, str, Path, int, float], Said]  # out, name, recipe, seed, minutes (0: the recipe's epochs)


def compare(
    plan: Plan, out: Path | None = None, *, progress: Progress | None = None, train: Train | None = None
) -> Comparison:
    """Train what is not trained yet and return the table, which stands in `out` after every run.

    out: by default runs/compare-DATA.  train: how one run is trained; by default in a process of its own.
    Raises ConfigError (also: the folder holds another comparison), DataError (also: no run was finished),
    MissingInputError, LockedError, StorageError, InterruptedRunError.
    """
    composed = compose(plan)
    out = out or folder_for(composed.any.data.source)
    progress = progress or Progress()
    with held(out, "compare.json"):
        there = _stored(out)
        if there:
            _check_settings(there, plan, composed, out)
        with stoppable(command(composed.settings, plan.asked, plan.seeds, out), progress):
            found = _begin(plan, composed, out, there, progress)
            _train_all(found, plan, progress, train or in_a_process)
    if not found.finished:
        why = next((f"; {method}: {why}" for method, why in found.table.notes), "")
        raise DataError(f"compare: no run was finished{why}")
    return found


@contextlib.contextmanager
def stoppable(again: str, progress: Progress) -> Iterator[None]:
    """Ctrl-C, SIGTERM and SIGUSR1 end what runs in here with what to type to go on, `again`. The progress is closed
    however it ends. Raises InterruptedRunError."""
    try:
        with signals.raised():
            yield
    except KeyboardInterrupt as error:
        message = f"stopped; what was trained is kept, go on with: {again}"
        raise InterruptedRunError(message, signals.code_of(error)) from error
    finally:
        progress.close()


@contextlib.contextmanager
def held(out: Path, table: str) -> Iterator[None]:
    """The folder is ours: nobody else works in it, and it holds nothing but a study, which has the file `table`."""
    own = ("lock", f"{table}.tmp")  # what one that was killed at its start leaves
    if (out / "recipe.yaml").exists():
        raise ConfigError(f"--out {out} is a run; name a folder of its own for the comparison")
    if out.is_dir() and not (out / table).exists() and any(one.name not in own for one in out.iterdir()):
        raise ConfigError(f"--out {out} holds something else; name a folder of its own for the comparison")
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(RunDir(out).locked())
        except LockedError as error:
            raise LockedError(f"{str(error).rpartition(';')[0]}; wait for it, or choose another --out") from error
        yield


def _stored(out: Path) -> dict[str, Any]:
    """What compare.json says was asked for; {} where there is none."""
    path = out / "compare.json"
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text())
        if found["format"] != FORMAT:
            raise ValueError(f"format {found['format']!r}")
        return {
            "settings": dict(found["settings"]),
            "methods": [str(name) for name in found["methods"]],
            "seeds": int(found["seeds"]),
            "data": dict(found["data"]),
            "machines": [str(name) for name in found["machines"]],
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ConfigError(f"{path} can't be read as a comparison ({error}); choose another --out") from error


def _check_settings(there: Mapping[str, Any], plan: Plan, composed: Composed, out: Path) -> None:
    """Raises ConfigError where what is there was made otherwise than what is asked for."""
    found = differences(there["settings"], composed.settings)
    if not found:
        for method, recipe in composed.recipes.items():
            path = _recipe_file(out, method)
            if path.exists():
                keys = differing([load_recipe(path), recipe])
                found += [f"{method}: {key} is {was} there, {now} here" for key, (was, now) in keys.items()]
    if plan.minutes is not None and machine() not in there["machines"]:
        found.append(f"machine is {'; '.join(there['machines'])} there, {machine()} here")
    _refuse(found, there, out)


def _refuse(found: list[str], there: Mapping[str, Any], out: Path) -> None:
    if found:
        again = command(there["settings"], there["methods"], there["seeds"], out)
        raise ConfigError(
            f"{out} holds a comparison made otherwise: {'; '.join(found)}. For a new one choose another --out; "
            f"that one goes on with: {again}"
        )


def _begin(plan: Plan, composed: Composed, out: Path, there: Mapping[str, Any], progress: Progress) -> Comparison:
    """Opens the images, which decodes them before any run is measured, and writes the table without a run."""
    data = _described(composed, progress)
    asked = list(plan.asked)
    found = Comparison(
        out=out,
        methods=[*there["methods"], *(m for m in asked if m not in there["methods"])] if there else asked,
        seeds=max(plan.seeds, there["seeds"]) if there else plan.seeds,
        settings=composed.settings,
        data=data,
        machines=list(dict.fromkeys([*there.get("machines", []), machine()])),
        refused=composed.refused,
    )
    if there:
        _refuse(differences({"data": there["data"]}, {"data": data}), there, out)
    found.write()
    for method, recipe in composed.recipes.items():
        path = _recipe_file(out, method)
        if not path.exists():
            write_bytes(path, dump(recipe, f"{method} as it is compared; its runs differ in their seed").encode())
    return found


def _recipe_file(out: Path, method: str) -> Path:
    return out / "recipes" / f"{method}.yaml"


def _described(composed: Composed, progress: Progress) -> dict[str, Any]:
    """What there is to train on. Stores are made here, so that no run's memory is that of decoding."""
    opened = {}
    for recipe in composed.recipes.values():
        key = (recipe.data, recipe.views.kind, recipe.views.sides)
        if key not in opened:
            opened[key] = _opened(recipe, progress)
    data = next(iter(opened.values()))
    return {
        "name": data.name,
        "synthetic": data.synthetic,
        "train": len(data.train),
        "test": len(data.test),
        "fingerprint": data.fingerprint[:12],
    }


def _opened(recipe: Recipe, progress: Progress) -> Data:
    if isinstance(recipe.data, DataConfig) and isinstance(recipe.views, ViewsConfig):  # by whom torch is not imported
        return open_data(recipe.data, recipe.views.image_size, progress=progress.reading)
    return medium_of(recipe.views).open(recipe.data, recipe.views, progress.reading)


def machine() -> str:
    """What the runs are trained on, in words; what a run's own report says in addition is its own."""
    here = this_machine()
    torch = "unknown"
    with contextlib.suppress(PackageNotFoundError):
        torch = version("torch")
    gpu = f"{here.gpu}, " if here.gpu else ""
    return f"{gpu}{processor()}, {here.cores} core{'s' * (here.cores != 1)}, torch {torch}"


def _train_all(found: Comparison, plan: Plan, progress: Progress, train: Train) -> None:
    """Seeds outside, methods inside: stopped early, it has every method once."""
    todo = [
        (method, seed)
        for seed in range(plan.seeds)
        for method in plan.asked
        if method not in found.refused and not settled(found.out / run_name(method, seed))
    ]
    for method, why in found.refused.items():
        progress.say(f"{method} can't be compared: {printable(why)}")
    long = f", {plan.minutes:g} minutes and an evaluation each" if plan.minutes else ""
    progress.say(f"{len(todo)} of {len(plan.asked) * plan.seeds} runs to train{long}, into {found.out}")
    for position, (method, seed) in enumerate(todo, 1):
        name = run_name(method, seed)
        progress.say(f"\nrun {position} of {len(todo)}: {method}, seed {seed}")
        wait_for(RunDir(found.out / name), progress)
        code, why = train(found.out, name, _recipe_file(found.out, method), seed, plan.minutes or 0.0)
        if code:
            found.ended[name] = why
            progress.say(f"{method}, seed {seed} failed: {printable(why)}")
        found.write()
        progress.say(f"{found.finished} of {len(found.methods) * found.seeds} runs are in {found.out / 'compare.md'}")
        if code == STORAGE:  # the others would meet the same disk
            raise StorageError(why)


def settled(path: Path) -> bool:
    """Whether a run is finished, or ended itself in a way that trying again would repeat."""
    run = RunDir(path)
    state = run.state()
    if state.get("state") == "finished":
        return run.results.exists()
    return state.get("state") == "failed" and state.get("exit_code") == STOPPED and run.begun()


def wait_for(run: RunDir, progress: Progress) -> None:
    """Until nobody holds the run: the process of a comparison that was killed saves its state first."""
    said = False
    while run.lock_file.exists():
        try:
            with run.locked():
                return
        except LockedError as error:
            if not said:
                progress.say(f"waiting: {str(error).rpartition(';')[0]}")
            said = True
            time.sleep(LOCK_POLL)
