"""SimSiam's presets."""

from __future__ import annotations

from stopgrad.methods.settings import HeadConfig
from stopgrad.methods.simsiam import SimSiamConfig
from stopgrad.optim.config import OptimConfig
from stopgrad.recipe import Recipe
from stopgrad.recipes.base import on_cifar10, on_imagenet, on_scenes
from stopgrad.views.presets import PRESETS


def scenes() -> Recipe:
    """The embedded data set on two CPU cores in minutes: what `make demo` trains. Synthetic images."""
    return on_scenes(
        SimSiamConfig(projector=HeadConfig(layers=2, hidden=1024, dim=1024), predictor_hidden=256),
        OptimConfig(base_lr=0.96, weight_decay=5e-4),
    )


def cifar10() -> Recipe:
    """ResNet-18, 800 epochs, batch 512. Expected: 91.8 linear (SimSiam, appendix D, figure D.1); needs a GPU.

    The paper does not state the predictor's width; 512 is a quarter of the projection, as on ImageNet.
    """
    return on_cifar10(
        SimSiamConfig(projector=HeadConfig(layers=2)),
        OptimConfig(base_lr=0.03, weight_decay=5e-4),
        epochs=800,
        batch_size=512,
    )


def imagenet() -> Recipe:
    """ResNet-50, 100 epochs, batch 512. Expected: 68.1 linear (SimSiam, table 1 and released weights); needs GPUs."""
    return on_imagenet(
        SimSiamConfig(),
        OptimConfig(base_lr=0.05, weight_decay=1e-4),
        epochs=100,
        batch_size=512,
        crops=PRESETS["moco_v2"],
    )
