"""Fine-tuning with few labels: a classifier on a trunk that was learnt without any, and both are trained.

Paper: arXiv:2006.10029 (SimCLR v2, section 2). Reference: google-research/simclr, with ft_proj_selector.
It may begin at a middle layer of the projector: backbone.kept has the layers that stay, and they and the backbone are
one trunk from then on. backbone.init says whose weights it begins from; "" is the supervised baseline, from scratch.
Differs from the reference: the subset is drawn here (data/labels.py) where the papers have lists of ImageNet's files;
batch norm sees the whole batch over all processes, as theirs does; what it expects of pixels is the pre-training's.

Beside METHODS, since it needs labels: `stopgrad finetune` composes its recipe.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from stopgrad.contracts import ConfigError, Known
from stopgrad.data.labels import read_amount
from stopgrad.methods.settings import MethodConfig, at_least

if TYPE_CHECKING:
    from torch import nn

    from stopgrad.methods.taught import Finetune


@dataclass(frozen=True, kw_only=True, slots=True)
class FinetuneConfig(MethodConfig):
    """How many labels, and of how many classes."""

    name: Literal["finetune"] = "finetune"
    labels: str = ""  # 1%, 10%, 5-per-class: which images follows from data.source and seed
    classes: int = 0  # that the images have
    from_projector_layer: int = 0  # how many layers of the projector of backbone.init are kept; 1 in the paper

    def __post_init__(self) -> None:
        read_amount(self.labels)
        has_classes(self.name, self.classes)
        at_least(self, 0, {"from_projector_layer": 1})

    def check(self, known: Known) -> None:
        takes_one_view(self.name, known)


def finetune(backbone: nn.Module, config: FinetuneConfig, known: Known) -> Finetune:
    """`backbone` has `.dim` and gives [B, dim]. Labels come later, through `learn`."""
    from stopgrad.methods.taught import Finetune

    return Finetune(backbone, config.classes, known.images)


def has_classes(name: str, classes: int) -> None:
    """Raises ConfigError where there is nothing to tell apart."""
    if classes < 2:
        raise ConfigError(
            f"method.classes must be at least 2, got {classes}; `stopgrad {name}` reads it off the images"
        )


def takes_one_view(name: str, known: Known) -> None:
    """Raises ConfigError for another number of crops than one."""
    if len(known.crops) != 1:
        raise ConfigError(
            f"views.crops: {name} takes 1 view of an image, cropped and flipped, got {len(known.crops)}; keep the first"
        )
