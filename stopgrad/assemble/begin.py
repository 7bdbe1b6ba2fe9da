"""Beginning from weights (`--init`) and standing beside another encoder (`--baseline`).

What --init asks for is decided before torch is imported: the architecture, size, channels and statistics come from
the encoder's description, the learning rate is lowered. The weights a run begins from are kept in its folder, so that
a resumed run needs neither the file nor the network, and the scores before training can be told from those after.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stopgrad.contracts import CheckpointError, ConfigError, MissingInputError, Preprocess
from stopgrad.data.folder import expanded
from stopgrad.media import AnyPreprocess, medium_of, preprocess_from_dict
from stopgrad.nn.config import BackboneConfig
from stopgrad.nn.text_config import HUGGING_FACE
from stopgrad.recipe import Recipe
from stopgrad.views.text_config import TextPreprocess

if TYPE_CHECKING:
    from torch import nn

    from stopgrad.eval.suite import Other
    from stopgrad.rundir import RunDir

TIMM = "timm:"
RATE = 0.1  # of the recipe's learning rate: weights that are good are not to be undone by the first steps
WARMUP, LONGEST_WARMUP = 0.1, 10.0  # share of the epochs, and epochs: while the heads, which are new, find their place
HEADER = 8  # bytes before a safetensors header say how long it is
LARGEST_HEADER = 100_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """What is known of the weights before they are read."""

    init: str  # as in backbone.init: an absolute path, or timm:NAME
    backbone: str
    settings: tuple[str, ...]  # of the recipe, a.b=c, unless the user says otherwise
    preprocess: AnyPreprocess | None  # None of a timm model: sizes and channels are free


def read_start(init: str) -> Start:
    """Raises ConfigError, MissingInputError or CheckpointError."""
    if init.startswith(TIMM):
        name = init.removeprefix(TIMM)
        if not name:
            raise ConfigError("--init timm: needs a model's name, such as timm:resnet18")
        return Start(init=init, backbone=name.partition(".")[0], settings=("backbone.stem=standard",), preprocess=None)
    path = expanded(init).absolute()
    if path.is_dir() and (path / "encoder.safetensors").exists():
        path = path / "encoder.safetensors"
    if path.suffix != ".safetensors":
        raise ConfigError(f"--init {init}: needs an encoder.safetensors, a finished run, or timm:NAME")
    described = _description(path)
    try:
        backbone = BackboneConfig.from_description(described["backbone"])
        preprocess = preprocess_from_dict(described["preprocess"])
        settings = (
            *(f"backbone.{key}={value}" for key, value in backbone.described().items() if key != "name"),
            *preprocess.as_settings(),
        )
        return Start(init=str(path), backbone=backbone.name, settings=settings, preprocess=preprocess)
    except (ConfigError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path}: not described as an encoder of stopgrad ({error})") from error


def _description(path: Path) -> dict[str, Any]:
    """What a .safetensors file says of itself, without reading a tensor."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(HEADER), "little")
            if not 0 < length < LARGEST_HEADER:
                raise ValueError("no header")
            header = json.loads(file.read(length))
        return dict(json.loads(header["__metadata__"]["stopgrad"]))
    except FileNotFoundError as error:
        raise MissingInputError(f"{path}: no such encoder; a finished run has encoder.safetensors") from error
    except OSError as error:
        raise MissingInputError(f"{path}: can't be read ({error.strerror}); a finished run has one") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{path}: no encoder of stopgrad; use encoder.safetensors of a finished run") from error


def checked(start: Start, backbone: str | None, given: dict[str, Any]) -> None:
    """Raises ConfigError where the user asks for something the weights are not."""
    asked = backbone or given.get("backbone.name")
    if asked not in (None, start.backbone):
        raise ConfigError(
            f"--init {start.init} holds a {start.backbone}, but the backbone asked for is {asked}; leave out the one "
            "or the other"
        )
    channels = given.get("data.channels")
    if isinstance(start.preprocess, Preprocess) and channels not in (None, start.preprocess.channels):
        raise ConfigError(
            f"--init {start.init} takes images of {start.preprocess.channels} channels, data.channels is {channels}; "
            "leave out the one or the other"
        )


def gently(recipe: Recipe, start: Start, given: dict[str, Any]) -> tuple[Recipe, tuple[str, ...]]:
    """The recipe with the weights named, and a rate and warm-up that are safe for them; and why, a line each."""
    recipe = dataclasses.replace(recipe, backbone=dataclasses.replace(recipe.backbone, init=start.init))
    why = [f"backbone={start.backbone}: what {start.init} holds"]
    if start.preprocess is not None:
        why.append(
            "views.mean, views.std, views.image_size: those the weights were trained with, unless you said others"
        )
    elif not {"views.mean", "views.std"} & given.keys():
        seen = timm_statistics(start.init.removeprefix(TIMM))
        data, views = recipe.of_images(f"--init {start.init}")
        mean, std = (_for_channels(seen[name], data.channels) for name in ("mean", "std"))
        recipe = dataclasses.replace(recipe, views=dataclasses.replace(views, mean=mean, std=std))
        why.append("views.mean, views.std: those the weights were trained with")
    optim = recipe.optim
    if "optim.base_lr" not in given:
        optim = dataclasses.replace(optim, base_lr=round(RATE * optim.base_lr, 6))
        why.append(f"optim.base_lr={optim.base_lr:g}: a tenth of the recipe's, so as not to undo what was learnt")
    if "optim.warmup_epochs" not in given:
        warmup = max(optim.warmup_epochs, min(LONGEST_WARMUP, WARMUP * recipe.loop.epochs))
        optim = dataclasses.replace(optim, warmup_epochs=round(warmup, 3))
        why.append(
            f"optim.warmup_epochs={optim.warmup_epochs:g}: the heads are new, and first have to find their place"
        )
    return dataclasses.replace(recipe, optim=optim), tuple(why)


def settings_of(start: Start, image_size: int | None) -> Sequence[str]:
    """What the weights say of the recipe; applied before the user's own settings."""
    size = start.preprocess.image_size if isinstance(start.preprocess, Preprocess) and image_size is None else None
    return (*start.settings, *([f"views.image_size={size}"] if size else []))


# --- with torch -------------------------------------------------------------------------------------------------------


def kept_start(run: RunDir) -> Path:
    return run.path / "init.safetensors"


def load_start(backbone: nn.Module, recipe: Recipe, run: RunDir, preprocess: AnyPreprocess) -> None:
    """Put the weights of backbone.init into `backbone`, and keep them in the run's folder.

    Raises CheckpointError where they do not fit, MissingInputError where they can't be had.
    """
    from stopgrad.encoder import Encoder, load_encoder, save_encoder
    from stopgrad.nn.backbones import pretrained

    init, kept = recipe.backbone.init, kept_start(run)
    if kept.exists():
        found = load_encoder(kept)
    elif init.startswith(TIMM):
        model = pretrained(init.removeprefix(TIMM), *medium_of(preprocess).input(preprocess))
        found = Encoder(model, preprocess, recipe.backbone)
    elif init.startswith(HUGGING_FACE):
        from stopgrad.nn.hugging_face import pretrained_trunk

        folder = Path(init.removeprefix(HUGGING_FACE))
        trunk = pretrained_trunk(recipe.backbone, *medium_of(preprocess).input(preprocess), folder)
        found = Encoder(trunk, preprocess, recipe.backbone)
    else:
        found = load_encoder(Path(init))
        if isinstance(preprocess, TextPreprocess) and found.preprocess != preprocess:
            raise CheckpointError(
                f"backbone.init={init}: its weights belong to another tokenizer, or another number of tokens, than "
                "views.words, views.tokenizer and views.length say; name the one it was trained with: --set "
                "views.tokenizer=/folder/tokenizer.json"
            )
        if count := getattr(recipe.method, "from_projector_layer", 0):
            from stopgrad.assemble.projector import with_projector

            found = with_projector(found, Path(init), count)
    try:
        backbone.load_state_dict(found.backbone.state_dict())
    except RuntimeError as error:
        (channels, size), (theirs, side) = (medium_of(p).input(p) for p in (preprocess, found.preprocess))
        own = f"{channels} channels, {size} pixels, stem {recipe.backbone.stem}"
        was = f"{theirs} channels, {side} pixels, stem {found.config.stem}"
        fix = f"use --image-size {side}, and leave" if preprocess.kind == "image" else "leave"
        raise CheckpointError(
            f"backbone.init={init}: its weights do not fit this run's backbone ({own}; the weights: {was}); {fix} "
            "backbone settings out"
        ) from error
    if run.writes and not kept.exists():
        save_encoder(kept, backbone, recipe.backbone, found.preprocess)


def start_beside(run: RunDir, recipe: Recipe) -> dict[str, Other]:
    """The weights a run began from, to be scored beside what became of them; {} where they were random."""
    from stopgrad.encoder import load_encoder
    from stopgrad.eval.suite import Other

    if not recipe.backbone.init:
        return {}
    found = load_encoder(kept_start(run))
    told = "the weights this run began from, before training"
    return {"init": Other(backbone=found.backbone, preprocess=found.preprocess, told=told)}


def other_beside(name: str, beside: AnyPreprocess) -> dict[str, Other]:
    """The encoder of eval.baseline, ready to be scored on what `beside` reads; {} where there is none.

    Raises ConfigError, MissingInputError, CheckpointError.
    """
    from stopgrad.assemble.api import load
    from stopgrad.eval.suite import Other
    from stopgrad.nn.backbones import pretrained

    if not name:
        return {}
    channels = medium_of(beside).input(beside)[0]
    if name.startswith(TIMM):
        if not isinstance(beside, Preprocess):
            raise ConfigError(f"--baseline {name} is of images, the run's samples are of kind {beside.kind}")
        model = pretrained(name.removeprefix(TIMM), channels, 0)
        about = timm_statistics(name.removeprefix(TIMM))
        preprocess = Preprocess(
            image_size=int(about["input_size"][-1]),
            channels=channels,
            crop_fraction=float(about["crop_pct"]),
            mean=_for_channels(about["mean"], channels),
            std=_for_channels(about["std"], channels),
        )
        return {"other": Other(backbone=model, preprocess=preprocess, told=f"baseline {name}, pretrained by timm")}
    found = load(name)
    if found.preprocess.kind != beside.kind:
        raise ConfigError(
            f"--baseline {name} takes samples of kind {found.preprocess.kind}, the run's are of {beside.kind}"
        )
    theirs, size = medium_of(beside).input(found.preprocess)
    if theirs != channels:
        raise ConfigError(f"--baseline {name} takes images of {theirs} channels, the run's have {channels}")
    told = f"baseline: another encoder, {found.config.name} at {size} {'px' if beside.kind == 'image' else 'long'}"
    return {"other": Other(backbone=found.backbone, preprocess=found.preprocess, told=told)}


def timm_statistics(name: str) -> dict[str, Any]:
    """input_size [C, S, S], crop_pct, mean and std that a timm model's weights were trained with."""
    import timm
    from timm.data import config

    try:
        cfg = timm.get_pretrained_cfg(name)
    except RuntimeError:  # the model is known, the tag after its dot is not
        cfg = None
    if cfg is None:
        raise ConfigError(f"timm:{name}: timm has no weights of it; `timm.list_pretrained()` names those it has")
    return dict(config.resolve_data_config(pretrained_cfg=cfg.to_dict()))  # type: ignore[no-untyped-call]


def _for_channels(values: Sequence[float], channels: int) -> tuple[float, ...]:
    """As timm adapts its first layer: one channel takes the sum of three, more repeat them."""
    if channels == 1:
        return (sum(values) / len(values),)
    return tuple(float(values[i % len(values)]) for i in range(channels))
