"""Fine-tuning and distillation, small: for their contract and for the two processes."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from stopgrad.contracts import Known, Views
from stopgrad.methods import method_named
from stopgrad.methods.taught import UNKNOWN, Answering, Distill, Taught
from stopgrad.nn.backbones import build_backbone
from stopgrad.nn.config import BackboneConfig
from stopgrad.nn.kept import KeptLayer
from stopgrad.recipe.typed import build

SIDE, IMAGES, CLASSES = 16, 24, 3
KEPT = BackboneConfig(width=8, kept=(KeptLayer(width=12),))
SETTINGS: dict[str, dict[str, Any]] = {
    "finetune": {"labels": "10%", "classes": CLASSES},
    "distill": {"teacher": "/nowhere", "classes": CLASSES},
    "distill, mixed": {"teacher": "/nowhere", "classes": CLASSES, "labels": "50%", "alpha": 0.7, "temperature": 0.5},
}


def known(name: str) -> Tensor:
    """[IMAGES] labels; half of them where the form is mixed, none where labels are not learnt."""
    labels = torch.arange(IMAGES) % CLASSES
    if name == "finetune":
        return labels
    some = torch.arange(IMAGES) % 4 < 2 if "mixed" in name else torch.zeros(IMAGES, dtype=torch.bool)
    return torch.where(some, labels, UNKNOWN)


def small_taught(name: str, backbone: BackboneConfig = KEPT, **changes: Any) -> Taught:
    """The method around `tiny` at width 8 with a kept layer, the same weights each time, a classifier that moved."""
    plain = name.partition(",")[0]
    builder, config = method_named(plain)
    settings = build(config, {"name": plain, **SETTINGS[name], **changes}, "method")
    about = Known(crops=(SIDE,), batch_size=12, accumulate=1, backbone="tiny", seed=1, images=IMAGES)
    settings.check(about)
    method: Taught = builder(build_backbone(backbone, 3, SIDE, seed=0), settings, about)
    method.learn(known(name))
    if isinstance(method, Distill):
        method.follow(teacher())
    for module in method.modules():  # the zero scale would hide what stands before it
        if isinstance(module, _BatchNorm) and module.affine:
            with torch.no_grad():
                module.weight.copy_(torch.linspace(0.5, 1.5, len(module.weight)))
    return method


def teacher() -> Answering:
    """Answers that differ from image to image, and from a student's."""
    backbone = build_backbone(BackboneConfig(width=16), 3, SIDE, seed=7)
    classifier = nn.Linear(64, CLASSES)
    generator = torch.Generator().manual_seed(8)
    with torch.no_grad():
        classifier.weight.copy_(torch.randn(CLASSES, 64, generator=generator))
        classifier.bias.copy_(torch.randn(CLASSES, generator=generator))
    return Answering(backbone, classifier)


def batch(step: int = 0, b: int = 12, dtype: torch.dtype = torch.float32) -> Views:
    """Views of `b` of the IMAGES, others each step."""
    generator = torch.Generator().manual_seed(step)
    crop = torch.randn(b, 3, SIDE, SIDE, generator=generator, dtype=dtype)
    return Views((crop,), torch.randperm(IMAGES, generator=generator)[:b])
