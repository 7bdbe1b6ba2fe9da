"""SwAV: assign each view softly to prototypes, evenly over the batch, and predict one view's assignment from another.

Paper: arXiv:2006.09882 (section 3; 4.3 for small batches). Reference: facebookresearch/swav, main_swav.py.
Differs from the reference: prototypes are brought back to unit length after the step instead of before the next (the
same sequence); scores and codes are computed in float32, Sinkhorn's iteration in the log domain, where nothing can
overflow; all processes hold one queue where each has its slice there (codes are spread over the same features), and its
length need not be a multiple of the batch. As in the code, the loss is the mean over pairs where eq. 6 sums, the
projector sees all crops in one batch and the backbone those of one size, and the layers before batch norm have biases.
Codes are spread over the images of one forward over all processes: with loop.accumulate they are the micro-batch's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from stopgrad.contracts import ConfigError, Known
from stopgrad.methods.settings import (
    HeadConfig,
    MethodConfig,
    above_zero,
    at_least,
    needs_pairs,
    read_with,
    trained_in_time,
)

if TYPE_CHECKING:
    from torch import nn

    from stopgrad.siamese.family import Siamese


def _projector() -> HeadConfig:
    return HeadConfig(layers=2, hidden=2048, dim=128, output_norm="none")


@dataclass(frozen=True, kw_only=True, slots=True)
class SwAVConfig(MethodConfig):
    """The paper's SwAV on ImageNet at batch 4,096; a batch of a few hundred wants the queue."""

    name: Literal["swav"] = "swav"
    projector: HeadConfig = field(default_factory=_projector)  # made unit vectors by the objective
    prototypes: int = 3000
    predictor: Literal["none", "mlp"] = "none"  # SimSiam's 6.2: on what predicts, not on what is assigned
    predictor_hidden: int = 2048  # read by predictor=mlp; the projector's, since SimSiam does not say
    temperature: float = 0.1
    epsilon: float = 0.05  # sharpness of the codes; the authors' first remedy against collapse is 0.03
    iterations: int = 3  # of Sinkhorn and Knopp's
    codes: Literal["stop", "flow"] = "stop"  # flow: gradient goes through the codes too, which is not SwAV
    queue_size: int = 0  # features of earlier batches, a queue for each global crop; the paper: 3840 at batch 256
    queue_from_epoch: int = 15  # read where there is a queue: when it begins to be filled; it counts once it is full
    frozen_epochs: int = 1  # prototypes are not trained in the first; 313 steps of 4,096 in the code

    def __post_init__(self) -> None:
        at_least(self, 2, {"prototypes": 3000})
        above_zero(self, {"temperature": 0.1, "epsilon": 0.05})
        at_least(self, 1, {"iterations": 3, "predictor_hidden": 2048})
        read_with(self, "predictor=mlp", self.predictor == "mlp", "predictor_hidden")
        at_least(self, 0, {"queue_size": 3840, "queue_from_epoch": 15, "frozen_epochs": 1})

    def check(self, known: Known) -> None:
        needs_pairs(self.name, known)
        if self.queue_size and self.queue_size < known.batch_size:
            raise ConfigError(
                f"method.queue_size={self.queue_size} does not hold a batch of {known.batch_size}; type --set "
                f"method.queue_size={15 * known.batch_size} (15 batches, as the paper), or 0 for no queue"
            )
        trained_in_time(known, self.frozen_epochs)
        if self.queue_size and known.epochs and self.queue_from_epoch >= known.epochs:
            raise ConfigError(
                f"method.queue_from_epoch={self.queue_from_epoch} leaves nothing of loop.epochs={known.epochs}: the "
                f"queue would never be used; type --set method.queue_from_epoch={known.epochs // 2}, or "
                "method.queue_size=0 for none"
            )


def swav(backbone: nn.Module, config: SwAVConfig, known: Known) -> Siamese:
    """Section 3 of arXiv:2006.09882 from its parts. `backbone` has `.dim` and gives [B, dim]."""
    from torch import nn

    from stopgrad.nn.heads import mlp
    from stopgrad.siamese.assignment import MultiCrop, SwappedAssignment
    from stopgrad.siamese.pairs import pairs_of
    from stopgrad.siamese.targets import NoTarget

    head = config.projector
    widths = head.widths(int(backbone.dim))  # type: ignore[arg-type]
    predictor: nn.Module = nn.Identity()
    if config.predictor == "mlp":
        predictor = mlp([head.dim, config.predictor_hidden, head.dim], "batch", "none")
    return MultiCrop(
        backbone=backbone,
        projector=mlp(widths, head.norm, head.output_norm, hidden_bias=True),
        predictor=predictor,
        target=NoTarget(),
        objective=SwappedAssignment(
            head.dim,
            config.prototypes,
            temperature=config.temperature,
            epsilon=config.epsilon,
            iterations=config.iterations,
            codes=config.codes,
            frozen_epochs=config.frozen_epochs,
            queue_size=config.queue_size,
            queue_from_epoch=config.queue_from_epoch,
            seed=known.seed,
        ),
        pairs=pairs_of("symmetric", len(known.crops)),
        bn_batch="size",
    )
