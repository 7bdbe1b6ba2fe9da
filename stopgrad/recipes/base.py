"""What the presets of all methods share: images, views, backbone and length. A method adds its parts and optimiser."""

from __future__ import annotations

from stopgrad.data import DataConfig
from stopgrad.methods import MethodConfig
from stopgrad.nn.config import BackboneConfig
from stopgrad.optim.config import OptimConfig
from stopgrad.recipe import Recipe
from stopgrad.training.config import LoopConfig
from stopgrad.views.config import CropConfig, ViewsConfig
from stopgrad.views.presets import PRESETS

# What `tiny` is trained with, whatever the images: a run of minutes on a CPU has few steps, so they are many of few
# images at a high rate, through heads in proportion to its width. Measured with SimSiam: docs/tiny.md.
TINY_BATCH = 64
SMALL_CROPS = PRESETS["moco_v2_cifar"]


def on_scenes(method: MethodConfig, optim: OptimConfig, crops: tuple[CropConfig, ...] = SMALL_CROPS) -> Recipe:
    """The embedded data set on two CPU cores in minutes, with `tiny`. Synthetic images."""
    return Recipe(
        method=method,
        data=DataConfig(source="scenes-v1"),
        views=ViewsConfig(image_size=32, crops=crops),
        backbone=BackboneConfig(name="tiny"),
        optim=optim,
        loop=LoopConfig(epochs=15, batch_size=TINY_BATCH),
    )


def on_cifar10(
    method: MethodConfig,
    optim: OptimConfig,
    *,
    epochs: int,
    batch_size: int,
    crops: tuple[CropConfig, ...] = SMALL_CROPS,
) -> Recipe:
    """ResNet-18 with the small-image stem at 32 pixels; needs a GPU."""
    return Recipe(
        method=method,
        data=DataConfig(source="cifar10"),
        views=ViewsConfig(image_size=32, crops=crops),
        backbone=BackboneConfig(name="resnet18", stem="small"),
        optim=optim,
        loop=LoopConfig(epochs=epochs, batch_size=batch_size),
    )


def solo_learn_lars(base_lr: float, weight_decay: float) -> OptimConfig:
    """The optimiser of solo-learn's CIFAR recipes (scripts/pretrain/cifar), whose rate and decay are each method's."""
    return OptimConfig(
        name="lars",
        base_lr=base_lr,
        weight_decay=weight_decay,
        exclude_1d=True,
        trust=0.02,
        trust_clip=True,
        warmup_epochs=10,
    )


def on_imagenet(
    method: MethodConfig,
    optim: OptimConfig,
    *,
    epochs: int,
    batch_size: int,
    crops: tuple[CropConfig, ...],
    backbone: BackboneConfig | None = None,
) -> Recipe:
    """ResNet-50 at 224 pixels unless another backbone is named; needs GPUs."""
    return Recipe(
        method=method,
        data=DataConfig(source="imagenet"),
        views=ViewsConfig(image_size=224, crops=crops),
        backbone=backbone or BackboneConfig(name="resnet50", stem="standard"),
        optim=optim,
        loop=LoopConfig(epochs=epochs, batch_size=batch_size, view_threads=8),
    )
