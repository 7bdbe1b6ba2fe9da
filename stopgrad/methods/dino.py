"""DINO: a student matches the centred, sharpened output of its own slow copy, local crops against global ones.

Paper: arXiv:2104.14294 (Algorithm 1, section 3, appendix D). Reference: facebookresearch/dino, main_dino.py and
vision_transformer.py. The copy is what is kept and watched: it is better than the student all along.
Differs from the reference: logits are computed in float32 also under autocast; the prototypes' rows keep a gain of 1
(`norm_last_layer`; training it is safe for ViT-S alone, says the code); the ViT is timm's, whose class token begins at
std 1e-6 instead of 0.02 and whose positions are brought to a local crop's size with antialiasing and without the code's
offset of 0.1. As in the code, the teacher's temperature rises once an epoch while everything else moves every step, and
the projector sees all crops in one batch. Here it rises from 0.04 to 0.07 by default, the best of the paper's
temperatures; the code's default stays at 0.04, 0.1 points behind.
Recipes differ by backbone: `dino/imagenet` is a ViT's (AdamW), `dino/imagenet_resnet50` a ResNet's (SGD, crops of other
scales). --backbone alone changes none of it: begin with the preset of its kind.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from stopgrad.contracts import ConfigError, Known
from stopgrad.methods.settings import (
    HeadConfig,
    MethodConfig,
    above_zero,
    at_least,
    is_share,
    needs_pairs,
    read_with,
    trained_in_time,
)

if TYPE_CHECKING:
    from torch import nn

    from stopgrad.siamese.family import Siamese


def _projector() -> HeadConfig:
    return HeadConfig(layers=3, hidden=2048, dim=256, norm="none", output_norm="none")


@dataclass(frozen=True, kw_only=True, slots=True)
class DINOConfig(MethodConfig):
    """The paper's DINO on ImageNet."""

    name: Literal["dino"] = "dino"
    projector: HeadConfig = field(default_factory=_projector)  # GELU; unit vectors; norm=batch: use_bn_in_head
    prototypes: int = 65536  # the projection's dimension K in the paper
    momentum: float = 0.996  # of the copy; the authors advise 0.9995 at batch 256
    momentum_schedule: Literal["cosine", "constant"] = "cosine"  # to 1; constant at 0: no slow copy (table 7)
    student_temperature: float = 0.1
    teacher_temperature: float = 0.07  # 0.08 learns nothing in the paper: 0.1 % k-NN
    warmup_teacher_temperature: float = 0.04  # where it starts
    warmup_teacher_epochs: int = 30  # until it is reached, in equal steps, one an epoch; 0: from the start
    centre_momentum: float = 0.9
    frozen_epochs: int = 1  # prototypes are not trained in the first

    def __post_init__(self) -> None:
        at_least(self, 2, {"prototypes": 65536})
        is_share(self, {"momentum": 0.996, "centre_momentum": 0.9})
        above_zero(self, {"student_temperature": 0.1, "teacher_temperature": 0.07, "warmup_teacher_temperature": 0.04})
        at_least(self, 0, {"warmup_teacher_epochs": 30, "frozen_epochs": 1})
        read_with(self, "warmup_teacher_epochs=30", self.warmup_teacher_epochs > 0, "warmup_teacher_temperature")
        if self.warmup_teacher_epochs and self.warmup_teacher_temperature > self.teacher_temperature:
            raise ConfigError(
                f"method.warmup_teacher_temperature={self.warmup_teacher_temperature} is above "
                f"teacher_temperature={self.teacher_temperature}, which it rises to; type --set "
                f"method.warmup_teacher_temperature={self.teacher_temperature}, or less"
            )
        if self.projector.output_norm != "none":
            raise ConfigError(
                f"method.projector.output_norm must be none, got {self.projector.output_norm}: dino's projection ends "
                "in unit vectors; type --set method.projector.output_norm=none"
            )

    def check(self, known: Known) -> None:
        needs_pairs(self.name, known)
        trained_in_time(known, self.frozen_epochs)


def dino(backbone: nn.Module, config: DINOConfig, known: Known) -> Siamese:
    """Algorithm 1 of arXiv:2104.14294 from its parts. `backbone` has `.dim` and gives [B, dim]."""
    from stopgrad.nn.heads import dino_mlp
    from stopgrad.nn.vit import without_drop_path
    from stopgrad.siamese.assignment import CentredCrossEntropy, MultiCrop, SharedPrototypes
    from stopgrad.siamese.pairs import pairs_of
    from stopgrad.siamese.targets import Momentum

    head = config.projector
    width = int(backbone.dim)  # type: ignore[arg-type]
    projector = dino_mlp(width, head.hidden or width, head.dim, head.layers, head.norm)
    predictor = SharedPrototypes(head.dim, config.prototypes, config.frozen_epochs)
    target = Momentum(backbone, projector, config.momentum, config.momentum_schedule, follows=predictor)
    without_drop_path(target.target_backbone)  # it runs in train mode, but only the student leaves branches out
    return MultiCrop(
        backbone=backbone,
        projector=projector,
        predictor=predictor,
        target=target,
        objective=CentredCrossEntropy(
            config.prototypes,
            student_temperature=config.student_temperature,
            teacher_temperature=config.teacher_temperature,
            warmup_temperature=config.warmup_teacher_temperature,
            warmup_epochs=config.warmup_teacher_epochs,
            centre_momentum=config.centre_momentum,
        ),
        pairs=pairs_of("symmetric", len(known.crops)),
        bn_batch="size",
        keeps="target",
    )
