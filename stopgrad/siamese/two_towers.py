"""CLIP's forward (arXiv:2103.00020): an image and its caption, a tower each, and each is to be told among the others'.

Beside the family, whose views share a backbone. A tower is an encoder with its linear projection into the space that
both share; what is exported and evaluated is the whole of it. B pairs in this process, N in all.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from stopgrad import dist
from stopgrad.contracts import Clock, ConfigError, Output, Views
from stopgrad.losses import info_nce_batch, logistic
from stopgrad.losses.inputs import check_at_least_2
from stopgrad.method import Method
from stopgrad.siamese.remembered import unit

LARGEST = math.log(100)  # of t: exp(t) is what cosines are multiplied by


class TwoTowers(Method):
    """(image, caption) -> towers -> unit vectors, compared by the objective in the batch of all processes.

    backbone: crops [B, C, S, S] -> [B, D].  text: token ids [B, L] -> [B, D].  objective: (u, v), unit vectors [B, D]
    each -> loss, scalars to log; it keeps t. `similarity` in the log is the cosine of an image with its own caption. It
    is not called agreement, by which the verdict is made: images and captions stay in cones of their own.
    """

    compares_images = True

    def __init__(self, backbone: nn.Module, text: nn.Module, objective: Matching) -> None:
        super().__init__()
        self.backbone = backbone
        self.text = text
        self.objective = objective

    def forward(self, views: Views, clock: Clock) -> Output:
        if len(views.crops) != 2 or views.crops[1].is_floating_point():
            found = [f"{str(crop.dtype).removeprefix('torch.')} {list(crop.shape)}" for crop in views.crops]
            raise ConfigError(
                f"clip takes an image and its caption, a crop [B, C, S, S] and token ids [B, L], got {', '.join(found)}"
                "; use images with captions: views.kind=captioned"
            )
        return self.loss_of(self.encoded(views), views, clock)

    def encoders(self) -> Sequence[nn.Module]:
        return self.backbone, self.text

    def encoded(self, views: Views) -> tuple[Tensor, ...]:
        crop, ids = views.crops
        return unit(self.backbone(crop)), unit(self.text(ids))  # [B, D] each

    def loss_of(self, encoded: tuple[Tensor, ...], views: Views, clock: Clock) -> Output:
        u, v = encoded
        loss, logs = self.objective(u, v)
        return Output(loss=loss, embedding=torch.cat([u, v]).detach(), logs=logs)

    def after_step(self, clock: Clock) -> None:
        self.objective.clamp()

    def embed(self, crop: Tensor) -> tuple[Tensor, Tensor]:
        """crop: an image [B, C, S, S], or the token ids of a caption [B, L]. Both give vectors of one space."""
        h = self.backbone(crop) if crop.is_floating_point() else self.text(crop)
        return h, unit(h)

    def trunks(self) -> Mapping[str, nn.Module]:
        return {"backbone": self.backbone, "text": self.text}

    def undecayed(self) -> Sequence[str]:
        return ("objective.",)

    def parts(self) -> Mapping[str, str]:
        return {
            "predictor": "none",
            "target": "shared (gradient flows)",
            "objective": self.objective.says,
            "pairs": "(image, caption) (caption, image)",
            "batch norm": "one forward a tower",
            "keeps": "both towers",
        }


class Matching(nn.Module, ABC):
    """What both have: t, which is learnt; exp(t) multiplies cosines.  temperature: 1 / exp(t) at the start."""

    says = ""

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(-math.log(temperature)))

    @torch.no_grad()
    def clamp(self) -> None:
        """1 <= exp(t) <= 100, after every step (open_clip; the paper names the upper limit)."""
        self.log_scale.clamp_(0, LARGEST)

    def forward(self, u: Tensor, v: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        loss = self.compare(u, v, (-self.log_scale).exp())
        similarity = (u * v).sum(dim=1).mean()
        return loss, {"similarity": similarity.detach(), "scale": self.log_scale.exp().detach()}

    @abstractmethod
    def compare(self, u: Tensor, v: Tensor, temperature: Tensor) -> Tensor:
        """u, v: [B, D], unit vectors, row i of both a pair -> scalar."""


class Softmax(Matching):
    """Cross-entropy of the own caption among all captions and of the own image among all images, the mean of both.

    Candidates are gathered over processes with their gradient; the rows stay where they are.
    """

    says = "symmetric cross-entropy (in the batch, temperature learnt)"

    def compare(self, u: Tensor, v: Tensor, temperature: Tensor) -> Tensor:
        images, captions = dist.gather(u), dist.gather(v)  # [N, D]
        first = dist.rank() * len(u)
        of_images = info_nce_batch(u, captions, temperature, first)
        return 0.5 * (of_images + info_nce_batch(v, images, temperature, first))


class Sigmoid(Matching):
    """Every image with every caption is a question of its own, yes or no (SigLIP, arXiv:2303.15343, Algorithm 1).

    Every process computes all N x N of them, where the paper passes captions around: the same gradient, more memory.
    """

    says = "logistic (all pairs of the batch, temperature and bias learnt)"

    def __init__(self, temperature: float, bias: float) -> None:
        super().__init__(temperature)
        self.bias = nn.Parameter(torch.tensor(bias))

    def compare(self, u: Tensor, v: Tensor, temperature: Tensor) -> Tensor:
        images, captions = dist.gather(u), dist.gather(v)  # [N, D]
        check_at_least_2(len(images))
        return logistic(images, captions, temperature, self.bias)
