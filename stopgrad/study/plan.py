"""What a comparison is: which methods, how long, on which views. Composed and checked before anything is trained."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from stopgrad.assemble import api
from stopgrad.contracts import ConfigError, did_you_mean
from stopgrad.data.folder import expanded
from stopgrad.media import AnyViews
from stopgrad.methods import METHODS
from stopgrad.recipe import Recipe
from stopgrad.recipes import PRESETS, RECIPES
from stopgrad.recipes.clip import CAPTIONS
from stopgrad.study.measured import flat
from stopgrad.views.config import ViewsConfig
from stopgrad.views.text_config import TextViewsConfig

VIEWS_OF = "simsiam"  # whose preset's crops every method gets where views are equal
# What every row has in common, and the option that says it.
OPTIONS = {
    "method.name": "--methods",
    "seed": "--seeds",
    "data.source": "--data",
    "backbone.name": "--backbone",
    "loop.epochs": "--epochs or --minutes",
}
SAME_DATA = ("source", "limit")  # settings of the images that no preset may have otherwise than another


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """A comparison as it is asked for."""

    methods: tuple[str, ...] = ()  # (): every one there is
    seeds: int = 3
    minutes: float | None = None  # of training, a run; or
    epochs: int | None = None
    recipe: str = "scenes"  # METHOD/RECIPE is the preset
    data: str | None = None  # the presets' own where None
    backbone: str | None = None
    views: Literal["equal", "own"] = "equal"
    settings: tuple[str, ...] = ()  # a.b=c, for every method, applied last

    def __post_init__(self) -> None:
        presets = {name.partition("/")[2] for name in RECIPES}
        for name in self.methods:
            if name not in METHODS:
                raise ConfigError(f"--methods: unknown method {name!r}{did_you_mean(name, METHODS)}")
        if len(set(self.methods)) < len(self.methods):
            raise ConfigError(f"--methods {','.join(self.methods)} names one twice; leave one of them out")
        if self.seeds < 1:
            raise ConfigError(f"--seeds must be 1 or more, got {self.seeds}; 3 show how far numbers spread")
        if self.minutes is None and self.epochs is None:
            raise ConfigError("compare: say how long each run trains: --minutes 1.5, or --epochs 15")
        if self.minutes is not None and self.epochs is not None:
            raise ConfigError("--minutes and --epochs both say how long to train; give one of them")
        if self.minutes is not None and not 0 < self.minutes < 1e6:
            raise ConfigError(f"--minutes must be above 0, got {self.minutes}")
        if self.epochs is not None and self.epochs < 1:
            raise ConfigError(f"--epochs must be 1 or more, got {self.epochs}")
        if self.recipe not in presets:
            raise ConfigError(f"--recipe: no method has a preset {self.recipe!r}{did_you_mean(self.recipe, presets)}")
        if self.views not in ("equal", "own"):
            raise ConfigError(f"--views must be equal or own, got {self.views!r}")

    @property
    def asked(self) -> tuple[str, ...]:
        """The methods, by name."""
        return self.methods or every_method()


@dataclass(frozen=True, kw_only=True, slots=True)
class Composed:
    """A comparison's recipes, seed 0, by method; and why a method has none."""

    recipes: Mapping[str, Recipe]
    refused: Mapping[str, str]
    settings: Mapping[str, Any]  # what two sessions of one comparison must have in common

    @property
    def any(self) -> Recipe:
        return next(iter(self.recipes.values()))


def compose(plan: Plan) -> Composed:
    """Raises ConfigError for what is wrong with the comparison itself, such as a setting that no method has."""
    recipes: dict[str, Recipe] = {}
    refused: dict[str, ConfigError] = {}
    like = _preset(plan, VIEWS_OF).views if plan.views == "equal" else None
    for method in plan.asked:
        try:
            recipe = _preset(plan, method)
            if like is not None:
                recipe = dataclasses.replace(recipe, views=equal_views(recipe.views, like))
            recipes[method] = _with_settings(plan, recipe)
        except ConfigError as error:
            refused[method] = error
    if not recipes:
        raise next(iter(refused.values()))
    first, recipe = next(iter(recipes.items()))
    for method, other in recipes.items():
        for field in SAME_DATA:
            mine, theirs = getattr(recipe.data, field), getattr(other.data, field)
            if mine != theirs:
                fix = "add --data SRC" if field == "source" else f"add --set data.{field}={mine}"
                told = f"{first}/{plan.recipe} has data.{field}={mine}, {method}/{plan.recipe} has {theirs}"
                raise ConfigError(f"compare: {told}; {fix}")
    settings = {
        "data": recipe.data.source,
        "recipe": plan.recipe,
        "minutes": plan.minutes,
        "epochs": plan.epochs,
        "views": plan.views,
        "backbone": plan.backbone,
        "set": list(plan.settings),
    }
    return Composed(
        recipes=recipes, refused={method: str(error) for method, error in refused.items()}, settings=settings
    )


def _preset(plan: Plan, method: str) -> Recipe:
    """METHOD/RECIPE with all options but --set."""
    options = api.Options(data=plan.data, backbone=plan.backbone, epochs=plan.epochs, seed=0)
    return api.choose(f"{method}/{plan.recipe}", options, plan.minutes or 0.0)[0]


def equal_views(own: AnyViews, like: AnyViews) -> AnyViews:
    """The first two views of `like`, one where a method has one; multi-crop methods lose their small ones.

    Raises ConfigError for samples of different kinds.
    """
    if isinstance(own, ViewsConfig) and isinstance(like, ViewsConfig):
        return dataclasses.replace(own, image_size=like.image_size, crops=like.crops[: min(2, len(own.crops))])
    if isinstance(own, TextViewsConfig) and isinstance(like, TextViewsConfig):
        return dataclasses.replace(like, views=min(2, own.views))
    raise ConfigError(
        f"--views equal: views of kind {own.kind} have no crops of {VIEWS_OF}'s; add --views own, which leaves every "
        "method its own"
    )


def _with_settings(plan: Plan, recipe: Recipe) -> Recipe:
    """The recipe with --set applied. Raises ConfigError where that changes what an option of compare says."""
    found = api.compose(recipe, api.Options(settings=plan.settings))
    before, after = _fixed(recipe), _fixed(found)
    for key, option in OPTIONS.items():
        if before[key] != after[key]:
            raise ConfigError(f"--set {key}: compare takes it from {option}; leave the setting out")
    return found


def _fixed(recipe: Recipe) -> dict[str, Any]:
    """The settings of OPTIONS."""
    return {
        "method.name": recipe.method.name,
        "seed": recipe.seed,
        "data.source": recipe.data.source,
        "backbone.name": recipe.backbone.name,
        "loop.epochs": recipe.loop.epochs,
    }


def every_method() -> tuple[str, ...]:
    """Those that learn from images alone."""
    return tuple(name for name in METHODS if CAPTIONS not in PRESETS.get(name, {}))


def folder_for(source: str) -> Path:
    """Where a comparison on `source` goes if nobody says."""
    return Path("runs") / f"compare-{expanded(source).resolve().name or 'root'}"


def command(settings: Mapping[str, Any], methods: Sequence[str], seeds: int, out: Path) -> str:
    """What to type to go on with a comparison."""
    words = ["stopgrad", "compare", "--data", str(settings["data"]), "--seeds", str(seeds)]
    if list(methods) != list(every_method()):
        words += ["--methods", ",".join(methods)]
    for key in ("minutes", "epochs", "recipe", "views", "backbone"):
        if settings.get(key) is not None:
            value = settings[key]
            words += [f"--{key}", f"{value:g}" if isinstance(value, float) else str(value)]
    words += [word for setting in settings.get("set") or () for word in ("--set", str(setting))]
    return shlex.join([*words, "--out", str(out)])


def differences(there: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """`minutes is 1.5 there, 2 here` for each setting that differs."""
    ours, theirs = flat(dict(now)), flat(dict(there))
    return [
        f"{key} is {_said(theirs.get(key))} there, {_said(ours.get(key))} here"
        for key in dict.fromkeys([*ours, *theirs])
        if ours.get(key) != theirs.get(key)
    ]


def _said(value: Any) -> str:
    return "not set" if value is None or value == [] else str(value)
