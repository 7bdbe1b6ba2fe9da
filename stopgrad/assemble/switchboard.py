"""What every method is made of, asked of the parts themselves: its defaults, built once around `tiny`."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from stopgrad.contracts import Known
from stopgrad.method import Method
from stopgrad.methods import METHODS
from stopgrad.nn.backbones import build_backbone
from stopgrad.nn.config import BackboneConfig
from stopgrad.recipes import PRESETS

PATCHES = 8  # pixels, where a method is one of patches


def parts_of(name: str) -> Mapping[str, str]:
    """Part -> what stands there by default, with the views of the method's `imagenet` preset, or where it has none of
    `scenes`. `name` is of METHODS."""
    presets = PRESETS[name]
    recipe = presets.get("imagenet", presets["scenes"])()
    batch, sides = recipe.loop.batch_size, recipe.known().crops
    own = recipe.backbone
    known = Known(crops=sides, batch_size=batch, accumulate=1, backbone="tiny", images=1, kind=recipe.views.kind)
    builder, config = METHODS[name]
    with torch.random.fork_rng(devices=[]):
        trunk = BackboneConfig(split=own.split, norm=own.norm, patches=PATCHES if own.patches else 0)
        backbone = build_backbone(trunk, 3, 32, seed=0)
        method: Method = builder(backbone, config(name=name), known)
    return method.parts()
