"""UniGrad's presets."""

from __future__ import annotations

from stopgrad.methods.settings import HeadConfig
from stopgrad.methods.unigrad import UniGradConfig
from stopgrad.optim.config import OptimConfig
from stopgrad.recipe import Recipe
from stopgrad.recipes.base import on_cifar10, on_imagenet, on_scenes
from stopgrad.views.presets import PRESETS


def scenes() -> Recipe:
    """The embedded data set on two CPU cores in minutes. Synthetic images.

    Features are pushed apart by 6 instead of 100, since F has 512 channels instead of 2048 and each more of its share.
    Batch norm behind the projector, which the paper has not: without it a run this short is spent on the mean.
    """
    return on_scenes(
        UniGradConfig(
            projector=HeadConfig(layers=2, hidden=1024, dim=512),
            negative_weight=6.0,
            target_momentum=0.99,
        ),
        OptimConfig(base_lr=0.96, weight_decay=5e-4),
    )


def cifar10() -> Recipe:
    """ResNet-18, 800 epochs, batch 512, with SimSiam's optimiser for CIFAR-10. A first guess that nobody has measured:
    no number is published; needs a GPU."""
    return on_cifar10(
        UniGradConfig(),
        OptimConfig(base_lr=0.03, weight_decay=5e-4),
        epochs=800,
        batch_size=512,
    )


def imagenet() -> Recipe:
    """ResNet-50, 100 epochs, batch 1,024. Expected: 70.3 linear (README of the released code); needs GPUs.

    The released code stretches the cosine over the warm-up, too, so its rate ends at 0.6 % of the peak instead of 0.1.
    """
    return on_imagenet(
        UniGradConfig(),
        OptimConfig(base_lr=0.05, weight_decay=1e-4, warmup_epochs=5, warmup_from=0.001, end=0.001),
        epochs=100,
        batch_size=1024,
        crops=PRESETS["moco_v2"],
    )
