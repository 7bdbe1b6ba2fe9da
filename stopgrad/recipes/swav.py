"""SwAV's presets."""

from __future__ import annotations

from dataclasses import replace

from stopgrad.methods.settings import HeadConfig
from stopgrad.methods.swav import SwAVConfig
from stopgrad.nn.config import BackboneConfig
from stopgrad.optim.config import OptimConfig
from stopgrad.recipe import Recipe
from stopgrad.recipes.base import on_cifar10, on_imagenet, on_scenes, solo_learn_lars
from stopgrad.views.presets import PRESETS

_GLOBALS, _LOCALS = PRESETS["swav"][:2], PRESETS["swav"][2:]
# 2 x 160 + 4 x 96. The reference states no scales for them (methods-siamese.md, 7.2): those of 2 x 224 + 6 x 96 are
# taken over.
CHEAP_CROPS = tuple(replace(crop, size=160) for crop in _GLOBALS) + _LOCALS[:4]


def scenes() -> Recipe:
    """The embedded data set on two CPU cores in minutes. Synthetic images.

    With the paper's epsilon and 128 dimensions, cosines with random prototypes are too alike for a batch of 64 to be
    told apart by: codes are even within an epoch (base_lr 0.06, 0.24, 0.96). 32 dimensions and 0.02 keep them sharp.
    """
    return on_scenes(
        SwAVConfig(
            projector=HeadConfig(layers=2, hidden=1024, dim=32, output_norm="none"),
            prototypes=128,
            epsilon=0.02,
        ),
        OptimConfig(base_lr=0.48, weight_decay=5e-4),
    )


def cifar10() -> Recipe:
    """ResNet-18, 1,000 epochs, batch 256, queue from epoch 50. Expected: 89.17 linear (solo-learn's recipe and number);
    needs a GPU. The paper has no CIFAR-10.

    The number is older than its recipe's optimiser of today: the script it came with adapted and decayed biases and
    norms with the rest, and its rate ended at 0.0006.
    """
    return on_cifar10(
        SwAVConfig(queue_size=3840, queue_from_epoch=50, frozen_epochs=2),
        solo_learn_lars(0.6, 1e-6),
        epochs=1000,
        batch_size=256,
        crops=PRESETS["swav_cifar"],
    )


def imagenet() -> Recipe:
    """ResNet-50, 800 epochs, batch 4,096, 2 x 224 + 6 x 96. Expected: 75.3 linear (SwAV, released weights); 72.1 after
    100 epochs, 73.9 after 200, 74.6 after 400 (--epochs). Needs GPUs.
    """
    return on_imagenet(
        SwAVConfig(),
        # 4.8 at batch 4,096, from 0.3 to 0.0048; biases and norms are adapted and decayed with the rest
        OptimConfig(
            name="lars", base_lr=0.3, weight_decay=1e-6, warmup_epochs=10, warmup_from=0.3 / 4.8, end=0.0048 / 4.8
        ),
        epochs=800,
        batch_size=4096,
        crops=PRESETS["swav"],
    )


def imagenet_small() -> Recipe:
    """ResNet-50, 200 epochs, batch 256 with a queue, 2 x 160 + 4 x 96. Expected: 72.0 linear (SwAV, section 4.3); with
    2 x 224 + 6 x 96 it is 72.7 (released weights). Needs GPUs.
    """
    return on_imagenet(
        SwAVConfig(queue_size=3840),
        OptimConfig(name="lars", base_lr=0.6, weight_decay=1e-6, end=0.001),
        epochs=200,
        batch_size=256,
        crops=CHEAP_CROPS,
    )


def small() -> Recipe:
    """ResNet-18 on 1,000 to 100,000 images of 224 pixels, up to 512 a step; 200 epochs, batch 256, 2 x 160 + 4 x 96.
    Nobody has measured it; needs a GPU.

    Optimiser, queue and crops are those of the paper's small batches on ImageNet (imagenet_small).
    """
    return on_imagenet(
        SwAVConfig(queue_size=3840),
        OptimConfig(name="lars", base_lr=0.6, weight_decay=1e-6, end=0.001),
        epochs=200,
        batch_size=256,
        crops=CHEAP_CROPS,
        backbone=BackboneConfig(name="resnet18", stem="standard"),
    )
