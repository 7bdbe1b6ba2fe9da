"""What `import stopgrad` offers, and what the command calls: names and options in, a run or scores out.

A recipe is composed, checked and written into the run's folder before torch is imported, so a mistake costs no wait and
a run that is killed during the imports can be resumed.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stopgrad.contracts import ConfigError, MissingInputError, Result
from stopgrad.data import SOURCES
from stopgrad.recipe import Recipe
from stopgrad.recipe.text import dump, override
from stopgrad.recipe.text import load as load_recipe
from stopgrad.recipes import recipe_named
from stopgrad.rundir import RunDir

if TYPE_CHECKING:
    from stopgrad.assemble.train import Finished
    from stopgrad.diagnose import Diagnosis
    from stopgrad.encoder import Encoder
    from stopgrad.training.progress import Progress


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What the command line changes in a recipe; None leaves the recipe's value."""

    data: str | None = None
    backbone: str | None = None
    epochs: int | None = None
    batch_size: int | None = None
    image_size: int | None = None
    seed: int | None = None
    stop_on_collapse: bool = False
    settings: Sequence[str] = ()  # "a.b=c", applied last

    def assignments(self) -> list[str]:
        """As settings of the recipe, in order."""
        by_key = {
            "data.source": self.data,
            "backbone.name": self.backbone,
            "loop.epochs": self.epochs,
            "loop.batch_size": self.batch_size,
            "views.image_size": self.image_size,
            "seed": self.seed,
            "watch.stop_on_collapse": "true" if self.stop_on_collapse else None,
        }
        return [f"{key}={value}" for key, value in by_key.items() if value is not None]


def compose(recipe: str | Path | Recipe, options: Options) -> Recipe:
    """A preset's name, a recipe file or a Recipe, with the options applied. Raises ConfigError or MissingInputError."""
    if not isinstance(recipe, Recipe):
        text = str(recipe)
        is_file = text.endswith((".yaml", ".yml")) or Path(text).is_file()
        if Path(text).is_dir() and (Path(text) / "recipe.yaml").exists():
            raise ConfigError(f"{text} is a run; continue it with --resume, or start its recipe: {text}/recipe.yaml")
        recipe = load_recipe(Path(text)) if is_file else recipe_named(text)
    if options.backbone not in (None, recipe.backbone.name):  # its stem and width were the other backbone's
        recipe = dataclasses.replace(recipe, backbone=type(recipe.backbone)())
    plain_options = dataclasses.replace(options, data=None)
    if options.data is not None:  # not through YAML: a folder may be called 2024 or `no`
        folder = Path(options.data).expanduser()
        named = options.data in SOURCES or not folder.exists()
        source = options.data if named else str(folder.absolute())  # resumed from another folder, it is still there
        recipe = dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, source=source))
    return override(recipe, [*plain_options.assignments(), *options.settings])


def folder_for(recipe: Recipe, out: str | Path, name: str) -> Path:
    """OUT/NAME; without a name, METHOD-SOURCE with a number where that is taken."""
    if name:
        if Path(name).name != name or name in (".", ".."):
            raise ConfigError(f"--name {name!r} must be a plain name, without folders; --out says where runs go")
        return Path(out) / name
    base = f"{recipe.method.name}-{Path(recipe.data.source).expanduser().resolve().name or 'root'}"
    taken = (Path(out) / (base if i == 1 else f"{base}-{i}") for i in range(1, 1_000_000))
    return next(path for path in taken if not RunDir(path).begun())


def train(
    recipe: str | Path | Recipe,
    *,
    out: str | Path = "runs",
    name: str = "",
    minutes: float | None = None,
    progress: Progress | None = None,
    options: Options | None = None,
    **changes: object,
) -> Finished:
    """Pretrain, evaluate, and say whether the run is healthy.

    recipe: METHOD[/PRESET], a recipe file, or a Recipe.  changes: fields of `Options` (data, backbone, epochs, ...).
    minutes: a training time instead of a number of epochs, turned into epochs before the first step.
    Raises ConfigError, DataError, MissingInputError, LockedError, StorageError, TrainingStoppedError,
    InterruptedRunError.
    """
    if unknown := changes.keys() - {field.name for field in dataclasses.fields(Options)}:
        allowed = ", ".join(field.name for field in dataclasses.fields(Options))
        raise ConfigError(f"train: unknown option {sorted(unknown)[0]!r}; allowed: {allowed}")
    options = dataclasses.replace(options or Options(), **changes)  # type: ignore[arg-type]
    if minutes is not None and options.epochs is not None:
        raise ConfigError("--minutes and --epochs both say how long to train; give one of them")
    if minutes is not None and not 0 < minutes < 1e6:
        raise ConfigError(f"--minutes must be above 0, got {minutes}")
    composed = compose(recipe, options)
    run = RunDir(folder_for(composed, out, name), writes=is_first_process())
    with run.locked():
        if run.writes and run.begun():
            raise ConfigError(
                f"{run.path} already holds a run; continue it with `stopgrad train {run.path} --resume`, "
                "or choose another --name"
            )
        run.set_status("running", **({"minutes": minutes} if minutes else {}))
        run.write(run.recipe, dump(composed).encode())
        from stopgrad.assemble.train import carry_out

        return carry_out(run, composed, minutes or 0.0, progress)


def is_first_process() -> bool:
    """Whether this process writes the run's folder; torchrun says so in the environment, before torch is imported."""
    return os.environ.get("RANK", "0") == "0"


def resume(path: str | Path, *, progress: Progress | None = None) -> Finished:
    """Go on where the newest checkpoint is, from step 0 where there is none; nothing is done to a finished run."""
    run = RunDir(Path(path), writes=is_first_process())
    if not run.recipe.exists():
        raise MissingInputError(f"{path}: no run to resume (no recipe.yaml); a new one is `stopgrad train METHOD`")
    recipe = load_recipe(run.recipe)
    with run.locked():
        from stopgrad.assemble.train import already_finished, carry_out

        minutes = run.state().get("minutes")  # killed before they became epochs
        return already_finished(run, recipe, progress) or carry_out(run, recipe, float(minutes or 0.0), progress)


def diagnose_run(path: str | Path) -> Diagnosis:
    """The verdict on a run, finished or not, from its log. Raises MissingInputError where there is no run."""
    from stopgrad.diagnose import diagnose
    from stopgrad.recipe.typed import plain

    run = RunDir(Path(path))
    if not run.recipe.exists():
        raise MissingInputError(f"{path}: no run there (no recipe.yaml)")
    return diagnose(run.verdict_lines(), plain(load_recipe(run.recipe)))


def load(path: str | Path) -> Encoder:
    """The encoder of a run folder or a .safetensors file. Raises MissingInputError or CheckpointError."""
    from stopgrad.encoder import load_encoder

    found = Path(path)
    if found.is_dir():
        run = RunDir(found)
        if not run.recipe.exists():
            raise MissingInputError(f"{path}: no run there (no recipe.yaml)")
        if not run.encoder.exists():
            raise MissingInputError(f"{path} has no encoder yet; finish it with `stopgrad train {path} --resume`")
        found = run.encoder
    elif found.suffix != ".safetensors":
        raise ConfigError(f"{path}: a run folder or a .safetensors file is needed; other formats can run code")
    return load_encoder(found)


def evaluate(
    path: str | Path,
    *,
    data: str | None = None,
    seed: int = 0,
    settings: Sequence[str] = (),
    progress: Progress | None = None,
) -> list[Result]:
    """Scores of a run's or file's encoder on `data` (a run: its own data by default), beside honest baselines."""
    folder = Path(path) if Path(path).is_dir() else None
    if folder is not None and (folder / "recipe.yaml").exists():
        recipe = load_recipe(folder / "recipe.yaml")
    else:
        if data is None:
            raise ConfigError(f"{path}: an encoder file does not say which images to use; add --data SRC")
        recipe = recipe_named("simsiam")
    if data is not None:
        recipe = dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, source=data))
    recipe = override(recipe, settings)
    encoder = load(path)
    from stopgrad.assemble.train import score

    return score(encoder, recipe, seed=seed, progress=progress)
