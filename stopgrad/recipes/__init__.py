"""RECIPES: every preset by its name on the command line. A preset is a function that returns a whole Recipe; its
docstring says what it costs and what is expected of it, with the source. METHOD/folder depends on the images: what
composes a run calls `folder.folder` for it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import ModuleType

from stopgrad.contracts import ConfigError, did_you_mean
from stopgrad.methods import METHODS
from stopgrad.recipe import Recipe
from stopgrad.recipes import (
    barlow_twins,
    byol,
    clip,
    cmc,
    cmc_sensors,
    cpc,
    dino,
    directpred,
    instdisc,
    invaspread,
    moco,
    moco_v3,
    simclr,
    simclr_v2,
    simsiam,
    swav,
    unigrad,
    vicreg,
)
from stopgrad.recipes.texts import ON_TEXT, reads_text, text

Preset = Callable[[], Recipe]


def _three(room: ModuleType) -> dict[str, Preset]:
    """`tiny` on the embedded images, ResNet-18 on CIFAR-10, the paper's on ImageNet."""
    return {"scenes": room.scenes, "cifar10": room.cifar10, "imagenet": room.imagenet}


def _with_text(presets: dict[str, Preset]) -> dict[str, Preset]:
    """And METHOD/text, where the method compares views of one sample, whatever the samples are."""
    if not reads_text(presets):
        return presets
    on_text: Preset = partial(text, presets)
    on_text.__doc__ = text.__doc__
    return {**presets, ON_TEXT: on_text}


PRESETS: dict[str, dict[str, Preset]] = {  # method -> its presets
    "instdisc": {**_three(instdisc), "small": instdisc.small},
    "cpc": {
        **_three(cpc),
        "imagenet_v2": cpc.imagenet_v2,
        "audio": cpc.audio,
        "audio_small": cpc.audio_small,
        ON_TEXT: cpc.text,
    },
    "invaspread": _three(invaspread),
    "cmc": {**_three(cmc), "sensors": cmc_sensors.sensors, "scenes_sensors": cmc_sensors.scenes_sensors},
    "moco_v1": {
        "scenes": moco.scenes_v1,
        "cifar10": moco.cifar10_v1,
        "imagenet": moco.imagenet_v1,
        "small": moco.small_v1,
    },
    "simclr": _three(simclr),
    "moco_v2": {
        "scenes": moco.scenes_v2,
        "cifar10": moco.cifar10_v2,
        "imagenet": moco.imagenet_v2,
        "small": moco.small_v2,
    },
    "byol": _three(byol),
    "simclr_v2": {**_three(simclr_v2), "imagenet_sk": simclr_v2.imagenet_sk},
    "swav": {**_three(swav), "small": swav.small, "imagenet_small": swav.imagenet_small},
    "simsiam": _three(simsiam),
    "directpred": _three(directpred),
    "clip": {"scenes": clip.scenes, "captions": clip.captions, "vit_l14": clip.vit_l14},
    "barlow_twins": _three(barlow_twins),
    "moco_v3": {**_three(moco_v3), "imagenet_vit": moco_v3.imagenet_vit},
    "dino": {**_three(dino), "small": dino.small, "imagenet_resnet50": dino.imagenet_resnet50},
    "vicreg": _three(vicreg),
    "unigrad": _three(unigrad),
}
PRESETS = {method: _with_text(presets) for method, presets in PRESETS.items()}
FOLDER = "folder"  # chosen from the images, with what the method's other presets have


def _all() -> dict[str, Preset]:
    from stopgrad.recipes.folder import unseen

    named: dict[str, Preset] = {}
    for method, presets in PRESETS.items():
        chosen: Preset = partial(unseen, presets)
        chosen.__doc__ = unseen.__doc__
        if "cifar10" in presets:  # images alone are enough for it
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
