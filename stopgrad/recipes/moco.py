"""Presets of MoCo v1 and v2. Heads and queues of small data sets are those of the authors' demo on CIFAR-10
(facebookresearch/moco, colab/moco_cifar10_demo.ipynb): 4,096 keys saturate there."""

from __future__ import annotations

from stopgrad.methods.moco import MoCoV1Config, MoCoV2Config
from stopgrad.methods.settings import HeadConfig
from stopgrad.nn.config import BackboneConfig
from stopgrad.optim.config import OptimConfig
from stopgrad.recipe import Recipe
from stopgrad.recipes.base import on_cifar10, on_imagenet, on_scenes
from stopgrad.views.config import CropConfig
from stopgrad.views.presets import PRESETS

# main_moco.py without --aug-plus, four times the hue of v2. Its gray comes before the jitter, ours after it.
V1_CROP = CropConfig(jitter=1.0, hue=0.4, blur=0.0)
DEMO_CROP = CropConfig(scale=(0.08, 1.0), blur=0.0)  # moco_cifar10_demo.ipynb; torchvision's own scale
# .03 for 256 images: the papers' and the demo's
COSINE = OptimConfig(base_lr=0.03, weight_decay=1e-4)
STEPS = OptimConfig(base_lr=0.03, weight_decay=1e-4, schedule="steps", steps=((0.6, 0.1), (0.8, 0.01)))
SMALL_BACKBONE = BackboneConfig(name="resnet18", stem="standard")


def scenes_v1() -> Recipe:
    """The embedded data set on two CPU cores in minutes; batch norm sees 32, as in the paper. Synthetic images.

    Batch norm behind the projector, which the paper has not: without it a run this short is spent on the mean.
    """
    head = HeadConfig(layers=1, dim=128, norm="none")
    return on_scenes(
        MoCoV1Config(projector=head, queue_size=4096, momentum=0.99, temperature=0.1, bn_splits=2),
        OptimConfig(base_lr=0.24, weight_decay=5e-4),
    )


def scenes_v2() -> Recipe:
    """The embedded data set on two CPU cores in minutes; batch norm sees 32, as in the paper. Synthetic images.

    Batch norm in the projector and behind it, which the paper has not: without it so short a run is spent on the mean.
    """
    head = HeadConfig(layers=2, hidden=1024, dim=128)
    return on_scenes(
        MoCoV2Config(projector=head, queue_size=4096, momentum=0.99, bn_splits=2),
        OptimConfig(base_lr=0.48, weight_decay=5e-4),
    )


def cifar10_v1() -> Recipe:
    """ResNet-18, 200 epochs, batch 512: the authors' demo. Expected: 82.6 kNN on the projection (its table,
    asymmetric); needs a GPU."""
    return on_cifar10(
        MoCoV1Config(queue_size=4096, momentum=0.99, temperature=0.1),
        OptimConfig(base_lr=0.03, weight_decay=5e-4),
        epochs=200,
        batch_size=512,
        crops=(DEMO_CROP, DEMO_CROP),
    )


def cifar10_v2() -> Recipe:
    """ResNet-18, 800 epochs, batch 512: the authors' demo, symmetric. Expected: 89.7 kNN on the projection, 90.7 linear
    (the demo's table and notes); needs a GPU.

    The demo ends in one linear layer, as v1; v2's MLP is `method.projector.layers=2`, for which it has no number.
    """
    head = HeadConfig(layers=1, dim=128, norm="none", output_norm="none")
    return on_cifar10(
        MoCoV2Config(projector=head, queue_size=4096, momentum=0.99, temperature=0.1, pairs="symmetric"),
        OptimConfig(base_lr=0.03, weight_decay=5e-4),
        epochs=800,
        batch_size=512,
        crops=(DEMO_CROP, DEMO_CROP),
    )


def imagenet_v1() -> Recipe:
    """ResNet-50, 200 epochs, batch 256. Expected: 60.6 linear (MoCo; 60.8 in the repository's README); needs GPUs."""
    return on_imagenet(MoCoV1Config(), STEPS, epochs=200, batch_size=256, crops=(V1_CROP, V1_CROP))


def imagenet_v2() -> Recipe:
    """ResNet-50, 200 epochs, batch 256. Expected: 67.5 linear (MoCo v2), 71.1 after 800; needs GPUs."""
    return on_imagenet(MoCoV2Config(), COSINE, epochs=200, batch_size=256, crops=PRESETS["moco_v2"])


def small_v1() -> Recipe:
    """ResNet-18 on 1,000 to 100,000 images of 224 pixels, up to 512 a step; 200 epochs, batch 256. Nobody has measured
    it; needs a GPU.

    ImageNet's recipe with the queue and the momentum of the authors' demo on CIFAR-10. Where there are fewer than 4,096
    images, a shorter queue holds no image twice (method.queue_size; at least a batch).
    """
    method = MoCoV1Config(queue_size=4096, momentum=0.99)
    return on_imagenet(method, STEPS, epochs=200, batch_size=256, crops=(V1_CROP, V1_CROP), backbone=SMALL_BACKBONE)


def small_v2() -> Recipe:
    """ResNet-18 on 1,000 to 100,000 images of 224 pixels, up to 512 a step; 200 epochs, batch 256. Nobody has measured
    it; needs a GPU.

    ImageNet's recipe with the queue and the momentum of the authors' demo on CIFAR-10. Where there are fewer than 4,096
    images, a shorter queue holds no image twice (method.queue_size; at least a batch).
    """
    method = MoCoV2Config(queue_size=4096, momentum=0.99)
    return on_imagenet(method, COSINE, epochs=200, batch_size=256, crops=PRESETS["moco_v2"], backbone=SMALL_BACKBONE)
