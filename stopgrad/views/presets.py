"""The augmentations of the papers, as data. Source of each row: methods-siamese.md, section 0.3, and the code it names;
for CIFAR the recipes whose numbers our cifar10 presets quote, each at 32 pixels.

A crop of size 0 takes views.image_size (the papers: 224); local crops keep the papers' 96. Orders that differ only in
when the flip comes are the same law. Where we differ from the sources: blur has no fixed kernel size (Pillow's has none
either; BYOL's JAX code cuts it at a tenth of the side), brightness is multiplicative (BYOL's JAX code adds), and
normalisation is `ViewsConfig.mean` and `.std` (swav's code has .228 where everybody else has .229): ImageNet's also for
CIFAR, where recipes take CIFAR's own and SimCLR none.
"""

from __future__ import annotations

from dataclasses import replace

from stopgrad.views.config import CropConfig

_MOCO = CropConfig()  # facebookresearch/simsiam main_simsiam.py; MoCo v2's aug+
_BYOL = CropConfig(scale=(0.08, 1.0), interpolation="bicubic", saturation=0.2, blur=1.0)  # byol/utils/augmentations.py
_SWAV = CropConfig(brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2)  # swav multicropdataset.py
_DINO = replace(_BYOL, scale=(0.4, 1.0))  # dino main_dino.py, defaults
_BYOL_CIFAR = replace(_BYOL, blur=0.0)
_SIMCLR_CIFAR = CropConfig(scale=(0.08, 1.0), interpolation="bicubic", blur=0.0)  # strength 1/2


def _asymmetric(first: CropConfig) -> tuple[CropConfig, CropConfig]:
    """BYOL's pair: the first view is always blurred, the second seldom, but sometimes solarized."""
    return first, replace(first, blur=0.1, solarize=0.2)


PRESETS: dict[str, tuple[CropConfig, ...]] = {
    "moco_v2": (_MOCO, _MOCO),
    "moco_v2_cifar": (replace(_MOCO, blur=0.0), replace(_MOCO, blur=0.0)),  # arXiv:2011.10566, appendix D
    "simclr_cifar": (_SIMCLR_CIFAR, _SIMCLR_CIFAR),  # arXiv:2002.05709, B.9; google-research/simclr README
    "byol": _asymmetric(_BYOL),  # also Barlow Twins, VICReg
    # solo-learn scripts/pretrain/cifar/augmentations/asymmetric.yaml; also Barlow Twins, MoCo v3, DINO
    "byol_cifar": (_BYOL_CIFAR, replace(_BYOL_CIFAR, solarize=0.2)),
    "moco_v3": _asymmetric(replace(_BYOL, interpolation="bilinear")),  # ViT
    "moco_v3_resnet": _asymmetric(replace(_BYOL, interpolation="bilinear", scale=(0.2, 1.0))),  # ResNet-50, CONFIG.md
    "swav": (replace(_SWAV, scale=(0.14, 1.0)),) * 2 + (replace(_SWAV, size=96, scale=(0.05, 0.14)),) * 6,
    "swav_globals": (replace(_SWAV, scale=(0.08, 1.0)),) * 2,  # without multi-crop
    "swav_cifar": (replace(_SWAV, scale=(0.08, 1.0), interpolation="bicubic"),) * 2,  # solo-learn, symmetric.yaml
    "dino": _asymmetric(_DINO) + (replace(_DINO, size=96, scale=(0.05, 0.4), blur=0.5),) * 8,
    "dino_globals": _asymmetric(replace(_DINO, scale=(0.14, 1.0))),  # without local crops
}
