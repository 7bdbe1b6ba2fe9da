"""Barlow Twins: over the batch, each channel of one view agrees with itself in the other and with no other channel.

Paper: arXiv:2103.03230 (Algorithm 1, section 2). Reference: facebookresearch/barlowtwins, main.py.
Differs from the reference: the gradient over several processes is that of one (the reference's is divided by their
number, which LARS hides for weights but not for biases). The loss normalises once more, which changes nothing. Its std
is biased, as that of the code's batch norm, where the paper's pseudo-code has an unbiased one. The weight 0.005 and the
preset's weight decay of 1.5e-6 are the paper's, the code's defaults are 0.0051 and 1e-6. Multi-crop is an addition.
Correlations are taken over one forward over all processes: with loop.accumulate they are the micro-batch's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from stopgrad.contracts import ConfigError, Known
from stopgrad.methods.settings import HeadConfig, MethodConfig, above_zero

if TYPE_CHECKING:
    from torch import nn

    from stopgrad.siamese.family import Siamese


def _wide_projector() -> HeadConfig:
    # the batch norm without parameters that the reference has inside the loss: what is watched is what is compared
    return HeadConfig(layers=3, hidden=8192, dim=8192)


@dataclass(frozen=True, kw_only=True, slots=True)
class BarlowTwinsConfig(MethodConfig):
    """Two views, one network, gradient through both: a decorrelated code needs neither negatives nor a target."""

    name: Literal["barlow_twins"] = "barlow_twins"
    projector: HeadConfig = field(default_factory=_wide_projector)  # section 2.2; the wider the better (figure 4)
    off_diagonal_weight: float = 0.005  # lambda
    loss_weight: float = 1.0  # of the whole loss; solo-learn's CIFAR-10 recipe: 0.1

    def __post_init__(self) -> None:
        above_zero(self, {"off_diagonal_weight": 0.005, "loss_weight": 1})
        if self.projector.dim < 2:
            raise ConfigError(
                f"method.projector.dim must be at least 2, got {self.projector.dim}: channels are compared with each "
                "other; the paper uses 8192"
            )


def barlow_twins(backbone: nn.Module, config: BarlowTwinsConfig, known: Known) -> Siamese:
    """Algorithm 1 of arXiv:2103.03230 from its parts. `backbone` has `.dim` and gives [B, dim]."""
    from torch import Tensor, nn

    from stopgrad import losses
    from stopgrad.losses.covariance import barlow_twins_draw
    from stopgrad.nn.heads import mlp
    from stopgrad.siamese.covariance import WholeBatch
    from stopgrad.siamese.family import Siamese
    from stopgrad.siamese.pairs import pairs_of
    from stopgrad.siamese.targets import Shared

    def compare(z0: Tensor, z1: Tensor) -> Tensor:
        return config.loss_weight * losses.barlow_twins(z0, z1, config.off_diagonal_weight)

    def draws(z0: Tensor, z1: Tensor) -> Tensor:
        return config.loss_weight * barlow_twins_draw(z0, z1, config.off_diagonal_weight)

    head = config.projector
    widths = head.widths(int(backbone.dim))  # type: ignore[arg-type]
    return Siamese(
        backbone=backbone,
        projector=mlp(widths, head.norm, head.output_norm, output_bias=False),
        predictor=nn.Identity(),
        target=Shared(),
        objective=WholeBatch(compare, "cross-correlation", draws),
        pairs=pairs_of("symmetric", len(known.crops)),
    )
