"""InvaSpread's presets."""

from __future__ import annotations

from stopgrad.methods.invaspread import InvaSpreadConfig
from stopgrad.optim.config import OptimConfig
from stopgrad.recipe import Recipe
from stopgrad.recipes.base import on_cifar10, on_imagenet, on_scenes
from stopgrad.views.config import CropConfig

# demo_seen.py, at 32 pixels; InstDisc's on ImageNet is the same. Colours always change, hue more than in MoCo v2.
CROP = CropConfig(jitter=1.0, hue=0.4, blur=0.0)


def scenes() -> Recipe:
    """The embedded data set on two CPU cores in minutes. Synthetic images."""
    return on_scenes(InvaSpreadConfig(), OptimConfig(base_lr=0.48, weight_decay=5e-4))


def cifar10() -> Recipe:
    """ResNet-18, 301 epochs, batch 128. Expected: 83.6 kNN on the projection with 200 neighbours (InvaSpread, CIFAR-10
    table, whose code this follows but for the gradient through both sides); needs a GPU."""
    return on_cifar10(
        InvaSpreadConfig(),
        OptimConfig(
            base_lr=0.06,  # 0.03 at 128 images
            weight_decay=5e-4,
            schedule="steps",
            steps=((120 / 301, 0.1), (160 / 301, 0.05), (200 / 301, 0.01)),
        ),
        epochs=301,
        batch_size=128,
        crops=(CROP, CROP),
    )


def imagenet() -> Recipe:
    """ResNet-50, 200 epochs, batch 256: InstDisc's length, rate and views, since the paper has no ImageNet. Nobody
    published a number; needs GPUs."""
    return on_imagenet(
        InvaSpreadConfig(),
        OptimConfig(base_lr=0.03, weight_decay=1e-4, schedule="steps", steps=((0.6, 0.1), (0.8, 0.01))),
        epochs=200,
        batch_size=256,
        crops=(CROP, CROP),
    )
