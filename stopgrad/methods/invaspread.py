"""InvaSpread: be recognised as the other view (invariant), and let no other image be taken for it (spread).

Paper: arXiv:1904.03436 (section 3). Reference: mangye16/Unsupervised_Embedding_Learning, BatchAverage.py.
Differs from the reference: gradient flows through both sides of a similarity, as in the paper's formula, where the code
holds the keys constant (`detach_keys: true`); with several processes negatives and batch statistics span all of them,
where the code's batch norm keeps to its GPU, so that two processes compute what one does. As in the code, candidates
are both views of the other images and the anchor's own other view, never the anchor itself. They are those of one
step, also with loop.accumulate, which batch norm forbids.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from stopgrad.contracts import Known
from stopgrad.methods.settings import HeadConfig, MethodConfig, above_zero, needs_pairs, one_layer_reads

if TYPE_CHECKING:
    from torch import nn

    from stopgrad.siamese.family import Siamese


def _linear_projector() -> HeadConfig:
    return HeadConfig(layers=1, dim=128, norm="none", output_norm="none")


@dataclass(frozen=True, kw_only=True, slots=True)
class InvaSpreadConfig(MethodConfig):
    """The paper's settings, which are those of CIFAR-10 and STL-10."""

    name: Literal["invaspread"] = "invaspread"
    projector: HeadConfig = field(default_factory=_linear_projector)
    temperature: float = 0.1
    detach_keys: bool = False  # true: the released code's gradient, through the anchors alone

    def __post_init__(self) -> None:
        above_zero(self, {"temperature": 0.1})
        one_layer_reads(self, self.projector)

    def check(self, known: Known) -> None:
        needs_pairs(self.name, known, multi_crop=False)


def invaspread(backbone: nn.Module, config: InvaSpreadConfig, known: Known) -> Siamese:
    """Section 3 of arXiv:1904.03436 from its parts. `backbone` has `.dim` and gives [B, dim]."""
    from torch import nn

    from stopgrad.losses import instance_spreading_queries
    from stopgrad.nn.heads import mlp
    from stopgrad.siamese.family import Siamese
    from stopgrad.siamese.in_batch import InBatch
    from stopgrad.siamese.pairs import pairs_of
    from stopgrad.siamese.targets import Shared, StopGradient

    head = config.projector
    return Siamese(
        backbone=backbone,
        projector=mlp(head.widths(int(backbone.dim)), head.norm, head.output_norm),  # type: ignore[arg-type]
        predictor=nn.Identity(),
        target=StopGradient() if config.detach_keys else Shared(),
        objective=InBatch(instance_spreading_queries, "instance spreading", config.temperature),
        pairs=pairs_of("symmetric", len(known.crops)),
        bn_batch="all",
    )
