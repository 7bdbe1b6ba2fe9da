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

from stopgrad.contracts import Known
from stopgrad.methods.settings import HeadConfig, HiddenNorm, MethodConfig, OutputNorm, at_least, is_share, read_with

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
    target: Literal["stop_gradient", "shared", "momentum"] = "stop_gradient"  # figure 2: shared collapses
    target_momentum: float = 0.99  # read by target=momentum: where the cosine to 1 starts
    similarity: Literal["cosine", "cross_entropy"] = "cosine"  # section 4.5
    pairs: Literal["symmetric", "asymmetric"] = "symmetric"  # section 4.6

    def __post_init__(self) -> None:
        at_least(self, 1, {"predictor_hidden": 512})
        is_share(self, {"target_momentum": 0.99})
        read_with(self, "target=momentum", self.target == "momentum", "target_momentum")


def simsiam(backbone: nn.Module, config: SimSiamConfig, known: Known) -> Siamese:
    """Algorithm 1 of arXiv:2011.10566 from its parts. `backbone` has `.dim` and gives [B, dim]."""
    # torch is imported when a method is built, so that settings can be checked without it
    from torch import nn

    from stopgrad.losses import negative_cosine, softmax_similarity
    from stopgrad.nn.heads import mlp
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
    target: nn.Module = StopGradient() if config.target == "stop_gradient" else Shared()
    if config.target == "momentum":
        target = Momentum(backbone, projector, config.target_momentum)
    cosine = config.similarity == "cosine"
    return Siamese(
        backbone=backbone,
        projector=projector,
        predictor=predictor,
        target=target,
        objective=MeanOverPairs(
            negative_cosine if cosine else softmax_similarity, "cosine" if cosine else "cross-entropy"
        ),
        pairs=pairs_of(config.pairs, len(known.crops)),
        constant_predictor_lr=config.predictor_lr == "constant",
    )
