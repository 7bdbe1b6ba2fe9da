"""VICReg: views agree (invariance), every channel keeps a spread (variance), channels do not repeat (covariance).

Paper: arXiv:2105.04906 (Algorithm 1, eq. 1 to 6). Reference: facebookresearch/vicreg, main_vicreg.py.
Differs from the reference by default: the paper's formulas, whose invariance is summed over channels and whose
variance counts both views in full. `reading: code` has the released code's: invariance a mean over channels too, and
half of the variance. 25, 25 and 1 are what the paper prints and what the code was run with: with 8,192 channels the
paper's formula counts invariance 8,192 times and variance twice as much as the code did. The paper's numbers are the
code's reading, and all presets take it. Multi-crop is an addition.
Variance and covariance are those of one forward over all processes: with loop.accumulate they are the micro-batch's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from stopgrad.contracts import Known
from stopgrad.methods.settings import HeadConfig, MethodConfig, at_least

if TYPE_CHECKING:
    from torch import nn

    from stopgrad.siamese.family import Siamese


def _expander() -> HeadConfig:
    return HeadConfig(layers=3, hidden=8192, dim=8192, output_norm="none")


@dataclass(frozen=True, kw_only=True, slots=True)
class VICRegConfig(MethodConfig):
    """Two views, one network, gradient through both, and no normalisation of the embeddings."""

    name: Literal["vicreg"] = "vicreg"
    projector: HeadConfig = field(default_factory=_expander)  # the paper's expander, section 4.2
    invariance: float = 25.0  # lambda
    variance: float = 25.0  # mu
    covariance: float = 1.0  # nu
    reading: Literal["paper", "code"] = "paper"  # the numbers of the paper are the code's

    def __post_init__(self) -> None:
        at_least(self, 0, {"invariance": 25, "variance": 25, "covariance": 1})


def vicreg(backbone: nn.Module, config: VICRegConfig, known: Known) -> Siamese:
    """Algorithm 1 of arXiv:2105.04906 from its parts. `backbone` has `.dim` and gives [B, dim]."""
    from torch import Tensor, nn

    from stopgrad import losses
    from stopgrad.nn.heads import mlp
    from stopgrad.siamese.covariance import WholeBatch
    from stopgrad.siamese.family import Siamese
    from stopgrad.siamese.pairs import pairs_of
    from stopgrad.siamese.targets import Shared

    head = config.projector
    code = config.reading == "code"
    invariance = config.invariance / head.dim if code else config.invariance
    variance = config.variance / 2 if code else config.variance

    def compare(z0: Tensor, z1: Tensor) -> Tensor:
        return losses.vicreg(z0, z1, invariance, variance, config.covariance)

    def draws(z0: Tensor, z1: Tensor) -> Tensor:
        return 2 * invariance * (z0 * z1).sum(dim=1).mean()  # of the squared distance; the lengths hold images apart

    widths = head.widths(int(backbone.dim))  # type: ignore[arg-type]
    return Siamese(
        backbone=backbone,
        projector=mlp(widths, head.norm, head.output_norm, hidden_bias=True, output_bias=False),
        predictor=nn.Identity(),
        target=Shared(),
        objective=WholeBatch(compare, "variance-invariance-covariance", draws),
        pairs=pairs_of("symmetric", len(known.crops)),
    )
