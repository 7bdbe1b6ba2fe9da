"""MoCo v3: find an image's other view, encoded by a slow copy, among that view of all images of the batch; no queue.

Paper: arXiv:2104.02057 (Algorithm 1). Reference: facebookresearch/moco-v3, builder.py and CONFIG.md.
Defaults are the ResNet-50 recipe's, with the preset `moco_v3/imagenet`. A ViT's stand in `moco_v3/imagenet_vit`: a
projector of 3 layers, predictor_output_norm=batch_no_affine and temperature 0.2; its patches, positions and heads of
attention are settings of the backbone. --backbone alone changes none of them: begin with the preset of its kind.
Differs from the reference: the copy moves after the optimiser's step instead of before the next keys, the same sequence
but for its momentum, which is one step further along the cosine there. Multi-crop is an addition.
Negatives are the images of one step over all processes, also with loop.accumulate, which batch norm forbids.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from stopgrad.contracts import Known
from stopgrad.methods.settings import (
    HeadConfig,
    HiddenNorm,
    MethodConfig,
    OutputNorm,
    above_zero,
    at_least,
    is_share,
)

if TYPE_CHECKING:
    from torch import nn

    from stopgrad.siamese.family import Siamese


def _resnet_projector() -> HeadConfig:
    return HeadConfig(layers=2, hidden=4096, dim=256)


@dataclass(frozen=True, kw_only=True, slots=True)
class MoCoV3Config(MethodConfig):
    """The reference's MoCo v3 with a ResNet-50 on ImageNet (CONFIG.md)."""

    name: Literal["moco_v3"] = "moco_v3"
    projector: HeadConfig = field(default_factory=_resnet_projector)  # of a ViT: layers=3
    predictor: Literal["mlp", "none"] = "mlp"  # none: 75.5 instead of 76.5 with a ViT-B
    predictor_hidden: int = 4096
    predictor_norm: HiddenNorm = "batch"
    predictor_output_norm: OutputNorm = "none"  # of a ViT: batch_no_affine
    temperature: float = 1.0  # of a ViT: 0.2
    target_momentum: float = 0.99  # 0.996 for 1000 epochs
    target_schedule: Literal["cosine", "constant"] = "cosine"  # to 1; constant is the code without --moco-m-cos

    def __post_init__(self) -> None:
        above_zero(self, {"temperature": 1.0})
        at_least(self, 1, {"predictor_hidden": 4096})
        is_share(self, {"target_momentum": 0.99})


def moco_v3(backbone: nn.Module, config: MoCoV3Config, known: Known) -> Siamese:
    """Algorithm 1 of arXiv:2104.02057 from its parts. `backbone` has `.dim` and gives [B, dim]."""
    from torch import nn

    from stopgrad.nn.heads import mlp
    from stopgrad.siamese.family import Siamese
    from stopgrad.siamese.in_batch import InBatch, info_nce_among_keys
    from stopgrad.siamese.pairs import pairs_of
    from stopgrad.siamese.targets import Momentum

    head = config.projector
    widths = head.widths(int(backbone.dim))  # type: ignore[arg-type]
    # no linear layer has a bias, whether a norm follows or not
    projector = mlp(widths, head.norm, head.output_norm, hidden_bias=False, output_bias=False)
    predictor: nn.Module = nn.Identity()
    if config.predictor == "mlp":
        predictor = mlp(
            [head.dim, config.predictor_hidden, head.dim],
            config.predictor_norm,
            config.predictor_output_norm,
            hidden_bias=False,
            output_bias=False,
        )
    # Algorithm 1: 2 temperature times the cross-entropy, summed over the two directions
    times = 2 * 2 * config.temperature
    return Siamese(
        backbone=backbone,
        projector=projector,
        predictor=predictor,
        target=Momentum(backbone, projector, config.target_momentum, config.target_schedule),
        objective=InBatch(info_nce_among_keys, "InfoNCE (in the batch)", config.temperature, times),
        pairs=pairs_of("symmetric", len(known.crops)),
    )
