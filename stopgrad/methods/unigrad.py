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
from typing import TYPE_CHECKING, Any, Literal

from stopgrad.contracts import Known
from stopgrad.methods.settings import HeadConfig, MethodConfig, above_zero, at_least, is_share, read_with

if TYPE_CHECKING:
    from torch import nn

    from stopgrad.siamese.family import Siamese


Form = Literal[
    "correlation",
    "contrastive",
    "asymmetric",
    "barlow_twins",
    "barlow_twins_identity",
    "decorrelation_target",
    "vicreg",
    "decorrelation_online",
]
READ_BY = {"contrastive": "temperature", "asymmetric": "predictor_epsilon", "vicreg": "variance_weight"}


def _projector() -> HeadConfig:
    return HeadConfig(layers=3, hidden=2048, dim=2048, output_norm="none")


@dataclass(frozen=True, kw_only=True, slots=True)
class UniGradConfig(MethodConfig):
    """UniGrad on ImageNet, as in the released configs."""

    name: Literal["unigrad"] = "unigrad"
    projector: HeadConfig = field(default_factory=_projector)
    negative_weight: float = 100.0  # lambda
    correlation_momentum: float = 0.99  # rho, of F
    # correlation is UniGrad; the others are the families' gradients of table 1, in full (asymmetric, barlow_twins,
    # vicreg) or simplified. negative_weight is what their push is multiplied by, but for contrastive and asymmetric,
    # whose loss says it.
    form: Form = "correlation"
    negatives: Literal["target", "online"] = "target"  # online: momentum for the positive term only (table 2)
    temperature: float = 0.2  # read by form=contrastive
    predictor_epsilon: float = 0.3  # read by form=asymmetric: of DirectPred's closed form
    variance_weight: float = 25.0  # read by form=vicreg
    target: Literal["momentum", "stop_gradient"] = "momentum"  # table 2: its relatives lose about 2 with stop_gradient
    target_momentum: float = 0.996  # where the cosine to 1 starts
    cut_mix: float = 0.0  # share of images with a part of another; our reading of tables 3 and 4, siamese/cut_mix.py

    def __post_init__(self) -> None:
        at_least(self, 0, {"negative_weight": 100, "predictor_epsilon": 0.3, "variance_weight": 25})
        above_zero(self, {"temperature": 0.2})
        for form, name in READ_BY.items():
            read_with(self, f"form={form}", self.form == form, name)
        is_share(self, {"correlation_momentum": 0.99, "target_momentum": 0.996, "cut_mix": 1.0})


def unigrad(backbone: nn.Module, config: UniGradConfig, known: Known) -> Siamese:
    """UniGrad from its parts. `backbone` has `.dim` and gives [B, dim]."""
    from torch import nn

    from stopgrad.nn.heads import mlp
    from stopgrad.siamese.cut_mix import CutMixed
    from stopgrad.siamese.family import Siamese
    from stopgrad.siamese.gradients import CorrelationGradient, WrittenGradient
    from stopgrad.siamese.pairs import pairs_of
    from stopgrad.siamese.targets import Momentum, StopGradient

    head = config.projector
    projector = mlp(head.widths(int(backbone.dim)), head.norm, head.output_norm)  # type: ignore[arg-type]
    target: nn.Module = StopGradient()
    if config.target == "momentum":
        target = Momentum(backbone, projector, config.target_momentum)
    objective: nn.Module
    if config.form == "correlation":
        weight, rho = config.negative_weight, config.correlation_momentum
        objective = CorrelationGradient(head.dim, weight, rho, config.negatives)
    else:
        objective = WrittenGradient(
            head.dim,
            config.form,
            weight=config.negative_weight,
            temperature=config.temperature,
            epsilon=config.predictor_epsilon,
            variance=config.variance_weight,
            momentum=config.correlation_momentum,
            negatives=config.negatives,
        )
    parts: dict[str, Any] = {
        "backbone": backbone,
        "projector": projector,
        "predictor": nn.Identity(),
        "target": target,
        "objective": objective,
        "pairs": pairs_of("symmetric", len(known.crops)),
    }
    return CutMixed(share=config.cut_mix, **parts) if config.cut_mix else Siamese(**parts)
