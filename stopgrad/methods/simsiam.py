"""SimSiam: predict the other view's projection, held constant.

Paper: arXiv:2011.10566 (Algorithm 1, section 3, appendices A and D). Reference: facebookresearch/simsiam, builder.py.
Differs from the reference: the linear layer before the projector's affine-free batch norm has no bias where the
reference freezes one (the norm takes it away again); the learning rate falls every step instead of every epoch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from stopgrad.contracts import ConfigError

if TYPE_CHECKING:
    from torch import nn

    from stopgrad.siamese.family import Siamese


@dataclass(frozen=True, kw_only=True, slots=True)
class ProjectorConfig:
    """MLP after the backbone."""

    layers: int = 3  # section 3; 2 on CIFAR-10 (appendix D)
    hidden: int = 2048
    dim: int = 2048
    norm: Literal["batch", "layer", "none"] = "batch"  # between layers
    output_norm: Literal["batch_no_affine", "batch", "layer", "none"] = "batch_no_affine"

    def __post_init__(self) -> None:
        for name in ("layers", "hidden", "dim"):
            if getattr(self, name) < 1:
                raise ConfigError(f"method.projector.{name} must be at least 1, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True, slots=True)
class SimSiamConfig:
    """The paper's SimSiam on ImageNet; every field is one of its studies."""

    name: Literal["simsiam"] = "simsiam"
    projector: ProjectorConfig = field(default_factory=ProjectorConfig)
    predictor: Literal["mlp", "none", "frozen"] = "mlp"  # table 1: none collapses, frozen does not learn
    predictor_hidden: int = 512  # the bottleneck, a quarter of the projection
    predictor_norm: Literal["batch", "layer", "none"] = "batch"
    predictor_output_norm: Literal["batch_no_affine", "batch", "layer", "none"] = "none"
    predictor_lr: Literal["constant", "decayed"] = "constant"  # table 1 (c): constant is best
    target: Literal["stop_gradient", "shared", "momentum"] = "stop_gradient"  # figure 2: shared collapses
    target_momentum: float = 0.99  # read by target=momentum: where the cosine to 1 starts
    similarity: Literal["cosine", "cross_entropy"] = "cosine"  # section 4.5
    pairs: Literal["symmetric", "asymmetric"] = "symmetric"  # section 4.6

    def __post_init__(self) -> None:
        if self.predictor_hidden < 1:
            raise ConfigError(
                f"method.predictor_hidden must be at least 1, got {self.predictor_hidden}; the paper: 512"
            )
        if not 0 <= self.target_momentum <= 1:
            raise ConfigError(f"method.target_momentum must be in [0, 1], got {self.target_momentum}; BYOL uses 0.99")


def simsiam(backbone: nn.Module, config: SimSiamConfig) -> Siamese:
    """Algorithm 1 of arXiv:2011.10566 from its parts. `backbone` has `.dim` and gives [B, dim]."""
    # torch is imported when a method is built, so that settings can be checked without it
    from torch import nn

    from stopgrad.losses import negative_cosine, softmax_similarity
    from stopgrad.nn.heads import mlp
    from stopgrad.siamese.family import Siamese
    from stopgrad.siamese.objectives import MeanOverPairs
    from stopgrad.siamese.pairs import PAIRS
    from stopgrad.siamese.targets import Momentum, Shared, StopGradient

    head = config.projector
    widths = [int(backbone.dim), *[head.hidden] * (head.layers - 1), head.dim]  # type: ignore[arg-type]
    projector = mlp(widths, head.norm, head.output_norm)
    predictor: nn.Module = nn.Identity()
    if config.predictor != "none":
        bottleneck = [head.dim, config.predictor_hidden, head.dim]
        predictor = mlp(bottleneck, config.predictor_norm, config.predictor_output_norm)
        predictor.requires_grad_(config.predictor == "mlp")
    target: nn.Module = StopGradient() if config.target == "stop_gradient" else Shared()
    if config.target == "momentum":
        target = Momentum(backbone, projector, config.target_momentum)
    return Siamese(
        backbone=backbone,
        projector=projector,
        predictor=predictor,
        target=target,
        objective=MeanOverPairs(negative_cosine if config.similarity == "cosine" else softmax_similarity),
        pairs=PAIRS[config.pairs],
        constant_predictor_lr=config.predictor_lr == "constant",
    )
