"""SimCLR v2's pre-training: SimCLR with a deeper projector, of which fine-tuning keeps a part, and negatives from a
queue beside those of the batch.

Paper: arXiv:2006.10029 (sections 2 and 3.1). Reference: google-research/simclr.
The bigger backbones of the paper are `backbone.name`: resnet50, resnet101, resnet152 and, with selective kernels,
timm's skresnet18, 34, 50 and 50d. Those are other networks than the paper's: each of their two streams reads half of
the channels and the second is dilated, where the paper's are plain 3x3 convolutions of all channels.
The paper does not write out what the queue does, and the released code has none. Here the projections of both views by
a slow copy of backbone and projector join it after a step, and all it holds are negatives of every anchor, beside the
batch's; positives stay the batch's. `queue_size: 0` is the released code, without queue and copy.
Differs from the reference: the loss is the mean over the 2N views where the released code adds the two directions
(`directions: sum`, which the papers' presets have: LARS hides a factor from weights, but not beside a weight decay of
1e-4); pixels are normalised by mean and std, where the reference keeps them in [0, 1]; each view's blur has a sigma of
its own, where the TensorFlow 1 code draws one a batch; LARS has the learning rate outside the velocity, where the code
has it inside. Multi-crop is an addition.
Negatives are the images of one forward over all processes, and the queue: with loop.accumulate they are the
micro-batch's.
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
    is_share,
    needs_pairs,
    read_with,
)

if TYPE_CHECKING:
    from torch import nn

    from stopgrad.siamese.family import Siamese


def _three_layers() -> HeadConfig:
    return HeadConfig(layers=3, hidden=0, dim=128, norm="batch", output_norm="batch")


@dataclass(frozen=True, kw_only=True, slots=True)
class SimCLRv2Config(MethodConfig):
    """The paper's SimCLR v2 on ImageNet."""

    name: Literal["simclr_v2"] = "simclr_v2"
    # As wide as the backbone; fine-tuning begins behind its first layer. output_norm=batch: a scale, no offset.
    projector: HeadConfig = field(default_factory=_three_layers)
    temperature: float = 0.1  # 0.5 on CIFAR-10 (the README's command)
    directions: Literal["mean", "sum"] = "mean"  # sum: twice the loss, as released
    queue_size: int = 65536  # past projections that are negatives too (section 3.1); 0: none, as released
    momentum: float = 0.999  # constant, of the slow copy that fills the queue

    def __post_init__(self) -> None:
        above_zero(self, {"temperature": 0.1})
        at_least(self, 0, {"queue_size": 65536})
        is_share(self, {"momentum": 0.999})
        read_with(self, "queue_size=65536", self.queue_size > 0, "momentum")

    def check(self, known: Known) -> None:
        needs_pairs(self.name, known)
        rows = 2 * known.batch_size
        if 0 < self.queue_size < rows:
            raise ConfigError(
                f"method.queue_size={self.queue_size} is below the {rows} projections of one step (both views of "
                f"loop.batch_size={known.batch_size}): some would be lost in the step that wrote them; use --set "
                f"method.queue_size={2 * rows} or more, or 0 for no queue"
            )


def simclr_v2(backbone: nn.Module, config: SimCLRv2Config, known: Known) -> Siamese:
    """Section 2 of arXiv:2006.10029 from its parts. `backbone` has `.dim` and gives [B, dim]."""
    from torch import nn

    from stopgrad import rng
    from stopgrad.losses import nt_xent_queries
    from stopgrad.nn.heads import mlp
    from stopgrad.nn.memory import Queue
    from stopgrad.siamese.batch_and_queue import BatchAndQueue, SharedAndQueued
    from stopgrad.siamese.family import Siamese
    from stopgrad.siamese.in_batch import InBatch
    from stopgrad.siamese.pairs import pairs_of
    from stopgrad.siamese.targets import Shared

    head = config.projector
    projector = mlp(head.widths(int(backbone.dim)), head.norm, head.output_norm)  # type: ignore[arg-type]
    if head.output_norm == "batch":
        projector[-1].bias.requires_grad_(False)  # stays 0
    times = 2.0 if config.directions == "sum" else 1.0
    target: nn.Module = Shared()
    objective: nn.Module = InBatch(nt_xent_queries, "NT-Xent", config.temperature, times)
    if config.queue_size:
        target = SharedAndQueued(backbone, projector, config.momentum, schedule="constant")
        queue = Queue(config.queue_size, head.dim, rng.torch_seed(known.seed, rng.NEGATIVES))
        objective = BatchAndQueue(queue, config.temperature, times)
    return Siamese(
        backbone=backbone,
        projector=projector,
        predictor=nn.Identity(),
        target=target,
        objective=objective,
        pairs=pairs_of("symmetric", len(known.crops)),
        bn_batch="size",  # both views in one batch of 2N; local crops in another
    )
