"""`stopgrad fewlabels`: what a pre-trained run is worth where labels are few, as one table and one chart.

At each number of labels: the same backbone from scratch, a linear probe on the run's frozen features, the run
fine-tuned, and that distilled on all images without labels (SimCLR v2, arXiv:2006.10029). Each training has a process
of its own; the table is written again after every one; the same command goes on where it was stopped. In the folder:

    fewlabels.md, .json, .html    the table; the second with every number of every run, the third with the chart
    recipes/NAME.yaml             what is trained
    WAY-LABELS-SEED/              a run like any other
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from stopgrad.assemble import api
from stopgrad.assemble.finetune import compose_distill, compose_finetune, open_for
from stopgrad.contracts import ConfigError, DataError, StorageError
from stopgrad.data import Data
from stopgrad.data.folder import expanded
from stopgrad.data.labels import choose, read_amount
from stopgrad.recipe import Recipe
from stopgrad.recipe.text import dump
from stopgrad.recipe.text import load as load_recipe
from stopgrad.reporting.found import printable
from stopgrad.rundir import RunDir, write_bytes
from stopgrad.study.compare import STORAGE, held, machine, settled, stoppable, wait_for
from stopgrad.study.few_table import FORMAT, TRAINED, FewLabels, run_name
from stopgrad.study.measured import differing
from stopgrad.study.plan import differences
from stopgrad.study.process import Said, in_a_process
from stopgrad.training.progress import Progress

Train = Callable[[Path, str, Path, int, float], Said]  # out, name, recipe, seed, minutes (0: the recipe's epochs)
Probe = Callable[[Path, Data, str, int], float]  # run, data, amount, seed -> percentage right on test
Cell = tuple[str, str, int]  # way, amount, seed
TABLE = "fewlabels.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class FewPlan:
    """A study as it is asked for."""

    runs: tuple[str, ...]  # finished pre-trainings: one for all seeds, or one a seed
    labels: tuple[str, ...] = ("1%", "10%", "100%")
    seeds: int = 3
    minutes: float | None = None  # of each training; or
    epochs: int | None = None
    data: str | None = None  # the run's own where None
    student: Literal["run", "scratch"] = "run"  # what a student begins from: the pre-trained weights, or random ones
    from_projector_layer: int | None = None
    settings: tuple[str, ...] = ()  # a.b=c, for every training, applied last

    def __post_init__(self) -> None:
        if not self.runs:
            raise ConfigError("fewlabels: name a finished run of `stopgrad train`, whose weights are made use of")
        if self.seeds < 1:
            raise ConfigError(f"--seeds must be 1 or more, got {self.seeds}; 3 show how far numbers spread")
        if len(self.runs) not in (1, self.seeds):
            raise ConfigError(
                f"fewlabels: {len(self.runs)} runs for {self.seeds} seeds; name one for all, or one a seed"
            )
        amounts = [read_amount(text).text for text in self.labels]
        if not amounts or len(set(amounts)) < len(amounts):
            raise ConfigError(f"--labels {','.join(self.labels)}: needs amounts that differ, such as 1%,10%,100%")
        if (self.minutes is None) == (self.epochs is None):
            raise ConfigError("fewlabels: say how long each run trains: --minutes 1.5, or --epochs 15, and not both")
        if self.minutes is not None and not 0 < self.minutes < 1e6:
            raise ConfigError(f"--minutes must be above 0, got {self.minutes}")
        if self.epochs is not None and self.epochs < 1:
            raise ConfigError(f"--epochs must be 1 or more, got {self.epochs}")
        if self.student not in ("run", "scratch"):
            raise ConfigError(f"--student must be run or scratch, got {self.student!r}")

    @property
    def amounts(self) -> list[str]:
        return [read_amount(text).text for text in self.labels]

    def run(self, seed: int) -> Path:
        """The pre-training of a seed."""
        return Path(self.runs[seed % len(self.runs)])

    @property
    def asked(self) -> dict[str, Any]:
        """What two sessions of one study must have in common."""
        return {
            "runs": list(self.runs),
            "data": self.data,
            "minutes": self.minutes,
            "epochs": self.epochs,
            "student": self.student,
            "from_projector_layer": self.from_projector_layer,
            "set": list(self.settings),
        }

    def options(self, seed: int) -> api.Options:
        return api.Options(data=self.data, epochs=self.epochs, seed=seed, settings=self.settings)


def fewlabels(
    plan: FewPlan,
    out: Path | None = None,
    *,
    progress: Progress | None = None,
    train: Train | None = None,
    probe: Probe | None = None,
) -> FewLabels:
    """Train what is not trained yet and return the table, which stands in `out` after every run.

    out: by default runs/fewlabels-RUN.  train: how one run is trained, by default in a process of its own; probe: how
    frozen features are scored.
    Raises ConfigError (also: the folder holds another study), DataError (also: no run was finished),
    MissingInputError, LockedError, StorageError, InterruptedRunError.
    """
    out = out or Path("runs") / f"fewlabels-{expanded(plan.runs[0]).resolve().name}"
    plan = replace(plan, runs=tuple(str(expanded(run).absolute()) for run in plan.runs))
    progress = progress or Progress()
    data = open_for(plan.run(0), plan.options(0), progress)
    for run in plan.runs[1:]:
        other = open_for(run, plan.options(0), progress)
        if other.fingerprint != data.fingerprint:
            raise ConfigError(
                f"fewlabels: {plan.runs[0]} has images of {data.name}, {run} others, of {other.name}; name runs on the "
                "same images, or add --data SRC"
            )
    images = {
        text: len(choose(data.train.labels, data.classes, read_amount(text), 0, data.name)) for text in plan.amounts
    }
    ahead = {  # every mistake that can be found is found before anything is trained
        (way, amount, seed): _compose(plan, way, amount, seed, out)
        for seed in range(plan.seeds)
        for amount in plan.amounts
        for way in ("supervised", "finetuned")  # a student's needs its teacher to be finished
    }
    with held(out, TABLE), stoppable(command(plan.asked, plan.amounts, plan.seeds, out), progress):
        found = _begin(plan, out, data, images)
        _probe(plan, found, data, progress, probe or Features())
        _all(plan, found, ahead, progress, train or in_a_process)
    if not found.finished:
        why = next((f"; {name}: {why}" for name, why in found.table.notes), "")
        raise DataError(f"fewlabels: no run was finished{why}")
    return found


def _begin(plan: FewPlan, out: Path, data: Data, images: dict[str, int]) -> FewLabels:
    """What is there already, with what is asked for besides; written without a new run."""
    there = _stored(out)
    described = {
        "name": data.name,
        "synthetic": data.synthetic,
        "train": len(data.train),
        "test": len(data.test),
        "fingerprint": data.fingerprint[:12],
    }
    if there:
        was, now = (
            {**one["settings"], "images": one["data"]} for one in (there, {"settings": plan.asked, "data": described})
        )
        found = differences(was, now)
        if plan.minutes is not None and machine() not in there["machines"]:
            found.append(f"machine is {'; '.join(there['machines'])} there, {machine()} here")
        if found:
            again = command(there["settings"], there["labels"], there["seeds"], out)
            raise ConfigError(
                f"{out} holds a study made otherwise: {'; '.join(found)}. For a new one choose another --out; that one "
                f"goes on with: {again}"
            )
    study = FewLabels(
        out=out,
        amounts=_by_number({**there.get("images", {}), **images}),
        seeds=max(plan.seeds, there.get("seeds", 0)),
        settings=plan.asked,
        data=described,
        machines=list(dict.fromkeys([*there.get("machines", []), machine()])),
        images={**there.get("images", {}), **images},
        probes=there.get("probes", {}),
    )
    study.write()
    return study


def _by_number(images: Mapping[str, int]) -> list[str]:
    return sorted(images, key=lambda amount: images[amount])


def _stored(out: Path) -> dict[str, Any]:
    """What fewlabels.json says was asked for and probed; {} where there is none."""
    path = out / TABLE
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text())
        if found["format"] != FORMAT:
            raise ValueError(f"format {found['format']!r}")
        return {
            "settings": dict(found["settings"]),
            "data": dict(found["data"]),
            "machines": [str(name) for name in found["machines"]],
            "labels": [read_amount(str(text)).text for text in found["labels"]],
            "images": {read_amount(str(text)).text: int(count) for text, count in found["images"].items()},
            "seeds": int(found["seeds"]),
            "probes": {str(name): float(value) for name, value in found["probes"].items()},
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, ConfigError) as error:
        raise ConfigError(f"{path} can't be read as a study of few labels ({error}); choose another --out") from error


def _compose(plan: FewPlan, way: str, amount: str, seed: int, out: Path) -> Recipe:
    """The recipe of one run. A student's needs its teacher to be finished."""
    options, run = plan.options(seed), plan.run(seed)
    if way == "distilled":
        init = str(run) if plan.student == "run" else None
        return compose_distill(out / run_name("finetuned", amount, seed), options=replace(options, init=init))[0]
    if way == "supervised":
        return compose_finetune(run, amount, from_scratch=True, options=options)[0]
    return compose_finetune(run, amount, from_projector_layer=plan.from_projector_layer, options=options)[0]


def _probe(plan: FewPlan, found: FewLabels, data: Data, progress: Progress, probe: Probe) -> None:
    """What frozen features are worth, which costs no training."""
    for seed in range(plan.seeds):
        for amount in plan.amounts:
            name = run_name("linear", amount, seed)
            if name not in found.probes:
                found.probes[name] = probe(plan.run(seed), data, amount, seed)
                progress.say(f"linear probe, {amount}, seed {seed}: {found.probes[name]:.1f} %")
    found.write()


def _all(plan: FewPlan, found: FewLabels, ahead: Mapping[Cell, Recipe], progress: Progress, train: Train) -> None:
    """Seeds outside: stopped early, there is every amount once."""
    cells = [(way, amount, seed) for seed in range(plan.seeds) for amount in plan.amounts for way in TRAINED]
    todo = [cell for cell in cells if not settled(found.out / run_name(*cell))]
    long = f", {plan.minutes:g} minutes and an evaluation each" if plan.minutes else ""
    progress.say(f"{len(todo)} of {len(cells)} runs to train{long}, into {found.out}")
    for position, cell in enumerate(todo, 1):
        (way, amount, seed), name = cell, run_name(*cell)
        progress.say(f"\nrun {position} of {len(todo)}: {way}, {amount}, seed {seed}")
        code, why = 0, ""
        if way == "distilled" and not can_teach(found.out / run_name("finetuned", amount, seed)):
            why = "its teacher did not finish"
        else:
            recipe = ahead.get(cell) or _compose(plan, way, amount, seed, found.out)
            code, why = _one(plan, found.out, name, recipe, progress, train)
        if why:
            found.ended[name] = why
            progress.say(f"{name} failed: {printable(why)}")
        found.write()
        progress.say(f"{found.finished} of {len(found.every)} runs are in {found.out / 'fewlabels.md'}")
        if code == STORAGE:  # the others would meet the same disk
            raise StorageError(why)


def can_teach(run: Path) -> bool:
    """Whether a run is finished."""
    return RunDir(run).state().get("state") == "finished"


def _one(plan: FewPlan, out: Path, name: str, recipe: Recipe, progress: Progress, train: Train) -> Said:
    """One training, by its recipe in the folder."""
    path = out / "recipes" / f"{name}.yaml"
    if path.exists() and (other := differing([load_recipe(path), recipe])):
        key, (was, now) = next(iter(other.items()))
        raise ConfigError(
            f"{out} holds a study made otherwise: {name}: {key} is {was} there, {now} here; choose another --out"
        )
    write_bytes(path, dump(recipe, f"{name} as it is trained").encode())
    wait_for(RunDir(out / name), progress)
    return train(out, name, path, recipe.seed, plan.minutes or 0.0)


class Features:
    """Linear probes on frozen features, which are computed once a run."""

    def __init__(self) -> None:
        self.known: dict[Path, tuple[Any, Any]] = {}  # of training and test images, [N, D] each

    def __call__(self, run: Path, data: Data, amount: str, seed: int) -> float:
        from stopgrad.eval.probes import linear_lbfgs

        if run not in self.known:
            self.known[run] = self._of(run, data)
        train, test = self.known[run]
        assert data.train.labels is not None
        if data.test.labels is None:
            raise DataError(f"fewlabels: the test split of {data.name} has no labels, so nothing can be measured")
        subset = choose(data.train.labels, data.classes, read_amount(amount), seed, data.name)
        return linear_lbfgs(train[subset], data.train.labels[subset], test, data.test.labels, seed=seed)

    def _of(self, run: Path, data: Data) -> tuple[Any, Any]:
        from stopgrad.assemble.build import pick_device
        from stopgrad.eval.extract import features

        encoder, device = api.load(run), pick_device()
        backbone = encoder.backbone.to(device)
        train, test = (features(backbone, part, encoder.preprocess, device=device) for part in (data.train, data.test))
        return train, test


def command(settings: Mapping[str, Any], labels: list[str], seeds: int, out: Path) -> str:
    """What to type to go on with a study."""
    words = ["stopgrad", "fewlabels", *map(str, settings["runs"]), "--labels", ",".join(labels), "--seeds", str(seeds)]
    for key in ("data", "minutes", "epochs", "student", "from_projector_layer"):
        if settings.get(key) is not None:
            value = settings[key]
            words += [f"--{key.replace('_', '-')}", f"{value:g}" if isinstance(value, float) else str(value)]
    words += [word for setting in settings.get("set") or () for word in ("--set", str(setting))]
    return shlex.join([*words, "--out", str(out)])
