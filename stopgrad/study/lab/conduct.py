"""`stopgrad study NAME`: train what a study still lacks, then write its page.

Two folders: `out` has the runs, which are large; `pages` has a page a study (Markdown, CSV, LaTeX, SVG) and `records/`,
a few kilobytes a run, which is all that a page is made of. A study goes on from its records, on any machine.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from stopgrad.assemble import api
from stopgrad.contracts import ConfigError, StorageError, did_you_mean
from stopgrad.recipe import Recipe
from stopgrad.recipe.text import dump, load
from stopgrad.recipe.typed import plain
from stopgrad.reporting.found import printable
from stopgrad.rundir import write_bytes
from stopgrad.study.compare import STOPPED, STORAGE, held, machine, settled, stoppable, wait_for
from stopgrad.study.lab import records
from stopgrad.study.lab.definition import EPOCHS, PRESET, SCALES, Case, Scale, Study
from stopgrad.study.lab.records import Record
from stopgrad.study.process import Said, in_a_process
from stopgrad.training.progress import Progress

OUT = Path("runs") / "studies"
LOCAL = (0.05, 0.25)  # share of the image's area in a local crop; whole ones begin where it ends
Train = Callable[[Path, str, Path, int, float], Said]  # out, name, recipe, seed, minutes (always 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """Which study, and how."""

    study: Study
    scale: Scale = "tiny"
    data: str | None = None  # None: the preset's own
    recipe: str = ""  # METHOD/RECIPE is the preset; "": the scale's
    seeds: int = 0  # 0: the study's
    settings: tuple[str, ...] = ()  # a.b=c for every case, applied last

    def __post_init__(self) -> None:
        if self.scale not in SCALES:
            raise ConfigError(f"--scale must be one of {', '.join(SCALES)}, got {self.scale!r}")
        if self.seeds < 0:
            raise ConfigError(f"--seeds must be 1 or more, got {self.seeds}")

    @property
    def preset(self) -> str:
        return self.recipe or PRESET[self.scale]

    @property
    def count(self) -> int:
        """Seeds."""
        return self.seeds or self.study.seeds

    @property
    def cases(self) -> list[Case]:
        """Those that are run at this scale."""
        return [case for case in self.study.cases if self.scale in case.scales]


@dataclass(frozen=True, slots=True)
class Row:
    """A case as it is run: its recipe with seed 0, or why it has none."""

    case: Case
    recipe: Recipe | None
    why: str = ""

    def with_seed(self, seed: int) -> Recipe:
        """Of its run."""
        assert self.recipe is not None
        return replace(self.recipe, seed=seed)


def compose(asked: Asked) -> list[Row]:
    """A row a case. Raises ConfigError where no case can be run; one that can't is a row that says why."""
    rows, errors = [], []
    for case in asked.cases:
        try:
            rows.append(Row(case, recipe_of(asked, case)))
        except ConfigError as error:
            rows.append(Row(case, None, str(error)))
            errors.append(error)
    if len(errors) == len(rows):
        raise errors[0] if errors else ConfigError(f"{asked.study.name} has no case at --scale {asked.scale}")
    return rows


def recipe_of(asked: Asked, case: Case) -> Recipe:
    """The preset with the study's settings, then the case's, then the user's."""
    options = api.Options(
        data=asked.data,
        epochs=epochs_of(asked, case),
        seed=0,
        settings=[*views_of(asked, case), *settings_of(asked, case)],
    )
    return api.compose(preset_of(asked, case), options)


def preset_of(asked: Asked, case: Case) -> str:
    return f"{case.method or asked.study.method}/{asked.preset}"


def settings_of(asked: Asked, case: Case) -> list[str]:
    return [*asked.study.settings, *case.settings, *asked.settings]


def views_of(asked: Asked, case: Case) -> list[str]:
    """The preset's first crop as often as the case wants views, and local ones; nothing where it has two, as presets
    have."""
    if case.views == 2 and not case.local:
        return []
    _, views = api.compose(preset_of(asked, case), api.Options()).of_images(f"study {asked.study.name}")
    first = views.crops[0]
    small = replace(first, size=(first.size or views.image_size) // 2, scale=LOCAL)
    whole = replace(first, scale=(LOCAL[1], 1.0)) if case.local else first
    return [f"views.crops={json.dumps([plain(whole)] * case.views + [plain(small)] * case.local)}"]


def epochs_of(asked: Asked, case: Case) -> int:
    return max(1, round(EPOCHS[asked.scale] * case.epochs))


def command_of(asked: Asked, case: Case) -> str:
    """What to type to train a case by itself, with seed 0."""
    words = ["stopgrad", "train", preset_of(asked, case)]
    words += ["--data", asked.data] if asked.data else []
    words += ["--epochs", str(epochs_of(asked, case))]
    settings = [*views_of(asked, case), *settings_of(asked, case)]
    return shlex.join([*words, *(["--set", *settings] if settings else [])])


def again_of(asked: Asked, out: Path = OUT, pages: Path | None = None) -> str:
    """What to type to go on with a study."""
    words = ["stopgrad", "study", asked.study.name]
    words += ["--scale", asked.scale] if asked.scale != "tiny" else []
    words += ["--data", asked.data] if asked.data else []
    words += ["--recipe", asked.recipe] if asked.recipe else []
    words += ["--seeds", str(asked.seeds)] if asked.seeds else []
    words += ["--out", str(out)] if out != OUT else []
    words += ["--pages", str(pages)] if pages is not None and pages != out / "pages" else []
    return shlex.join([*words, *(["--set", *asked.settings] if asked.settings else [])])


@dataclass(frozen=True, kw_only=True, slots=True)
class Conducted:
    """A study as far as it has come."""

    asked: Asked
    rows: Sequence[Row]
    found: Mapping[str, Sequence[Record]]  # case -> records, one a seed that was run

    @property
    def done(self) -> int:
        return sum(map(len, self.found.values()))

    @property
    def total(self) -> int:
        return sum(row.recipe is not None for row in self.rows) * self.asked.count


def gather(asked: Asked, rows: Sequence[Row], pages: Path) -> Conducted:
    """What there are records of."""
    found = {}
    for row in rows:
        recipes = [row.with_seed(seed) for seed in range(asked.count)] if row.recipe is not None else []
        kept = (records.read(pages / "records", recipe) for recipe in recipes)
        found[row.case.name] = [record for record in kept if record is not None]
    return Conducted(asked=asked, rows=rows, found=found)


def conduct(
    asked: Asked,
    write_page: Callable[[Conducted, Path], Path],
    *,
    out: Path = OUT,
    pages: Path | None = None,
    train: Train | None = None,
    progress: Progress | None = None,
) -> Path:
    """Train what is missing, one run after the other, and return the page, which is written again after every run.

    pages: by default out/pages.  train: how one run is trained; by default in a process of its own. Raises ConfigError,
    MissingInputError, LockedError, StorageError, InterruptedRunError.
    """
    pages, progress = pages or out / "pages", progress or Progress()
    rows = compose(asked)
    with held(out, "pages"):
        (out / "pages").mkdir(parents=True, exist_ok=True)
        with stoppable(again_of(asked, out, pages), progress):
            page = write_page(gather(asked, rows, pages), pages)
            for row, seed in missing(asked, rows, pages):
                one_run(asked, row, seed, out, pages, train or in_a_process, progress)
                page = write_page(gather(asked, rows, pages), pages)
    return page


def missing(asked: Asked, rows: Sequence[Row], pages: Path) -> list[tuple[Row, int]]:
    """Seeds outside, cases inside: stopped early, it has every case once. A recipe that two cases share comes once."""
    out, named = [], set()
    for seed in range(asked.count):
        for row in rows:
            if row.recipe is None:
                continue
            recipe = row.with_seed(seed)
            name = records.run_name(recipe)
            if name not in named and records.read(pages / "records", recipe) is None:
                out.append((row, seed))
            named.add(name)
    return out


def one_run(asked: Asked, row: Row, seed: int, out: Path, pages: Path, train: Train, progress: Progress) -> None:
    """Train a case, or go on with it, and keep its record. What fails for another reason than the run's own is said."""
    from stopgrad.rundir import RunDir

    recipe = row.with_seed(seed)
    name = records.run_name(recipe)
    progress.say(f"\n{asked.study.name}: {row.case.name}, seed {seed}")
    file = out / "recipes" / f"{name}.yaml"
    run = RunDir(out / name)
    if file.exists() and run.path.exists() and load(file) != recipe:
        raise ConfigError(f"{run.path} is of a version with other defaults ({file}); delete it, or use another --out")
    write_bytes(file, dump(recipe, f"{asked.study.name}: {row.case.name}").encode())
    wait_for(run, progress)
    code, why = (0, "") if settled(run.path) else train(out, name, file, seed, 0.0)
    if code == STORAGE:
        raise StorageError(why)
    if code == 0 and run.state().get("state") == "finished":
        record = records.of_run(run.path, recipe, machine())
    elif STOPPED in (code, run.state().get("exit_code")):  # its loss was no number, or it collapsed
        record = records.failed(run.path, recipe, why or str(run.state().get("message", "")), machine())
    else:
        progress.say(f"{row.case.name}, seed {seed} was not finished: {printable(why)}")
        return
    records.write(pages / "records", record)


def study_named(name: str, studies: Mapping[str, Study]) -> Study:
    """Raises ConfigError with the nearest name."""
    if name not in studies:
        raise ConfigError(f"no study {name!r}{did_you_mean(name, studies)}; `stopgrad study list` names them all")
    return studies[name]
