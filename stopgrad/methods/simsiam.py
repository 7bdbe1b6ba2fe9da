"""SimSiam: predict the other view's projection, held constant.

Paper: arXiv:2011.10566 (Algorithm 1, section 3, appendices A and D). Reference: facebookresearch/simsiam, builder.py.
Differs from the reference: the linear layer before the projector's affine-free batch norm has no bias where the
reference freezes one (the norm takes it away again); the projector's hidden layers are 2048 wide, as the paper says,
where the reference makes them as wide as the backbone (512 with a ResNet-18); the learning rate falls every step
instead of every epoch. Multi-crop is an addition.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from stopgrad.contracts import ConfigError, Known
from stopgrad.methods.settings import (
    HeadConfig,
    HiddenNorm,
    MethodConfig,
    OutputNorm,
    at_least,
    is_share,
    needs_pairs,
    read_with,
)

FirstVisit = Literal["view", "random"]
Order = Literal["before", "after"]

if TYPE_CHECKING:
    from torch import nn

    from stopgrad.siamese.family import Siamese


@dataclass(frozen=True, kw_only=True, slots=True)
class SimSiamConfig(MethodConfig):
    """The paper's SimSiam on ImageNet; every field is one of its studies."""

    name: Literal["simsiam"] = "simsiam"
    projector: HeadConfig = field(default_factory=HeadConfig)  # section 3; 2 layers on CIFAR-10 (appendix D)
    predictor: Literal["mlp", "none", "frozen"] = "mlp"  # table 1: none collapses, frozen does not learn
    predictor_hidden: int = 512  # the bottleneck, a quarter of the projection
    predictor_norm: HiddenNorm = "batch"
    predictor_output_norm: OutputNorm = "none"
    predictor_lr: Literal["constant", "decayed"] = "constant"  # table 1 (c): constant is best
    # figure 2: shared collapses. Section 5: lagged, the network of the last renewal; average, a vector an image.
    target: Literal["stop_gradient", "shared", "momentum", "lagged", "average"] = "stop_gradient"
    target_momentum: float = 0.99  # read by target=momentum: where the cosine to 1 starts
    lag: int = (
        1  # read by target=lagged: steps between renewals; 0: an epoch. 1, 10, 100, an epoch: 68.1 68.7 68.9 67.0
    )
    # Read by target=average: 0.8 makes 55.0 without a predictor, where none makes 0.1. The rest the paper leaves open.
    average_momentum: float = 0.8
    average_first: FirstVisit = "view"  # of an image never seen: its first view, or random
    average_order: Order = "before"  # the target counts the view it is compared with, or not
    average_normalised: bool = False  # unit vectors are averaged, or projections as they are
    eta_views: int = 1  # views that the target is the mean of; read by target=stop_gradient
    similarity: Literal["cosine", "cross_entropy"] = "cosine"  # section 4.5
    pairs: Literal["symmetric", "asymmetric", "asymmetric_2x"] = "symmetric"  # section 4.6: 68.1, 64.8, 67.3

    def __post_init__(self) -> None:
        at_least(self, 1, {"predictor_hidden": 512, "eta_views": 1})
        at_least(self, 0, {"lag": 1})
        is_share(self, {"target_momentum": 0.99, "average_momentum": 0.8})
        read_with(self, "target=momentum", self.target == "momentum", "target_momentum")
        read_with(self, "target=lagged", self.target == "lagged", "lag")
        average = ("average_momentum", "average_first", "average_order", "average_normalised")
        read_with(self, "target=average", self.target == "average", *average)
        read_with(self, "target=stop_gradient", self.target == "stop_gradient", "eta_views")

    def check(self, known: Known) -> None:
        needs_pairs(self.name, known)
        sides, needed = known.crops, 1 + self.eta_views
        if self.eta_views > 1 and (len(sides) != needed or len(set(sides)) > 1):
            raise ConfigError(
                f"method.eta_views={self.eta_views} needs {needed} views of one size, the first two to be compared, "
                f"got sides of {', '.join(map(str, sides))} pixels; give views.crops {needed} times the first"
            )
        if self.pairs == "asymmetric_2x" and (len(sides) != 4 or len(set(sides)) > 1):
            raise ConfigError(
                "method.pairs=asymmetric_2x compares the first view with the second and the third with the fourth, "
                f"got sides of {', '.join(map(str, sides))} pixels; give views.crops 4 times the first"
            )
        if self.pairs == "asymmetric_2x" and self.eta_views > 1:
            raise ConfigError("method.eta_views averages targets of two views; remove it, or method.pairs")


def simsiam(backbone: nn.Module, config: SimSiamConfig, known: Known) -> Siamese:
    """Algorithm 1 of arXiv:2011.10566 from its parts. `backbone` has `.dim` and gives [B, dim]."""
    # torch is imported when a method is built, so that settings can be checked without it
    from torch import nn

    from stopgrad.losses import negative_cosine, softmax_similarity
    from stopgrad.nn.heads import mlp
    from stopgrad.siamese.expectation import Lagged, MeanOfViews, MovingAverage
    from stopgrad.siamese.family import Siamese
    from stopgrad.siamese.objectives import MeanOverPairs
    from stopgrad.siamese.pairs import pairs_of
    from stopgrad.siamese.targets import Momentum, Shared, StopGradient

    head = config.projector
    projector = mlp(head.widths(int(backbone.dim)), head.norm, head.output_norm)  # type: ignore[arg-type]
    predictor: nn.Module = nn.Identity()
    if config.predictor != "none":
        bottleneck = [head.dim, config.predictor_hidden, head.dim]
        predictor = mlp(bottleneck, config.predictor_norm, config.predictor_output_norm)
        predictor.requires_grad_(config.predictor == "mlp")
    pairs = pairs_of(config.pairs, 2 if config.eta_views > 1 else len(known.crops))
    target: nn.Module = StopGradient() if config.target == "stop_gradient" else Shared()
    if config.eta_views > 1:
        target = MeanOfViews(range(2, len(known.crops)))
    elif config.target == "momentum":
        target = Momentum(backbone, projector, config.target_momentum)
    elif config.target == "lagged":
        target = Lagged(backbone, projector, config.lag)
    elif config.target == "average":
        target = MovingAverage(
            known.images,
            head.dim,
            config.average_momentum,
            config.average_first,
            config.average_order,
            config.average_normalised,
            known.seed,
        )
    cosine = config.similarity == "cosine"
    return Siamese(
        backbone=backbone,
        projector=projector,
        predictor=predictor,
        target=target,
        objective=MeanOverPairs(
            negative_cosine if cosine else softmax_similarity, "cosine" if cosine else "cross-entropy"
        ),
        pairs=pairs,
        constant_predictor_lr=config.predictor_lr == "constant",
    )
