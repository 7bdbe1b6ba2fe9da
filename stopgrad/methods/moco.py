"""MoCo v1 and v2: pick the own key, encoded by a slow copy, among a queue of past keys.

Papers: arXiv:1911.05722 (Algorithm 1, sections 3.1 to 3.3), arXiv:2003.04297. Reference: facebookresearch/moco,
moco/builder.py and colab/moco_cifar10_demo.ipynb.
v2 is v1 with an MLP, temperature .2, blur and a cosine: the first two are settings here, the others the presets'.
Differs from the reference: the copy moves after the optimiser's step, as in Algorithm 1, instead of before the next
forward (the same sequence); the queue need not be a multiple of the batch; the order of shuffled batch norm follows
from (seed, step), and is one for both views of a symmetric step. The 8 processes of the paper, whose batch norms see 32
images each, are `bn_splits`: fewer processes share them out, as the reference's demo on CIFAR-10 does with one.
Multi-crop is an addition.
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
    one_layer_reads,
)

if TYPE_CHECKING:
    from torch import nn

    from stopgrad.siamese.family import Siamese


def _linear() -> HeadConfig:
    return HeadConfig(layers=1, dim=128, norm="none", output_norm="none")


def _mlp() -> HeadConfig:
    return HeadConfig(layers=2, dim=128, norm="none", output_norm="none")


@dataclass(frozen=True, kw_only=True, slots=True)
class MoCoConfig(MethodConfig):
    """What both versions have; the paper's on ImageNet."""

    projector: HeadConfig = field(default_factory=_linear)
    queue_size: int = 65536  # keys; about 4096 for a small data set, where more would hold an image's own old keys
    momentum: float = 0.999  # constant; 0.99 for a small data set
    temperature: float = 0.07
    pairs: Literal["asymmetric", "symmetric"] = "asymmetric"  # symmetric: the sum of both directions; the demo's option
    bn_splits: int = 8  # batches of their own that batch norm takes a batch for, over all processes; a ViT has none

    def __post_init__(self) -> None:
        at_least(self, 1, {"queue_size": 65536, "bn_splits": 8})
        above_zero(self, {"temperature": 0.2 if self.name == "moco_v2" else 0.07})
        is_share(self, {"momentum": 0.999})
        one_layer_reads(self, self.projector)

    def check(self, known: Known) -> None:
        needs_pairs(self.name, known)
        views = 2 if self.pairs == "symmetric" else 1
        keys = views * known.batch_size
        if self.queue_size < keys:
            raise ConfigError(
                f"method.queue_size={self.queue_size} is below the {keys} keys of one step (loop.batch_size="
                f"{known.batch_size}, {views} of its views): keys would be lost in the step that wrote them; use --set "
                f"method.queue_size={2 * keys} or more"
            )
        self._check_groups(known)

    def _check_groups(self, known: Known) -> None:
        if known.backbone.startswith("vit") and "batch" not in (self.projector.norm, self.projector.output_norm):
            return  # layer norm alone: nothing is split
        at_once = known.batch_size // known.accumulate
        if at_once % self.bn_splits or at_once < 2 * self.bn_splits:
            fits = known.accumulate * self.bn_splits * max(2, at_once // self.bn_splits)
            fewer = next((n for n in range(self.bn_splits, 1, -1) if at_once % n == 0 and at_once >= 2 * n), 1)
            parts = f" in {known.accumulate} micro-batches" if known.accumulate > 1 else ""
            raise ConfigError(
                f"method.bn_splits={self.bn_splits} groups need equally many images, 2 or more, and "
                f"loop.batch_size={known.batch_size}{parts} does not give them; use --set loop.batch_size={fits} or "
                f"--set method.bn_splits={fewer}"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class MoCoV1Config(MoCoConfig):
    """One linear layer after the backbone."""

    name: Literal["moco_v1"] = "moco_v1"


@dataclass(frozen=True, kw_only=True, slots=True)
class MoCoV2Config(MoCoConfig):
    """An MLP after the backbone, without norm, and a softer softmax."""

    name: Literal["moco_v2"] = "moco_v2"
    projector: HeadConfig = field(default_factory=_mlp)
    temperature: float = 0.2


def moco(backbone: nn.Module, config: MoCoConfig, known: Known) -> Siamese:
    """Algorithm 1 of arXiv:1911.05722 from its parts. `backbone` has `.dim` and gives [B, dim].

    Its batch norms are split in place. Raises ConfigError where the processes can't share out the groups of batch norm.
    """
    from torch import nn

    from stopgrad import dist, rng
    from stopgrad.nn.batch_norm import split
    from stopgrad.nn.heads import mlp
    from stopgrad.nn.memory import Queue
    from stopgrad.siamese.family import Siamese
    from stopgrad.siamese.pairs import pairs_of
    from stopgrad.siamese.remembered import InfoNCE
    from stopgrad.siamese.targets import ShuffledMomentum

    groups, left = divmod(config.bn_splits, dist.world())
    if left:
        raise ConfigError(
            f"method.bn_splits={config.bn_splits} groups can't be shared out evenly by {dist.world()} processes; use "
            f"--set method.bn_splits={dist.world() * max(1, groups)}"
        )
    head = config.projector
    projector: nn.Module = mlp(head.widths(int(backbone.dim)), head.norm, head.output_norm)  # type: ignore[arg-type]
    if groups > 1:  # before the copy is made, so that it has them too
        backbone, projector = split(backbone, groups), split(projector, groups)
    queue = Queue(config.queue_size, head.dim, rng.torch_seed(known.seed, rng.NEGATIVES))
    return Siamese(
        backbone=backbone,
        projector=projector,
        predictor=nn.Identity(),
        target=ShuffledMomentum(backbone, projector, config.momentum, schedule="constant"),
        objective=InfoNCE(queue, config.temperature, times=2.0 if config.pairs == "symmetric" else 1.0),
        pairs=pairs_of(config.pairs, len(known.crops)),
        syncs_batch_norm=False,
    )
