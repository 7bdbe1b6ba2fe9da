"""SimCLR's presets."""

from __future__ import annotations

from stopgrad.methods.settings import HeadConfig
from stopgrad.methods.simclr import SimCLRConfig
from stopgrad.optim.config import OptimConfig
from stopgrad.recipe import Recipe
from stopgrad.recipes.base import on_cifar10, on_imagenet, on_scenes
from stopgrad.views.config import CropConfig
from stopgrad.views.presets import PRESETS

# Appendix A at strength 1. Blur has no fixed kernel size here, the paper's is a tenth of the side.
CROP = CropConfig(scale=(0.08, 1.0), interpolation="bicubic", brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2)


def scenes() -> Recipe:
    """The embedded data set on two CPU cores in minutes. Synthetic images."""
    return on_scenes(
        SimCLRConfig(
            projector=HeadConfig(layers=2, hidden=1024, dim=256, output_norm="none"),
            temperature=0.2,
        ),
        OptimConfig(base_lr=0.96, weight_decay=5e-4),
    )


def cifar10() -> Recipe:
    """ResNet-18, 1,000 epochs, batch 512. Expected: about 91 linear (google-research/simclr, README, whose command and
    head this is); needs a GPU.

    The paper's own CIFAR-10 recipe is a ResNet-50's: 94.0 (appendix B.9).
    """
    return on_cifar10(
        SimCLRConfig(
            projector=HeadConfig(layers=3, hidden=512, dim=128, output_norm="batch"),
            temperature=0.5,
            directions="sum",
        ),
        OptimConfig(name="lars", base_lr=1.0, weight_decay=1e-4, exclude_1d=True, warmup_epochs=10),
        epochs=1000,
        batch_size=512,
        crops=PRESETS["simclr_cifar"],
    )


def imagenet() -> Recipe:
    """ResNet-50, 100 epochs, batch 4,096. Expected: 64.5 linear (google-research/simclr, README before version 2, with
    the paper's settings); needs GPUs. The paper's 1,000 epochs: 69.3 (table 6)."""
    return on_imagenet(
        SimCLRConfig(),
        OptimConfig(name="lars", base_lr=0.3, weight_decay=1e-6, exclude_1d=True, warmup_epochs=10),
        epochs=100,
        batch_size=4096,
        crops=(CROP, CROP),
    )
