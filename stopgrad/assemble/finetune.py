"""`stopgrad finetune` and `stopgrad distill`: from a finished run to the recipe of one that goes on from it.

Everything that can be wrong is found before the run's folder is made: what the run has, which images there are and how
many of each class. The run itself is one like any other: the same loop, folder and --resume.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stopgrad.assemble import api, begin
from stopgrad.assemble.starting import begin_run
from stopgrad.contracts import ConfigError, MissingInputError, Preprocess
from stopgrad.data import Data, open_data
from stopgrad.data.folder import expanded
from stopgrad.data.labels import Labels, choose, read_amount, set_aside
from stopgrad.data.sources import absolute
from stopgrad.methods.distill import DistillConfig
from stopgrad.methods.finetune import FinetuneConfig
from stopgrad.nn.config import BackboneConfig
from stopgrad.processes import how_many, is_first
from stopgrad.recipe import Recipe
from stopgrad.recipe.text import load as load_recipe
from stopgrad.recipe.text import named_settings, override
from stopgrad.recipes.fitted import of_size, told
from stopgrad.recipes.taught import Taken, distilled, finetuned
from stopgrad.rundir import RunDir

if TYPE_CHECKING:
    from stopgrad.assemble.train import Finished
    from stopgrad.training.progress import Progress

MIDDLE = ("simclr_v2",)  # methods whose projector is meant to be kept in part
SELF, SMALLER = 0.1, 1.0  # temperatures of the paper: a student as large as its teacher, a smaller one
LIKE = "simsiam"  # whose views and size a run from scratch has that nobody else's are given for


@dataclass(frozen=True, kw_only=True, slots=True)
class Where:
    """Where a run goes, and how long it trains; as `api.train` takes them."""

    out: str | Path = "runs"
    name: str = ""
    minutes: float | None = None
    progress: Progress | None = None


def finetune(
    run: str | Path | None,
    labels: str,
    *,
    from_projector_layer: int | None = None,
    from_scratch: bool = False,
    options: api.Options | None = None,
    where: Where | None = None,
) -> Finished:
    """Train a classifier and what it stands on with few labels.

    run: a finished run of any method; None with `from_scratch`, the supervised baseline, which has the run's backbone
    and images where one is named, else those of `options`.  labels: 1%, 10%, 5-per-class.  from_projector_layer: how
    many layers of the projector are kept; by default 1 of SimCLR v2's, else 0.
    Raises ConfigError, DataError, MissingInputError, CheckpointError, and what `api.train` raises.
    """
    where, options = where or Where(), options or api.Options()
    api.check_minutes(where.minutes, options)
    recipe, why = compose_finetune(
        run,
        labels,
        from_projector_layer=from_projector_layer,
        from_scratch=from_scratch,
        options=options,
        minutes=where.minutes or 0.0,
        progress=where.progress,
    )
    return _train(recipe, why, where)


def compose_finetune(
    run: str | Path | None,
    labels: str,
    *,
    from_projector_layer: int | None = None,
    from_scratch: bool = False,
    options: api.Options | None = None,
    minutes: float = 0.0,
    progress: Progress | None = None,
) -> tuple[Recipe, tuple[str, ...]]:
    """The recipe, and why its settings are as they are, a line each."""
    options, amount = options or api.Options(), read_amount(labels)
    _check_options("finetune", options, "baseline", "view", "init")
    start = _start(run, options, from_scratch, minutes)
    backbone, count = start.backbone, 0
    if from_scratch:
        if from_projector_layer:
            raise ConfigError(f"--from-projector-layer {from_projector_layer}: nothing is kept with --from-scratch")
        backbone = dataclasses.replace(backbone, init="", kept=())
        if options.backbone not in (None, backbone.name):
            backbone = BackboneConfig(name=str(options.backbone))
    else:
        assert run is not None
        if options.backbone is not None:
            raise ConfigError(
                f"--backbone {options.backbone}: fine-tuning has the run's; leave it out, or add --from-scratch"
            )
        usual = 1 if start.method.name in MIDDLE else 0
        count = usual if from_projector_layer is None else from_projector_layer
        backbone = _of_run(run, backbone, count)
    start, data = _with_data(start, options, progress)
    seed = _seed(options)
    subset = choose(data.train.labels, data.classes, amount, seed, data.name)
    kept, _ = set_aside(subset, data.train.labels, start.watch.images, seed)
    method = FinetuneConfig(labels=amount.text, classes=len(data.classes), from_projector_layer=count)
    taken = Taken(images=len(kept), share=len(subset) / len(data.train), processes=how_many())
    recipe, reasons = finetuned(start, backbone, method, taken)
    return _asked(recipe, reasons, options, (_counted(subset, data),))


def distill(
    teacher: str | Path,
    *,
    temperature: float | None = None,
    labels: str = "",
    alpha: float = 1.0,
    options: api.Options | None = None,
    where: Where | None = None,
) -> Finished:
    """Train a student on the answers of a fine-tuned run.

    teacher: a finished run of `finetune` or `distill`.  options: `data`, the images (the teacher's by default);
    `backbone`, the student's architecture, or `init`, weights it begins from: by default the teacher's architecture at
    random weights, without the kept layers.  temperature: by default 0.1 for that architecture, 1 for another.
    labels, alpha: labels that are learnt besides, and the share of the distillation in the loss.
    """
    where, options = where or Where(), options or api.Options()
    api.check_minutes(where.minutes, options)
    recipe, why = compose_distill(
        teacher, temperature=temperature, labels=labels, alpha=alpha, options=options, progress=where.progress
    )
    return _train(recipe, why, where)


def compose_distill(
    teacher: str | Path,
    *,
    temperature: float | None = None,
    labels: str = "",
    alpha: float = 1.0,
    options: api.Options | None = None,
    progress: Progress | None = None,
) -> tuple[Recipe, tuple[str, ...]]:
    """The recipe, and why its settings are as they are, a line each."""
    from stopgrad.assemble.lesson import CLASSIFIER, check_same_crop, preprocess_of
    from stopgrad.encoder.classifier import load_classifier

    options = options or api.Options()
    _check_options("distill", options, "baseline", "view", "image_size")
    start = _recipe_of(teacher)
    folder = expanded(str(teacher)).absolute()
    api.encoder_of(folder)
    _, classes = load_classifier(folder / CLASSIFIER)
    same = dataclasses.replace(start.backbone, init="", kept=())
    backbone = _student(same, start, options)
    if temperature is None:
        temperature = SELF if dataclasses.replace(backbone, init="", kept=()) == same else SMALLER
    start, data = _with_data(start, options, progress)
    known: tuple[str, ...] = ()
    if labels:
        amount = read_amount(labels)
        labels = amount.text
        subset = choose(data.train.labels, data.classes, amount, _seed(options), data.name)
        known = (_counted(subset, data),)
    method = DistillConfig(
        teacher=str(folder), classes=len(classes), temperature=temperature, labels=labels, alpha=alpha
    )
    count = len(data.train) - min(start.watch.images, len(data.train) // 10)
    recipe, reasons = distilled(start, backbone, method, Taken(images=count, share=0.0, processes=how_many()))
    told_temperature = f"method.temperature {temperature:g}: the paper's for a student {_as_large(temperature)}"
    recipe, why = _asked(recipe, reasons, options, (*known, told_temperature))
    if (taught_with := begin.read_start(str(folder)).preprocess) is not None:
        check_same_crop(taught_with, preprocess_of(recipe))
    return recipe, why


def _train(recipe: Recipe, why: Sequence[str], where: Where) -> Finished:
    run = RunDir(api.folder_for(recipe, where.out, where.name), writes=is_first())
    return begin_run(run, recipe, why, where.minutes, where.progress)


# --- what there is to begin with --------------------------------------------------------------------------------------


def _start(run: str | Path | None, options: api.Options, from_scratch: bool, minutes: float) -> Recipe:
    """The recipe whose images, size and backbone are taken over."""
    if run is not None:
        return _recipe_of(run)
    if not from_scratch:
        raise ConfigError(
            "finetune: name the run whose weights it begins from, or add --from-scratch for the supervised baseline"
        )
    like = api.Options(data=options.data, backbone=options.backbone, image_size=options.image_size)
    return api.choose(LIKE, like, minutes)[0]


def _check_options(command: str, options: api.Options, *names: str) -> None:
    """Raises ConfigError for what is given and nothing here would read."""
    for name in names:
        if getattr(options, name) is not None:
            raise ConfigError(f"{command}: {name}={getattr(options, name)!r} is read by nothing here; leave it out")


def _recipe_of(run: str | Path) -> Recipe:
    """Of a run on images. Raises MissingInputError, ConfigError."""
    folder = expanded(str(run))
    if not RunDir(folder).recipe.is_file():
        raise MissingInputError(f"{run}: no run there (no recipe.yaml); a run folder is what `stopgrad train` made")
    recipe = load_recipe(RunDir(folder).recipe)
    recipe.of_images(f"{run}: to fine-tune or distill")
    return recipe


def _of_run(run: str | Path, backbone: BackboneConfig, count: int) -> BackboneConfig:
    """The run's backbone with its weights, and `count` layers of its projector."""
    file = api.encoder_of(expanded(str(run)).absolute())
    if count < 0:
        raise ConfigError(f"--from-projector-layer must be 0 (the backbone alone) or more, got {count}")
    kept = backbone.kept
    if count:
        from stopgrad.assemble.projector import projector_layers

        kept += projector_layers(file.parent, count)[0]
    return dataclasses.replace(backbone, init=str(file), kept=kept)


def _student(same: BackboneConfig, start: Recipe, options: api.Options) -> BackboneConfig:
    """What is asked for; by default `same`, the teacher's architecture. start: the teacher's recipe."""
    if options.init is None:
        return same if options.backbone in (None, same.name) else BackboneConfig(name=str(options.backbone))
    weights = begin.read_start(options.init)
    begin.checked(weights, options.backbone, named_settings(options.settings))
    seen = weights.preprocess
    if seen is not None and not isinstance(seen, Preprocess):
        raise ConfigError(f"--init {options.init} reads samples of kind {seen.kind}, the teacher images; use another")
    if seen is not None:
        data, views = start.of_images("distill")
        theirs = (seen.image_size, seen.channels, seen.mean, seen.std)
        if theirs != (views.image_size, data.channels, *views.statistics(data.channels)):
            raise ConfigError(
                f"--init {options.init} was trained on crops of {seen.image_size} pixels and {seen.channels} channels, "
                f"normalised by {seen.mean} and {seen.std}; teacher and student see the same crop, and the teacher's "
                f"has {views.image_size} pixels, {data.channels} channels, {views.mean} and {views.std}; use weights "
                "that were trained alike"
            )
    plain = dataclasses.replace(start, backbone=BackboneConfig(name=weights.backbone))
    described = [setting for setting in weights.settings if setting.startswith("backbone.")]
    return dataclasses.replace(override(plain, described).backbone, init=weights.init)


def open_for(run: str | Path, options: api.Options, progress: Progress | None) -> Data:
    """The images that fine-tuning `run` with these options has."""
    return _with_data(_recipe_of(run), options, progress)[1]


def _with_data(start: Recipe, options: api.Options, progress: Progress | None) -> tuple[Recipe, Data]:
    """The recipe with the images that are asked for, and those, open."""
    named = named_settings((*options.assignments(), *options.settings))
    if options.data is not None:  # not through YAML: a folder may be called 2024 or `no`
        start = dataclasses.replace(start, data=dataclasses.replace(start.data, source=absolute(options.data)))
    start = override(start, [setting for setting in options.settings if setting.startswith(("data.", "data="))])
    data, views = start.of_images("--data")
    size = named.get("views.image_size")
    if size and size != views.image_size:
        start, _ = of_size(start, size, named.get("data.max_side", data.max_side))
    start = dataclasses.replace(
        start, watch=dataclasses.replace(start.watch, images=named.get("watch.images", start.watch.images))
    )
    if progress is None:
        from stopgrad.training.progress import Progress

        progress = Progress(quiet=not is_first())
    data, views = start.of_images("--data")
    return start, open_data(data, views.image_size, progress=progress.reading)


def _seed(options: api.Options) -> int:
    """The run's: --seed, or --set seed=N, or 0."""
    found = options.seed or 0
    for setting in options.settings:
        key, _, text = setting.partition("=")
        if key.strip() == "seed" and text.strip().isdecimal():  # anything else the recipe refuses, in its own words
            found = int(text)
    return found


# --- what is told of it -----------------------------------------------------------------------------------------------


def _asked(
    recipe: Recipe, reasons: dict[str, str], options: api.Options, lines: Sequence[str]
) -> tuple[Recipe, tuple[str, ...]]:
    """The recipe with the options applied, and why it is as it is."""
    settings = dataclasses.replace(options, data=None, backbone=None).assignments()
    asked = override(recipe, (*settings, *options.settings))
    return asked, (*lines, *told(asked, recipe, reasons))


def _counted(subset: Labels, data: Data) -> str:
    """How many labels there are, in words."""
    assert data.train.labels is not None
    counts = np.bincount(data.train.labels[subset], minlength=len(data.classes))
    low, high = int(counts.min()), int(counts.max())
    each = f"{low}" if low == high else f"{low} to {high}"
    return f"labels of {len(subset):,} of {len(data.train):,} images, {each} of each of {len(data.classes)} classes"


def _as_large(temperature: float) -> str:
    return "as large as its teacher" if temperature == SELF else "of another size"
