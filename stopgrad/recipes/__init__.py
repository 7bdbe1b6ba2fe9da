"""RECIPES: every preset by its name on the command line. A preset is a function that returns a whole Recipe; its
docstring says what it costs and what is expected of it, with the source. `METHOD/folder` depends on the images: what
composes a run calls `folder.folder` for it (BY_DATA)."""

from __future__ import annotations

from collections.abc import Callable

from stopgrad.contracts import ConfigError, did_you_mean
from stopgrad.methods import METHODS
from stopgrad.recipe import Recipe
from stopgrad.recipes import folder, simsiam

RECIPES: dict[str, Callable[[], Recipe]] = {
    "simsiam/folder": folder.unseen,
    "simsiam/scenes": simsiam.scenes,
    "simsiam/cifar10": simsiam.cifar10,
    "simsiam/imagenet": simsiam.imagenet,
}

BY_DATA = ("simsiam/folder",)  # chosen from the images; the function in RECIPES supposes some


def recipe_named(name: str) -> Recipe:
    """The preset METHOD/PRESET; METHOD alone is METHOD/scenes. Raises ConfigError with the nearest name."""
    if name in METHODS:
        name = f"{name}/scenes"
    if name not in RECIPES:
        hint = did_you_mean(name, [*RECIPES, *METHODS])
        raise ConfigError(f"{name!r} is no method, preset, recipe file or run folder{hint}")
    return RECIPES[name]()
