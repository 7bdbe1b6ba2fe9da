"""SimSiam's presets."""

from __future__ import annotations

from dataclasses import replace

from stopgrad.data import DataConfig
from stopgrad.methods.simsiam import ProjectorConfig, SimSiamConfig
from stopgrad.nn.config import BackboneConfig
from stopgrad.optim.config import OptimConfig
from stopgrad.recipe import Recipe
from stopgrad.training.config import LoopConfig
from stopgrad.views.config import ViewsConfig
from stopgrad.views.presets import PRESETS

# What `tiny` is trained with, whatever the images: a run of minutes on a CPU has few steps, so they are many of few
# images at a high rate, through heads in proportion to its width. Measured: docs/tiny.md.
TINY_BATCH = 64
TINY_RATE = OptimConfig(base_lr=0.96, weight_decay=5e-4)
TINY_HEADS = SimSiamConfig(projector=ProjectorConfig(layers=2, hidden=1024, dim=1024), predictor_hidden=256)


def scenes() -> Recipe:
    """The embedded data set on two CPU cores in minutes: what `make demo` trains. Synthetic images."""
    return Recipe(
        method=TINY_HEADS,
        data=DataConfig(source="scenes-v1"),
        views=ViewsConfig(image_size=32, crops=PRESETS["moco_v2_cifar"]),
        backbone=BackboneConfig(name="tiny"),
        optim=TINY_RATE,
        loop=LoopConfig(epochs=15, batch_size=TINY_BATCH),
    )


def with_backbone(recipe: Recipe, name: str) -> tuple[Recipe, dict[str, str]]:
    """The recipe with another backbone, and {setting: why} for what changes with it.

    Heads, batch and rate of a paper are those of its backbone; `tiny` brings its own. Another timm model keeps the
    recipe's, which is all that is known.
    """
    recipe = replace(recipe, backbone=BackboneConfig(name=name))
    if name != "tiny" or not isinstance(recipe.method, SimSiamConfig):
        return recipe, {}
    heads = replace(recipe.method, projector=TINY_HEADS.projector, predictor_hidden=TINY_HEADS.predictor_hidden)
    loop = replace(recipe.loop, batch_size=TINY_BATCH)
    why = "what tiny was measured with (docs/tiny.md); the preset's belongs to its own backbone"
    keys = ("loop.batch_size", "optim.base_lr", "method.projector", "method.predictor_hidden")
    return replace(recipe, method=heads, optim=TINY_RATE, loop=loop), dict.fromkeys(keys, why)


def cifar10() -> Recipe:
    """ResNet-18, 800 epochs, batch 512. Expected: 91.8 linear (SimSiam, appendix D, figure D.1); needs a GPU.

    The paper does not state the predictor's width; 512 is a quarter of the projection, as on ImageNet.
    """
    return Recipe(
        method=SimSiamConfig(projector=ProjectorConfig(layers=2)),
        data=DataConfig(source="cifar10"),
        views=ViewsConfig(image_size=32, crops=PRESETS["moco_v2_cifar"]),
        backbone=BackboneConfig(name="resnet18", stem="small"),
        optim=OptimConfig(base_lr=0.03, weight_decay=5e-4),
        loop=LoopConfig(epochs=800, batch_size=512),
    )


def imagenet() -> Recipe:
    """ResNet-50, 100 epochs, batch 512. Expected: 68.1 linear (SimSiam, table 1 and released weights); needs GPUs."""
    return Recipe(
        method=SimSiamConfig(),
        data=DataConfig(source="imagenet"),
        views=ViewsConfig(image_size=224, crops=PRESETS["moco_v2"]),
        backbone=BackboneConfig(name="resnet50", stem="standard"),
        optim=OptimConfig(base_lr=0.05, weight_decay=1e-4),
        loop=LoopConfig(epochs=100, batch_size=512, view_threads=8),
    )
