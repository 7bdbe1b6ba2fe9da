"""UniGrad: the gradient that contrastive, asymmetric and decorrelation methods share, written down and used as it is.

Paper: arXiv:2112.05141. Reference: fundamentalvision/UniGrad, project/pretrainer.py (loss_unigrad), project/model.py.
Constants are those of the released configs.
Differs from the reference: the correlation matrix is accumulated in float32 instead of half precision; the target
follows after the optimiser's step instead of before the next forward, so its momentum is one step behind. The value of
the loss is the surrogate's, as there: compare `objective` or `similarity` between runs, never the loss. Multi-crop is
an addition.
The F of a gradient counts the images of one forward over all processes: with loop.accumulate the micro-batch's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from stopgrad.contracts import Known
from stopgrad.methods.settings import HeadConfig, MethodConfig, at_least, is_share

if TYPE_CHECKING:
    from torch import nn

    from stopgrad.siamese.family import Siamese


def _projector() -> HeadConfig:
    return HeadConfig(layers=3, hidden=2048, dim=2048, output_norm="none")


@dataclass(frozen=True, kw_only=True, slots=True)
class UniGradConfig(MethodConfig):
    """UniGrad on ImageNet, as in the released configs."""

    name: Literal["unigrad"] = "unigrad"
    projector: HeadConfig = field(default_factory=_projector)
    negative_weight: float = 100.0  # lambda
    correlation_momentum: float = 0.99  # rho, of F
    target: Literal["momentum", "stop_gradient"] = "momentum"  # table 2: its relatives lose about 2 with stop_gradient
    target_momentum: float = 0.996  # where the cosine to 1 starts

    def __post_init__(self) -> None:
        at_least(self, 0, {"negative_weight": 100})
        is_share(self, {"correlation_momentum": 0.99, "target_momentum": 0.996})


def unigrad(backbone: nn.Module, config: UniGradConfig, known: Known) -> Siamese:
    """UniGrad from its parts. `backbone` has `.dim` and gives [B, dim]."""
    from torch import nn

    from stopgrad.nn.heads import mlp
    from stopgrad.siamese.family import Siamese
    from stopgrad.siamese.gradients import CorrelationGradient
    from stopgrad.siamese.pairs import pairs_of
    from stopgrad.siamese.targets import Momentum, StopGradient

    head = config.projector
    projector = mlp(head.widths(int(backbone.dim)), head.norm, head.output_norm)  # type: ignore[arg-type]
    target: nn.Module = StopGradient()
    if config.target == "momentum":
        target = Momentum(backbone, projector, config.target_momentum)
    return Siamese(
        backbone=backbone,
        projector=projector,
        predictor=nn.Identity(),
        target=target,
        objective=CorrelationGradient(head.dim, config.negative_weight, config.correlation_momentum),
        pairs=pairs_of("symmetric", len(known.crops)),
    )
