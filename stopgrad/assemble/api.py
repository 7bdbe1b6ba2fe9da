"""What `import stopgrad` offers, and what the command calls: names and options in, a run or scores out.

A recipe is composed, checked and written into the run's folder before torch is imported, so a mistake costs no wait and
a run that is killed during the imports can be resumed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stopgrad.assemble import begin
from stopgrad.assemble.starting import begin_run
from stopgrad.contracts import ConfigError, DataError, MissingInputError, Result
from stopgrad.data import DataConfig
from stopgrad.data.folder import expanded
from stopgrad.data.sources import SCENES, absolute
from stopgrad.data.texts import is_text
from stopgrad.methods import METHODS
from stopgrad.methods.clip import TEXT_TOWER
from stopgrad.methods.own import OwnConfig, is_own, own_config
from stopgrad.nn.text_config import HF, HUGGING_FACE
from stopgrad.processes import agreed, is_first, is_restarted
from stopgrad.recipe import Recipe
from stopgrad.recipe.text import load as load_recipe
from stopgrad.recipe.text import named_settings, override
from stopgrad.recipes import FOLDER, PRESETS, recipe_named
from stopgrad.recipes.clip import CAPTIONS
from stopgrad.recipes.fitted import in_place_of, of_length, of_size, told, with_backbone
from stopgrad.recipes.folder import DECIDES, TYPICAL, folder
from stopgrad.recipes.text_backbones import with_text_backbone
from stopgrad.recipes.texts import ON_TEXT, texts
from stopgrad.rundir import RunDir

if TYPE_CHECKING:
    from stopgrad.assemble.train import Finished
    from stopgrad.diagnose import Diagnosis
    from stopgrad.encoder import Encoder
    from stopgrad.training.progress import Progress


OF_KIND = {"text": "simsiam/text"}  # settings an encoder file is evaluated with
LIKE = "simsiam"  # whose views, backbone and rate a user's own method starts from


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What the command line changes in a recipe; None leaves the recipe's value."""

    data: str | None = None
    view: str | None = None  # kind of samples: image, audio or text; None: what the data is
    backbone: str | None = None
    init: str | None = None  # weights to begin from: an encoder.safetensors, a run, or timm:NAME
    baseline: str | None = None  # another encoder to score beside the run's; as init
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
            "backbone.name": HF if (self.backbone or "").startswith(HUGGING_FACE) else self.backbone,
            "loop.epochs": self.epochs,
            "loop.batch_size": self.batch_size,
            "views.image_size": self.image_size,
            "seed": self.seed,
            "watch.stop_on_collapse": "true" if self.stop_on_collapse else None,
        }
        return [f"{key}={value}" for key, value in by_key.items() if value is not None]


def compose(recipe: str | Path | Recipe, options: Options) -> Recipe:
    """A preset's name, a recipe file or a Recipe, with the options applied. Raises ConfigError or MissingInputError."""
    return choose(recipe, options)[0]


def choose(recipe: str | Path | Recipe, options: Options, minutes: float = 0.0) -> tuple[Recipe, tuple[str, ...]]:
    """As `compose`; and why the settings are as they are, a line each, where the images decided (METHOD/folder) or a
    preset had to be fitted to what was asked for.

    minutes: how long training may take, 0 where nobody said. What is wrong with the images is left to whoever opens
    them: settings for photographs then.
    """
    start, said_of_start = None, dict[str, object]()
    if options.init is not None:
        start, said_of_start = begin.read_start(options.init), named_settings(options.settings)
        begin.checked(start, options.backbone, said_of_start)
        settings = (*begin.settings_of(start, options.image_size), *options.settings)
        options = dataclasses.replace(options, backbone=start.backbone, settings=settings)
    source, chosen = _source(options), None
    asked = (*dataclasses.replace(options, data=None).assignments(), *options.settings)  # data not through YAML, below
    reasons: dict[str, str] = {}
    ours = False  # a preset, whose heads and rate may follow the backbone; what a user has written stays
    if not isinstance(recipe, Recipe):
        text = str(recipe)
        written = own_config(text) if is_own(text) else None
        text = LIKE if written else text
        is_file = text.endswith((".yaml", ".yml")) or Path(text).is_file()
        if Path(text).is_dir() and (Path(text) / "recipe.yaml").exists():
            raise ConfigError(f"{text} is a run; continue it with --resume, or start its recipe: {text}/recipe.yaml")
        method, _, preset = text.partition("/")
        if is_file:
            recipe = load_recipe(Path(text))
        elif method in METHODS and (preset == ON_TEXT or (preset in ("", FOLDER) and options.view == "text")):
            recipe, reasons = texts(method, source, PRESETS[method], named_settings(asked), minutes)
        elif CAPTIONS in PRESETS.get(method, {}) and (_is_own(source) if not preset else preset == FOLDER):
            recipe = recipe_named(f"{method}/{CAPTIONS}")
        elif text.removesuffix(f"/{FOLDER}") in METHODS and (text not in METHODS or (source and source not in SCENES)):
            if not source:
                raise ConfigError(f"{text} chooses settings by the images; add --data SRC")
            recipe, reasons = _by_images(method, source, asked, minutes)
        else:
            recipe = recipe_named(text)
        ours = not is_file
        if written:  # views, backbone and rate as SimSiam's, for want of anything that is known
            recipe = dataclasses.replace(recipe, method=written)
    if options.view not in (None, recipe.views.kind):
        raise ConfigError(
            f"--view {options.view}: this recipe reads samples of kind {recipe.views.kind}; leave it out, or name a "
            f"method alone, such as simsiam --view {options.view}"
        )
    if options.backbone not in (None, recipe.backbone.name):  # its stem and width were the other backbone's
        if ours:
            recipe, more = with_backbone(recipe, options.backbone, PRESETS.get(recipe.method.name, {}))
            reasons |= more
        else:
            recipe = _written_with(recipe, options.backbone)
    if ours:
        recipe, more = _fitted(recipe, named_settings(asked))
        reasons |= more
        chosen = recipe
    if options.data is not None:  # not through YAML: a folder may be called 2024 or `no`
        recipe = dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, source=source))
    recipe = override(recipe, asked)
    if options.baseline is not None:
        recipe = dataclasses.replace(recipe, eval=dataclasses.replace(recipe.eval, baseline=_placed(options.baseline)))
    lines = told(recipe, chosen, reasons) if chosen else ()
    if start is not None:
        recipe, why = begin.gently(recipe, start, said_of_start)
        lines = (*(line for line in lines if not line.startswith("optim.")), *why)
    return recipe, lines


def _is_own(source: str) -> bool:
    """Whether a source was named that is not embedded."""
    return bool(source) and source not in SCENES


def _fitted(recipe: Recipe, given: Mapping[str, Any]) -> tuple[Recipe, dict[str, str]]:
    """A preset at the length and the size that were asked for, and {setting: why} for what else changes with them."""
    size, epochs = given.get("views.image_size"), given.get("loop.epochs")
    why = dict[str, str]()
    if size and recipe.views.kind != "captioned":  # whose crop names no side of its own
        data, views = recipe.of_images("views.image_size")
        if size != views.image_size:
            recipe, why = of_size(recipe, size, given.get("data.max_side", data.max_side))
    if epochs and epochs != recipe.loop.epochs:
        recipe, shortened = of_length(recipe, epochs)
        why |= shortened
    return recipe, why


def _written_with(recipe: Recipe, backbone: str) -> Recipe:
    """What a user has written, with another backbone and nothing else that could stay."""
    if recipe.views.kind == "text":
        return with_text_backbone(recipe, backbone)[0]
    return dataclasses.replace(recipe, backbone=in_place_of(recipe.backbone, backbone))


def _placed(encoder: str) -> str:
    """A file or run as an absolute path, so that the recipe runs again elsewhere; timm:NAME as it is."""
    return encoder if encoder.startswith(begin.TIMM) else str(expanded(encoder).absolute())


def _source(options: Options) -> str:
    """What --data or --set data.source names, "" where nothing does. --data becomes absolute where it is on the disk:
    resumed from another folder, it is still there."""
    if options.data is None:
        return str(named_settings(options.settings).get("data.source", ""))
    return absolute(options.data)


def _by_images(method: str, source: str, settings: Sequence[str], minutes: float) -> tuple[Recipe, dict[str, str]]:
    """METHOD/folder for these images on this machine. What can't be looked at gets settings for photographs."""
    if is_text(source) and ON_TEXT in PRESETS[method]:
        return texts(method, source, PRESETS[method], named_settings(settings), minutes)
    from stopgrad.data.probe import probe, this_machine
    from stopgrad.data.sound_probe import holds_sounds, probe_sounds

    if holds_sounds(source):
        from stopgrad.recipes.sounds import sounds

        return sounds(probe_sounds(source), this_machine(), PRESETS[method], named_settings(settings))
    given = {key: value for key, value in named_settings(settings).items() if key in DECIDES}
    seen, machine = TYPICAL, this_machine()
    try:
        seen = probe(source, DataConfig(source=source, sensors=given.get("data.sensors", ())))
    except (DataError, MissingInputError):
        recipe, _ = folder(seen, machine, PRESETS[method], given, minutes)
        return recipe, {}
    return folder(seen, machine, PRESETS[method], given, minutes)


def folder_for(recipe: Recipe, out: str | Path, name: str) -> Path:
    """OUT/NAME; without a name, METHOD-SOURCE with a number where that is taken."""
    if name:
        if Path(name).name != name or name in (".", ".."):
            raise ConfigError(f"--name {name!r} must be a plain name, without folders; --out says where runs go")
        return Path(out) / name
    method = recipe.method
    what = Path(method.file).stem if isinstance(method, OwnConfig) else method.name
    base = f"{what}-{expanded(recipe.data.source).resolve().name or 'root'}"
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
    check_minutes(minutes, options)
    composed, reasons = choose(recipe, options, minutes or 0.0)
    run = RunDir(agreed(folder_for(composed, out, name)), writes=is_first())
    if is_restarted() and run.recipe.exists():  # a neighbour was lost: all go on from the last saved state
        return resume(run.path, progress=progress)
    return begin_run(run, composed, reasons, minutes, progress)


def check_minutes(minutes: float | None, options: Options) -> None:
    """Raises ConfigError for minutes beside epochs, or that are no time."""
    if minutes is not None and options.epochs is not None:
        raise ConfigError("--minutes and --epochs both say how long to train; give one of them")
    if minutes is not None and not 0 < minutes < 1e6:
        raise ConfigError(f"--minutes must be above 0, got {minutes}")


def resume(path: str | Path, *, progress: Progress | None = None) -> Finished:
    """Go on where the newest checkpoint is, from step 0 where there is none; nothing is done to a finished run."""
    run = RunDir(Path(path), writes=is_first())
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


def load(path: str | Path, *, tower: str = "") -> Encoder:
    """The encoder of a run folder or a .safetensors file.

    tower: an encoder that a run has beside its backbone, CLIP's is `text`; "": the backbone's.
    Raises MissingInputError, CheckpointError or ConfigError (another kind of file).
    """
    found = encoder_of(path, tower)
    from stopgrad.encoder import load_encoder

    return load_encoder(found)


def towers_of(path: str | Path) -> tuple[str, ...]:
    """The encoders that a run has beside its backbone; () of a file, and of most runs."""
    recipe = RunDir(Path(path)).recipe
    return tuple(load_recipe(recipe).method.towers()) if recipe.is_file() else ()


def encoder_of(path: str | Path, tower: str = "") -> Path:
    """The file that `load` reads. Raises MissingInputError or ConfigError; torch is not imported."""
    found = Path(path)
    if tower and tower not in (there := towers_of(path)):
        beside = ", ".join(there) or "no other"
        raise ConfigError(f"{path}: no encoder {tower!r}; beside its backbone's it has {beside}")
    if found.is_dir():
        run = RunDir(found)
        if not run.recipe.exists():
            raise MissingInputError(f"{path}: no run there (no recipe.yaml)")
        file = run.tower(tower) if tower else run.encoder
        if not file.exists():
            raise MissingInputError(f"{path} has no encoder yet; finish it with `stopgrad train {path} --resume`")
        found = file
    elif found.suffix != ".safetensors":
        if not found.suffix and not found.exists():
            raise MissingInputError(f"{path}: no such run or encoder; a run folder or a .safetensors file is needed")
        raise ConfigError(f"{path}: a run folder or a .safetensors file is needed; {_instead(found.suffix)}")
    return found


def _instead(suffix: str) -> str:
    """What to do with a file that is not loaded."""
    if suffix == ".onnx":
        return "an .onnx file is for onnxruntime: export the run again as .safetensors (`stopgrad export RUN -o NAME`)"
    if suffix == ".pt2":
        return "reading a .pt2 can run code: export the run again as .safetensors (`stopgrad export RUN -o NAME`)"
    if suffix in (".pth", ".pt", ".ckpt", ".bin", ".pkl"):
        return "other formats can run code: use encoder.safetensors of a finished run"
    return "a finished run has encoder.safetensors in its folder"


def evaluate(
    path: str | Path,
    *,
    data: str | None = None,
    seed: int = 0,
    settings: Sequence[str] = (),
    baseline: str | None = None,
    progress: Progress | None = None,
) -> list[Result]:
    """Scores of a run's or file's encoder on `data` (a run: its own data by default), beside honest baselines.

    baseline: another encoder beside it: a run, an encoder.safetensors or timm:NAME.
    """
    folder = Path(path) if Path(path).is_dir() else None
    if folder is not None and (folder / "recipe.yaml").exists():
        recipe = load_recipe(folder / "recipe.yaml")
    else:
        if data is None:
            encoder_of(path)
            raise ConfigError(f"{path}: an encoder file does not say which images to use; add --data SRC")
        recipe = recipe_named(OF_KIND.get(load(path).preprocess.kind, LIKE))
    if data is not None:
        recipe = dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, source=data))
    recipe = override(recipe, settings)
    if baseline is not None:
        recipe = dataclasses.replace(recipe, eval=dataclasses.replace(recipe.eval, baseline=_placed(baseline)))
    encoder = load(path)
    text = load(path, tower=TEXT_TOWER) if TEXT_TOWER in towers_of(path) else None
    from stopgrad.assemble.train import score

    return score(encoder, recipe, seed=seed, progress=progress, text=text)
