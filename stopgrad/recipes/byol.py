"""BYOL's presets."""

from __future__ import annotations

from stopgrad.methods.byol import BYOLConfig
from stopgrad.methods.settings import HeadConfig
from stopgrad.optim.config import OptimConfig
from stopgrad.recipe import Recipe
from stopgrad.recipes.base import on_cifar10, on_imagenet, on_scenes, solo_learn_lars
from stopgrad.views.presets import PRESETS


def scenes() -> Recipe:
    """The embedded data set on two CPU cores in minutes. Synthetic images.

    The rate is a quarter of SimSiam's: the loss is four times as steep. Batch norm behind the projector, which the
    paper has not: without it a run this short is spent on the mean.
    """
    return on_scenes(
        BYOLConfig(
            projector=HeadConfig(layers=2, hidden=1024, dim=256),
            predictor_hidden=1024,
            target_momentum=0.99,
        ),
        OptimConfig(base_lr=0.24, weight_decay=5e-4),
    )


def cifar10() -> Recipe:
    """ResNet-18, 1,000 epochs, batch 256. Expected: 92.58 linear (solo-learn's recipe and number); needs a GPU. The
    paper has no CIFAR-10."""
    return on_cifar10(
        BYOLConfig(target_momentum=0.99),
        solo_learn_lars(1.0, 1e-5),
        epochs=1000,
        batch_size=256,
        crops=PRESETS["byol_cifar"],
    )


def imagenet() -> Recipe:
    """ResNet-50, 100 epochs, batch 4,096. Expected: 66.5 linear (SimSiam, table 4: its authors' run); needs GPUs.

    Rates and momentum are those of the released code for 100 epochs. For 300: --set optim.base_lr=0.3, 72.5 (BYOL,
    table 5). For 1,000: 0.2, optim.weight_decay=1.5e-6, method.target_momentum=0.996, 74.3 (table 1).
    """
    return on_imagenet(
        BYOLConfig(target_momentum=0.99),
        OptimConfig(name="lars", base_lr=0.45, weight_decay=1e-6, exclude_1d=True, warmup_epochs=10),
        epochs=100,
        batch_size=4096,
        crops=PRESETS["byol"],
    )
