"""DirectPred: BYOL with a linear predictor that is computed from the correlation of its inputs instead of trained.

Paper: arXiv:2102.06810 (eqs. 18 and 19). Reference: facebookresearch/luckmatters, ssl/real-dataset,
byol_trainer.py (predictor_reg corr and directcopy, balance_type boost_scale).
As the reference has it: features enter the correlation matrix F neither normalised nor centred, the first batch is F,
the eigenvalues of F are divided by the largest before eq. 18, and the predictor is set after the optimiser's step and
before the target follows; until then it is a linear layer with random weights. The weight of the old F is 0.3.
Differs from the reference: the target begins as the network itself instead of from another seed. Batch norm in the
projector has a scale and an offset, BYOL's; the code for CIFAR-10 and STL-10 leaves them out, and so does the CIFAR-10
preset. Multi-crop is an addition.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from stopgrad.contracts import Known
from stopgrad.methods.byol import byol_projector, directions, squared_distance
from stopgrad.methods.settings import HeadConfig, MethodConfig, at_least, is_share
from stopgrad.siamese.pairs import PairsName

if TYPE_CHECKING:
    from torch import nn

    from stopgrad.siamese.family import Siamese


@dataclass(frozen=True, kw_only=True, slots=True)
class DirectPredConfig(MethodConfig):
    """The paper's DirectPred: BYOL's projector, as on ImageNet, and what was best on STL-10 for the predictor."""

    name: Literal["directpred"] = "directpred"
    projector: HeadConfig = field(default_factory=byol_projector)
    output_bias: bool = False  # of the projector's last layer: BYOL has none, the code for CIFAR-10 and STL-10 one
    form: Literal["directpred", "directcopy"] = "directpred"  # directcopy: W = F + epsilon I, without eigenvectors
    epsilon: float = 0.1  # added to every eigenvalue of the predictor (table 6)
    correlation_momentum: float = 0.3  # rho, of F
    every: int = 1  # steps; in between the predictor is trained (table 8: 5)
    target: Literal["momentum", "stop_gradient"] = "momentum"
    target_momentum: float = 0.996
    target_schedule: Literal["constant", "cosine"] = "constant"  # cosine: to 1 over the run, as BYOL
    pairs: PairsName = "symmetric"  # asymmetric in the paper's 60 epochs on ImageNet

    def __post_init__(self) -> None:
        at_least(self, 0, {"epsilon": 0.1})
        at_least(self, 1, {"every": 1})
        is_share(self, {"correlation_momentum": 0.3, "target_momentum": 0.996})


def directpred(backbone: nn.Module, config: DirectPredConfig, known: Known) -> Siamese:
    """DirectPred from its parts. `backbone` has `.dim` and gives [B, dim]."""
    from stopgrad.nn.heads import mlp
    from stopgrad.siamese.family import Siamese
    from stopgrad.siamese.objectives import MeanOverPairs
    from stopgrad.siamese.pairs import pairs_of
    from stopgrad.siamese.predictors import DirectPredictor
    from stopgrad.siamese.targets import Momentum, StopGradient

    head = config.projector
    widths = head.widths(int(backbone.dim))  # type: ignore[arg-type]
    projector = mlp(widths, head.norm, head.output_norm, hidden_bias=True, output_bias=config.output_bias)
    target = (
        StopGradient()
        if config.target == "stop_gradient"
        else Momentum(backbone, projector, config.target_momentum, config.target_schedule)
    )
    return Siamese(
        backbone=backbone,
        projector=projector,
        predictor=DirectPredictor(head.dim, config.form, config.epsilon, config.correlation_momentum, config.every),
        target=target,
        objective=MeanOverPairs(squared_distance, "squared distance of unit vectors", directions(config.pairs)),
        pairs=pairs_of(config.pairs, len(known.crops)),
    )
