"""Distillation: a fine-tuned trunk names what is seen in images without labels, and a student learns its answers.

Paper: arXiv:2006.10029 (SimCLR v2, section 2). Reference: google-research/simclr,
colabs/distillation_self_training.ipynb. Teacher and student see the same crop; the teacher is frozen and in eval mode.
Labelled images may be learnt beside it: (1 - alpha) of the loss is then the cross-entropy of those whose label is
known, alpha the distillation of all, both as the paper's sums over the images, so a label weighs no more than an image.
Differs from the reference: the released notebook multiplies by temperature ** 2 (`scaled: true`), the paper does not;
at temperature 0.1 that is a hundredth of the gradient.

Beside METHODS, since it needs a teacher: `stopgrad distill` composes its recipe.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from stopgrad.contracts import ConfigError, Known
from stopgrad.data.labels import read_amount
from stopgrad.methods.finetune import has_classes, takes_one_view
from stopgrad.methods.settings import MethodConfig, above_zero, is_share

if TYPE_CHECKING:
    from torch import nn

    from stopgrad.methods.taught import Distill


@dataclass(frozen=True, kw_only=True, slots=True)
class DistillConfig(MethodConfig):
    """Whose answers are learnt, and how sharp they are."""

    name: Literal["distill"] = "distill"
    teacher: str = ""  # a run of finetune or distill, absolute
    classes: int = 0  # of the teacher
    temperature: float = 1.0  # 1 from big to small, 0.1 to a student of the same size
    scaled: bool = False  # the loss times temperature ** 2, as released
    labels: str = ""  # 10%, 5-per-class: labels that are learnt besides
    alpha: float = 1.0  # share of the distillation in the loss; 1 without labels

    def __post_init__(self) -> None:
        has_classes(self.name, self.classes)
        above_zero(self, {"temperature": 1.0})
        is_share(self, {"alpha": 1.0})
        if not Path(self.teacher).is_absolute():
            raise ConfigError(
                f"method.teacher must be an absolute path, got {self.teacher!r}; type stopgrad distill RUN"
            )
        if self.labels:
            read_amount(self.labels)
            if self.alpha == 1:
                raise ConfigError(
                    f"method.labels={self.labels} is read by nothing where method.alpha is 1; type --alpha 0.5, or "
                    "leave the labels out"
                )
        elif self.alpha < 1:
            raise ConfigError(
                f"method.alpha={self.alpha:g} leaves {1 - self.alpha:g} of the loss to labels, and there are none; add "
                "--labels 10%, or leave alpha out"
            )

    def check(self, known: Known) -> None:
        takes_one_view(self.name, known)


def distill(backbone: nn.Module, config: DistillConfig, known: Known) -> Distill:
    """`backbone` has `.dim` and gives [B, dim]. The teacher comes later, through `follow`, labels through `learn`."""
    from stopgrad.methods.taught import Distill

    return Distill(
        backbone,
        config.classes,
        known.images,
        temperature=config.temperature,
        scaled=config.scaled,
        alpha=config.alpha,
    )
