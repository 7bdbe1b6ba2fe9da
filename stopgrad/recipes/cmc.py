"""CMC's presets: one crop an image, split into lightness and colour in a backbone of two halves, half as wide each.

Crop and flip alone (train_CMC.py): jitter and grayscale would take the colour that one of the views is made of.
"""

from __future__ import annotations

from stopgrad.data import DataConfig
from stopgrad.methods.cmc import CMCConfig
from stopgrad.nn.config import BackboneConfig
from stopgrad.optim.config import OptimConfig
from stopgrad.recipe import Recipe
from stopgrad.recipes.base import TINY_BATCH
from stopgrad.training.config import LoopConfig
from stopgrad.views.config import CropConfig, ViewsConfig

CROP = CropConfig(scale=(0.08, 1.0), jitter=0.0, grayscale=0.0, blur=0.0)  # .2 with an AlexNet, or on ImageNet-100
SMALL_CROP = CropConfig(scale=(0.2, 1.0), jitter=0.0, grayscale=0.0, blur=0.0)
MEAN, STD = (0.0,) * 3, (1.0,) * 3  # Lab is made of pixels as they are
DROPS = ((120 / 240, 0.1), (160 / 240, 0.01), (200 / 240, 0.001))  # epochs of 240


def scenes() -> Recipe:
    """The embedded data set on two CPU cores in minutes, negatives in the batch. Synthetic images.

    Noise contrast wants longer runs: Z is measured on random rows. Lightness and colour of these scenes share their
    colours, not their shapes: kNN stays where it was (docs/sensors.md). cmc/scenes_sensors learns them.
    """
    return _on(
        "scenes-v1",
        CMCConfig(negatives="in_batch", temperature=0.1),
        OptimConfig(base_lr=0.48, weight_decay=5e-4),
        ViewsConfig(image_size=32, crops=(SMALL_CROP,), mean=MEAN, std=STD),
        BackboneConfig(name="tiny", split="lab"),
        LoopConfig(epochs=15, batch_size=TINY_BATCH),
    )


def cifar10() -> Recipe:
    """Two half ResNet-18s, 200 epochs, batch 128. Nobody has published CMC on CIFAR-10; needs a GPU.

    Rate, decay and length are InstDisc's on CIFAR-10 (lemniscate.pytorch, cifar.py), the loss is the paper's with the
    temperature the authors take on STL-10, a set of small images (HobbitLong/CMC, README).
    """
    return _on(
        "cifar10",
        CMCConfig(temperature=0.1),
        OptimConfig(base_lr=0.06, weight_decay=5e-4, schedule="steps", steps=((0.6, 0.1), (0.8, 0.01))),
        ViewsConfig(image_size=32, crops=(SMALL_CROP,), mean=MEAN, std=STD),
        BackboneConfig(name="resnet18", stem="small", split="lab"),
        LoopConfig(epochs=200, batch_size=128),
    )


def imagenet() -> Recipe:
    """Two half ResNet-50s (the code's resnet50v1), 240 epochs, batch 128; needs GPUs.

    For whole ImageNet no number of these halves is published where we could read it; 66.2 linear is listed for CMC with
    a ResNet-50 (BYOL, table 1), 68.4 for two of twice the width (HobbitLong/CMC, README). On ImageNet-100 the halves
    reach 75.8, with YCbCr instead of Lab and the softmax instead of NCE (README), where InstDisc has 69.1.
    """
    return _on(
        "imagenet",
        CMCConfig(),
        OptimConfig(base_lr=0.06, weight_decay=1e-4, schedule="steps", steps=DROPS),  # .03 at this batch
        ViewsConfig(image_size=224, crops=(CROP,), mean=MEAN, std=STD),
        BackboneConfig(name="resnet50", stem="standard", split="lab"),
        LoopConfig(epochs=240, batch_size=128, view_threads=8),
    )


def _on(
    source: str, method: CMCConfig, optim: OptimConfig, views: ViewsConfig, backbone: BackboneConfig, loop: LoopConfig
) -> Recipe:
    return Recipe(method=method, data=DataConfig(source=source), views=views, backbone=backbone, optim=optim, loop=loop)
