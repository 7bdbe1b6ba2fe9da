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
from stopgrad.siamese.predictive import Predictive

HEAD = {"layers": 2, "hidden": 12, "dim": 12}
LINEAR = {"dim": 12}
SMALL: dict[str, dict[str, Any]] = {
    "instdisc": {"projector": LINEAR, "negatives": 16},
    "cpc": {"steps": 1, "context": 8, "context_layers": 2, "patch_less": 1, "drawn": 5},
    "invaspread": {"projector": LINEAR},
    "cmc": {"projector": LINEAR, "bank_negatives": 8},
    "moco_v1": {"projector": LINEAR, "queue_size": 32, "momentum": 0.9, "bn_splits": 2},
    "simclr": {"projector": HEAD},
    "moco_v2": {"projector": HEAD, "queue_size": 32, "momentum": 0.9, "bn_splits": 2},
    "byol": {"projector": HEAD, "predictor_hidden": 12, "target_momentum": 0.9},
    "simclr_v2": {"projector": {"layers": 3, "hidden": 12, "dim": 12}, "queue_size": 96, "momentum": 0.9},
    "swav": {"projector": HEAD, "prototypes": 7, "queue_size": 24, "queue_from_epoch": 0},
    "simsiam": {"projector": HEAD, "predictor_hidden": 4},
    "directpred": {"projector": HEAD, "target_momentum": 0.9},
    "clip": {"dim": 12, "text": {"name": "text_transformer", "width": 8, "layers": 1, "heads": 2}},
    "barlow_twins": {"projector": HEAD},
    "moco_v3": {"projector": HEAD, "predictor_hidden": 12, "target_momentum": 0.9},
    "dino": {"projector": HEAD, "prototypes": 7, "momentum": 0.9},
    "vicreg": {"projector": HEAD},
    "unigrad": {"projector": HEAD, "target_momentum": 0.9},
}
TRUNKS: dict[str, dict[str, Any]] = {"cpc": {"norm": "layer", "patches": 8}, "cmc": {"width": 16, "split": "lab"}}
SENTENCES: dict[str, Any] = {"steps": 2, "drawn": 7}  # of cpc, token by token
SIDE, IMAGES = 16, 24
TEXT = VOCABULARY, LENGTH = 9, 6  # of what stands beside an image


def crops_of(name: str) -> int:
    """How many views the method's small preset makes."""
    return len(PRESETS[name]["scenes"]().views.sides)


def captioned(name: str) -> bool:
    """Whether the second view is a text."""
    return PRESETS[name]["scenes"]().views.kind == "captioned"


def small(name: str, batch_size: int = 12, sentences: bool = False, **changes: Any) -> Method:
    """The method around a small `tiny`, the same weights each time.  sentences: cpc of those instead of images."""
    builder, config = METHODS[name]
    torch.manual_seed(0)
    if sentences:
        trunk = BackboneConfig(name="cpc_text", width=8, context=6)
        backbone = build_backbone(trunk, VOCABULARY, LENGTH, seed=0)
    else:
        trunk = BackboneConfig(**{"width": 8, **TRUNKS.get(name, {})})
        backbone = build_backbone(trunk, 3, SIDE, seed=0)
    known = Known(
        crops=(LENGTH,) if sentences else (SIDE,) * crops_of(name),
        batch_size=batch_size,
        accumulate=1,
        backbone=trunk.name,
        split=trunk.split,
        kind="text" if sentences else "captioned" if captioned(name) else "image",
        text=TEXT if captioned(name) else None,
        seed=1,
        images=IMAGES,
    )
    settings = build(config, {"name": name, **(SENTENCES if sentences else SMALL[name]), **changes}, "method")
    settings.check(known)
    method: Method = builder(backbone, settings, known)
    if isinstance(method, Predictive) and settings.grouped:
        method.set_groups(torch.arange(IMAGES) % 3)
    for module in method.modules():  # the zero scale would hide what stands before it
        if isinstance(module, _BatchNorm) and module.affine:
            with torch.no_grad():
                module.weight.copy_(torch.linspace(0.5, 1.5, len(module.weight)))
    return method


def batch(
    name: str, step: int = 0, b: int = 12, dtype: torch.dtype = torch.float32, *, sentences: bool = False
) -> Views:
    """Views of `b` of the IMAGES, others each step.  sentences: token ids of sentences of several lengths instead."""
    generator = torch.Generator().manual_seed(step)
    if sentences:
        ids = torch.randint(1, VOCABULARY, (b, LENGTH), generator=generator)
        lengths = torch.randint(2, LENGTH + 1, (b, 1), generator=generator)
        ids = ids.where(torch.arange(LENGTH) < lengths, 0)
        return Views((ids,), torch.randperm(IMAGES, generator=generator)[:b])
    crops = [torch.randn(b, 3, SIDE, SIDE, generator=generator, dtype=dtype) for _ in range(crops_of(name))]
    if captioned(name):
        crops[1] = torch.randint(1, VOCABULARY, (b, LENGTH), generator=generator)
    return Views(tuple(crops), torch.randperm(IMAGES, generator=generator)[:b])
