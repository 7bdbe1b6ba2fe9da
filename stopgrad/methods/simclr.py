"""SimCLR: find an image's other view among both views of all images of the batch.

Paper: arXiv:2002.05709 (eq. 1, Algorithm 1). Reference: google-research/simclr. Studies: arXiv:2011.10566, section 6.2
(a predictor, a stop-gradient); arXiv:2006.07733, table 5b (predictor, momentum target).
Differs from the reference: the loss is the paper's mean over the 2N views where the released code adds the two
directions (`directions: sum`); the projector is the paper's two layers without norm, where the released code has three
with batch norm (`projector: {layers: 3, norm: batch, output_norm: batch}`, hidden the backbone's width); pixels are
normalised by mean and std, where the reference keeps them in [0, 1]; each view's blur has a sigma of its own, where the
TensorFlow 1 code draws one a batch; weight decay is the paper's 1e-6 in simclr/imagenet, where the code's default is
1e-4; LARS has the learning rate outside the velocity, where the code has it inside. Multi-crop is an addition (and the
SwAV paper's): a local crop is compared with each global one and has its negatives in that view alone.
Negatives are the images of one step over all processes, also with loop.accumulate, which batch norm forbids.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from stopgrad.contracts import Known
from stopgrad.methods.settings import HeadConfig, MethodConfig, above_zero, at_least, is_share, read_with

if TYPE_CHECKING:
    from torch import nn

    from stopgrad.siamese.family import Siamese

Loss = Literal["nt_xent", "nt_logistic", "margin"]


def _paper_projector() -> HeadConfig:
    return HeadConfig(layers=2, dim=128, norm="none", output_norm="none")


@dataclass(frozen=True, kw_only=True, slots=True)
class SimCLRConfig(MethodConfig):
    """The paper's SimCLR on ImageNet, and the two studies of others that start from it."""

    name: Literal["simclr"] = "simclr"
    # Section 2.1. output_norm=batch is the released head's: a scale, no offset.
    projector: HeadConfig = field(default_factory=_paper_projector)
    project: bool = True  # false: the loss reads the backbone's features as they are (figure 8)
    temperature: float = 0.1  # table 5; 0.5 on CIFAR-10 (appendix B.9)
    loss: Loss = "nt_xent"  # table 4: 63.9; margin 50.9, nt_logistic 51.6, semi-hard 57.5 and 57.9
    margin: float = 0.4  # read by loss=margin; the paper tries 0.4, 0.8 and 1.6
    semi_hard: bool = False  # read by both others: the nearest negative beyond the positive, or all of them
    directions: Literal["mean", "sum"] = "mean"  # sum: twice the loss, as released; LARS hides it for weights
    predictor: Literal["none", "mlp"] = "none"  # SimSiam's 6.2: on the anchors alone
    predictor_hidden: int = 4096  # read by predictor=mlp; BYOL's width
    target: Literal["shared", "stop_gradient", "momentum"] = "shared"  # SimSiam's 6.2, BYOL's table 5b
    target_momentum: float = 0.99  # read by target=momentum: where the cosine to 1 starts

    def __post_init__(self) -> None:
        above_zero(self, {"temperature": 0.1, "margin": 0.4})
        read_with(self, "loss=margin", self.loss == "margin", "margin")
        read_with(self, "loss=nt_logistic", self.loss != "nt_xent", "semi_hard")
        at_least(self, 1, {"predictor_hidden": 4096})
        is_share(self, {"target_momentum": 0.99})
        read_with(self, "predictor=mlp", self.predictor == "mlp", "predictor_hidden")
        read_with(self, "target=momentum", self.target == "momentum", "target_momentum")


def simclr(backbone: nn.Module, config: SimCLRConfig, known: Known) -> Siamese:
    """Algorithm 1 of arXiv:2002.05709 from its parts. `backbone` has `.dim` and gives [B, dim]."""
    from functools import partial

    from torch import nn

    from stopgrad.losses import margin_queries, nt_logistic_queries, nt_xent_queries
    from stopgrad.nn.heads import mlp
    from stopgrad.siamese.family import Siamese
    from stopgrad.siamese.in_batch import InBatch
    from stopgrad.siamese.pairs import pairs_of
    from stopgrad.siamese.targets import Momentum, Shared, StopGradient

    head, width = config.projector, int(backbone.dim)  # type: ignore[arg-type]
    dim = head.dim if config.project else width
    projector = mlp(head.widths(width), head.norm, head.output_norm) if config.project else nn.Identity()
    if config.project and head.output_norm == "batch":
        projector[-1].bias.requires_grad_(False)  # type: ignore[index]  # stays 0
    predictor: nn.Module = nn.Identity()
    if config.predictor == "mlp":
        predictor = mlp([dim, config.predictor_hidden, dim], "batch", "none")
    target: nn.Module = Shared() if config.target == "shared" else StopGradient()
    if config.target == "momentum":
        target = Momentum(backbone, projector, config.target_momentum)
    times = 2.0 if config.directions == "sum" else 1.0
    objective = InBatch(nt_xent_queries, "NT-Xent", config.temperature, times)
    mined = ", semi-hard" if config.semi_hard else ""
    if config.loss == "nt_logistic":
        compare = partial(nt_logistic_queries, semi_hard=config.semi_hard)
        objective = InBatch(compare, f"NT-Logistic{mined}", config.temperature, times, softmax=False)
    elif config.loss == "margin":
        compare = partial(margin_queries, semi_hard=config.semi_hard)
        objective = InBatch(compare, f"margin triplet{mined}", config.margin, times, softmax=False)
    return Siamese(
        backbone=backbone,
        projector=projector,
        predictor=predictor,
        target=target,
        objective=objective,
        pairs=pairs_of("symmetric", len(known.crops)),
        bn_batch="size",  # both views in one batch of 2N; local crops in another
    )
