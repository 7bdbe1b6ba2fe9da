"""BYOL: predict what a slowly following copy of the network makes of the other view.

Paper: arXiv:2006.07733 (section 3, table 5a). Reference: google-deepmind/deepmind-research, byol/.
Differs from the reference: the copy begins as the network itself instead of from another seed, and has no predictor
that nobody reads; the last batch norm of a residual block begins at scale 0, which its README calls more stable, while
the paper's numbers are with 1. Multi-crop is an addition, and one that BYOL is worse with: 71.4 falls to 64.8 linear on
a ViT-S (DINO, arXiv:2104.14294, appendix E).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from stopgrad.contracts import Known
from stopgrad.methods.settings import HeadConfig, HiddenNorm, MethodConfig, above_zero, at_least, is_share
from stopgrad.siamese.pairs import PairsName

if TYPE_CHECKING:
    from torch import Tensor, nn

    from stopgrad.siamese.family import Siamese

Predictor = Literal["mlp", "linear", "symmetric", "none"]


def byol_projector() -> HeadConfig:
    """4096 hidden, 256 out, nothing behind the last layer."""
    return HeadConfig(layers=2, hidden=4096, dim=256, output_norm="none")


@dataclass(frozen=True, kw_only=True, slots=True)
class BYOLConfig(MethodConfig):
    """The paper's BYOL on ImageNet."""

    name: Literal["byol"] = "byol"
    projector: HeadConfig = field(default_factory=byol_projector)
    predictor: Predictor = "mlp"  # table 5b: none collapses; linear, symmetric: one matrix (DirectPred, table 3)
    predictor_hidden: int = 4096
    predictor_norm: HiddenNorm = "batch"
    predictor_rate: float = 1.0  # its learning rate over the others'; section 5: raised, stop_gradient learns too
    target: Literal["momentum", "stop_gradient", "shared"] = "momentum"  # table 5a: stop_gradient learns nothing
    target_momentum: float = 0.996  # where the cosine to 1 starts; 0.99 for 100 and 300 epochs; 1: a constant target
    pairs: PairsName = "symmetric"

    def __post_init__(self) -> None:
        at_least(self, 1, {"predictor_hidden": 4096})
        is_share(self, {"target_momentum": 0.996})
        above_zero(self, {"predictor_rate": 1.0})


def byol(backbone: nn.Module, config: BYOLConfig, known: Known) -> Siamese:
    """Section 3.1 of arXiv:2006.07733 from its parts. `backbone` has `.dim` and gives [B, dim]."""
    from torch import nn

    from stopgrad.nn.heads import SymmetricLinear, mlp
    from stopgrad.siamese.family import Siamese
    from stopgrad.siamese.objectives import MeanOverPairs
    from stopgrad.siamese.pairs import pairs_of
    from stopgrad.siamese.targets import Momentum, Shared, StopGradient

    head = config.projector
    widths = head.widths(int(backbone.dim))  # type: ignore[arg-type]
    projector = mlp(widths, head.norm, head.output_norm, hidden_bias=True, output_bias=False)
    predictor: nn.Module = nn.Identity()
    if config.predictor == "mlp":
        wide = [head.dim, config.predictor_hidden, head.dim]
        predictor = mlp(wide, config.predictor_norm, "none", hidden_bias=True, output_bias=False)
    elif config.predictor == "linear":
        predictor = nn.Linear(head.dim, head.dim, bias=False)
    elif config.predictor == "symmetric":
        predictor = SymmetricLinear(head.dim)
    target: nn.Module = StopGradient() if config.target == "stop_gradient" else Shared()
    if config.target == "momentum":
        target = Momentum(backbone, projector, config.target_momentum)
    return Siamese(
        backbone=backbone,
        projector=projector,
        predictor=predictor,
        target=target,
        objective=MeanOverPairs(squared_distance, "squared distance of unit vectors", directions(config.pairs)),
        pairs=pairs_of(config.pairs, len(known.crops)),
        predictor_rate=config.predictor_rate,
    )


def squared_distance(p: Tensor, t: Tensor) -> Tensor:
    """|p / |p| - t / |t||^2, mean over the batch: [B, D] twice -> scalar in [0, 4]. BYOL, section 3.1."""
    from stopgrad.losses import negative_cosine

    return 2 + 2 * negative_cosine(p, t)


def directions(pairs: PairsName) -> int:
    """What the mean over pairs is multiplied by: the paper adds the two directions."""
    return 2 if pairs == "symmetric" else 1
