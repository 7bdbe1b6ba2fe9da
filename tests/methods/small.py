"""Every method of METHODS, small: what the contract suite and the two processes build. A new one adds a line."""

from typing import Any

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from stopgrad.contracts import Known, Views
from stopgrad.method import Method
from stopgrad.methods import METHODS
from stopgrad.nn.backbones import build_backbone
from stopgrad.nn.config import BackboneConfig
from stopgrad.recipe.typed import build
from stopgrad.recipes import PRESETS

HEAD = {"layers": 2, "hidden": 12, "dim": 12}
LINEAR = {"dim": 12}
SMALL: dict[str, dict[str, Any]] = {
    "instdisc": {"projector": LINEAR, "negatives": 16},
    "invaspread": {"projector": LINEAR},
    "moco_v1": {"projector": LINEAR, "queue_size": 32, "momentum": 0.9, "bn_splits": 2},
    "simclr": {"projector": HEAD},
    "moco_v2": {"projector": HEAD, "queue_size": 32, "momentum": 0.9, "bn_splits": 2},
    "byol": {"projector": HEAD, "predictor_hidden": 12, "target_momentum": 0.9},
    "swav": {"projector": HEAD, "prototypes": 7, "queue_size": 24, "queue_from_epoch": 0},
    "simsiam": {"projector": HEAD, "predictor_hidden": 4},
    "directpred": {"projector": HEAD, "target_momentum": 0.9},
    "barlow_twins": {"projector": HEAD},
    "moco_v3": {"projector": HEAD, "predictor_hidden": 12, "target_momentum": 0.9},
    "dino": {"projector": HEAD, "prototypes": 7, "momentum": 0.9},
    "vicreg": {"projector": HEAD},
    "unigrad": {"projector": HEAD, "target_momentum": 0.9},
}
SIDE, IMAGES = 16, 24


def crops_of(name: str) -> int:
    """How many views the method's small preset makes."""
    return len(PRESETS[name]["scenes"]().views.crops)


def small(name: str, batch_size: int = 12, **changes: Any) -> Method:
    """The method around `tiny` at width 8, the same weights each time."""
    builder, config = METHODS[name]
    torch.manual_seed(0)
    backbone = build_backbone(BackboneConfig(width=8), 3, SIDE, seed=0)
    known = Known(
        crops=(SIDE,) * crops_of(name), batch_size=batch_size, accumulate=1, backbone="tiny", seed=1, images=IMAGES
    )
    settings = build(config, {"name": name, **SMALL[name], **changes}, "method")
    settings.check(known)
    method: Method = builder(backbone, settings, known)
    for module in method.modules():  # the zero scale would hide what stands before it
        if isinstance(module, _BatchNorm) and module.affine:
            with torch.no_grad():
                module.weight.copy_(torch.linspace(0.5, 1.5, len(module.weight)))
    return method


def batch(name: str, step: int = 0, b: int = 12, dtype: torch.dtype = torch.float32) -> Views:
    """Views of `b` of the IMAGES, others each step."""
    generator = torch.Generator().manual_seed(step)
    crops = (torch.randn(b, 3, SIDE, SIDE, generator=generator, dtype=dtype) for _ in range(crops_of(name)))
    return Views(tuple(crops), torch.randperm(IMAGES, generator=generator)[:b])
