"""RECIPES: every preset by its name on the command line. A preset is a function that returns a whole Recipe; its
docstring says what it costs and what is expected of it, with the source. METHOD/folder depends on the images: what
composes a run calls `folder.folder` for it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from stopgrad.contracts import ConfigError, did_you_mean
from stopgrad.methods import METHODS
from stopgrad.recipe import Recipe
from stopgrad.recipes import simsiam

Preset = Callable[[], Recipe]

# method -> its presets: `tiny` on the embedded images, ResNet-18 on CIFAR-10, the paper's on ImageNet
PRESETS: dict[str, dict[str, Preset]] = {
    "simsiam": {"scenes": simsiam.scenes, "cifar10": simsiam.cifar10, "imagenet": simsiam.imagenet},
}
FOLDER = "folder"  # chosen from the images, with what the method's other presets have


def _all() -> dict[str, Preset]:
    from stopgrad.recipes.folder import unseen

    named: dict[str, Preset] = {}
    for method, presets in PRESETS.items():
        chosen: Preset = partial(unseen, presets)
        chosen.__doc__ = unseen.__doc__
        named[f"{method}/{FOLDER}"] = chosen
        named |= {f"{method}/{name}": preset for name, preset in presets.items()}
    return named


RECIPES: dict[str, Preset] = _all()


def recipe_named(name: str) -> Recipe:
    """The preset METHOD/PRESET; METHOD alone is METHOD/scenes. Raises ConfigError with the nearest name."""
    if name in METHODS:
        name = f"{name}/scenes"
    if name not in RECIPES:
        hint = did_you_mean(name, [*RECIPES, *METHODS])
        raise ConfigError(f"{name!r} is no method, preset, recipe file or run folder{hint}")
    return RECIPES[name]()
