"""InstDisc's presets. All take the released code's bank, half of a row kept, with which the numbers were made."""

from __future__ import annotations

from stopgrad.methods.instdisc import InstDiscConfig
from stopgrad.methods.settings import HeadConfig
from stopgrad.nn.config import BackboneConfig
from stopgrad.optim.config import OptimConfig
from stopgrad.recipe import Recipe
from stopgrad.recipes.base import SMALL_CROPS, on_cifar10, on_imagenet, on_scenes
from stopgrad.views.config import CropConfig

# lemniscate.pytorch: main.py, whose gray comes before the jitter, ours after it; cifar.py, whose flip is commented out
CROP = CropConfig(jitter=1.0, hue=0.4, blur=0.0)
CIFAR_CROP = CropConfig(jitter=1.0, hue=0.4, blur=0.0, hflip=0.0)
DROPS = ((0.6, 0.1), (0.8, 0.01))  # epochs 120 and 160 of 200, in both scripts


def scenes() -> Recipe:
    """The embedded data set on two CPU cores in minutes, the softmax over all images. Synthetic images.

    Batch norm behind the projector, which the paper has not: without it a run this short is spent on the mean.
    """
    # noise contrast diverges here: an epoch of 148 steps is too short for embeddings to spread before Z, which is
    # measured on random rows, is far too small for rows that are all alike
    return on_scenes(
        InstDiscConfig(
            projector=HeadConfig(layers=1, dim=128, norm="none"), negatives=0, temperature=0.1, bank_momentum=0.5
        ),
        OptimConfig(base_lr=0.24, weight_decay=5e-4),
        crops=SMALL_CROPS[:1],
    )


def cifar10() -> Recipe:
    """ResNet-18, 200 epochs, batch 128, the softmax over all images. Expected: 80.8 kNN on the projection (InstDisc,
    table 1); needs a GPU."""
    return on_cifar10(
        InstDiscConfig(negatives=0, temperature=0.1, bank_momentum=0.5),
        OptimConfig(base_lr=0.06, weight_decay=5e-4, schedule="steps", steps=DROPS),  # .03 at this batch
        epochs=200,
        batch_size=128,
        crops=(CIFAR_CROP,),
    )


def imagenet() -> Recipe:
    """ResNet-50, 200 epochs, batch 256. Expected: 46.8 kNN on the projection (the repository's README), 54.0 linear
    (MoCo's comparison); needs GPUs."""
    return on_imagenet(
        InstDiscConfig(bank_momentum=0.5),
        OptimConfig(base_lr=0.03, weight_decay=1e-4, schedule="steps", steps=DROPS),
        epochs=200,
        batch_size=256,
        crops=(CROP,),
    )


def small() -> Recipe:
    """ResNet-18 on 1,000 to 100,000 images of 224 pixels, up to 512 a step; 200 epochs, batch 256. Nobody has measured
    it; needs a GPU.

    Loss and optimiser are what the authors advise for CIFAR-10 (the softmax over all images, whose bank still fits),
    the crop is ImageNet's.
    """
    return on_imagenet(
        InstDiscConfig(negatives=0, temperature=0.1, bank_momentum=0.5),
        OptimConfig(base_lr=0.06, weight_decay=5e-4, schedule="steps", steps=DROPS),
        epochs=200,
        batch_size=256,
        crops=(CROP,),
        backbone=BackboneConfig(name="resnet18", stem="standard"),
    )
