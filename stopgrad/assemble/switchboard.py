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


def parts_of(name: str) -> Mapping[str, str]:
    """Part -> what stands there by default, with the views of the method's `imagenet` preset. `name` is of METHODS."""
    recipe = PRESETS[name]["imagenet"]()
    batch, sides = recipe.loop.batch_size, recipe.known().crops
    known = Known(crops=sides, batch_size=batch, accumulate=1, backbone="tiny", images=1)
    builder, config = METHODS[name]
    with torch.random.fork_rng(devices=[]):
        method: Method = builder(build_backbone(BackboneConfig(), 3, 32, seed=0), config(name=name), known)
    return method.parts()
