"""Barlow Twins' presets."""

from __future__ import annotations

from stopgrad.methods.barlow_twins import BarlowTwinsConfig
from stopgrad.methods.settings import HeadConfig
from stopgrad.optim.config import OptimConfig
from stopgrad.recipe import Recipe
from stopgrad.recipes.base import on_cifar10, on_imagenet, on_scenes, solo_learn_lars
from stopgrad.views.presets import PRESETS


def scenes() -> Recipe:
    """The embedded data set on two CPU cores in minutes. Synthetic images."""
    return on_scenes(
        BarlowTwinsConfig(projector=HeadConfig(layers=2, hidden=1024, dim=1024), loss_weight=0.01),
        OptimConfig(base_lr=0.96, weight_decay=5e-4),
    )


def cifar10() -> Recipe:
    """ResNet-18, 1,000 epochs, batch 256. Expected: 92.10 linear (solo-learn's recipe and number); needs a GPU. The
    paper has no CIFAR-10."""
    return on_cifar10(
        BarlowTwinsConfig(projector=HeadConfig(layers=3), off_diagonal_weight=0.0051, loss_weight=0.1),
        solo_learn_lars(0.3, 1e-4),
        epochs=1000,
        batch_size=256,
        crops=PRESETS["byol_cifar"],
    )


def imagenet() -> Recipe:
    """ResNet-50, 1,000 epochs, batch 2,048. Expected: 73.2 linear (Barlow Twins, table 1); needs GPUs."""
    return on_imagenet(
        BarlowTwinsConfig(),
        OptimConfig(
            name="lars",
            base_lr=0.2,
            rate_1d=0.0048 / 0.2,
            weight_decay=1.5e-6,
            exclude_1d=True,
            warmup_epochs=10,
            end=0.001,
        ),
        epochs=1000,
        batch_size=2048,
        crops=PRESETS["byol"],
    )
