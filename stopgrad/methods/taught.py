"""Trunk and classifier, taught by labels (fine-tuning) or by another's answers (distillation).

A batch has no labels. Those that may be known stand in a buffer, one an image that is trained on, and are looked up by
the images' index, as a bank's rows are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stopgrad.contracts import Clock, Output, Views
from stopgrad.losses.distillation import distillation
from stopgrad.losses.inputs import widen
from stopgrad.method import Method

UNKNOWN = -1  # the label of an image whose class nobody may know


class Taught(Method):
    """Crops -> trunk -> a linear classifier that begins at 0: before the first step every class is as likely."""

    labels: Tensor  # [N], int64

    def __init__(self, backbone: nn.Module, classes: int, images: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.classifier = nn.Linear(cast(int, backbone.dim), classes)
        nn.init.zeros_(self.classifier.weight)
        nn.init.zeros_(self.classifier.bias)
        self.register_buffer("labels", torch.full((max(1, images),), UNKNOWN))

    def learn(self, labels: Tensor) -> None:
        """labels: [N], one an image that is trained on, UNKNOWN where it may not be known."""
        self.labels.copy_(labels)

    def classify(self, crop: Tensor) -> Tensor:  # [B, ...] -> logits [B, classes]
        logits: Tensor = self.classifier(self.backbone(crop))
        return logits

    def embed(self, crop: Tensor) -> tuple[Tensor, Tensor]:
        """There is no projector: the features are what is watched, twice."""
        h = self.backbone(crop)
        return h, h

    def parts(self) -> Mapping[str, str]:
        return {"classifier": f"linear, {self.classifier.out_features} classes"}


class Finetune(Taught):
    """Cross-entropy of the known labels, a mean over the batch."""

    def forward(self, views: Views, clock: Clock) -> Output:
        h = self.backbone(views.crops[0])  # [B, D]
        logits = widen(self.classifier(h))  # [B, C]
        label = self.labels[views.index]
        right = (logits.detach().argmax(dim=1) == label).float().mean()
        return Output(loss=F.cross_entropy(logits, label), embedding=h.detach(), logs={"right": 100 * right})


class Distill(Taught):
    """The teacher's answers to the same crops, and what labels there are.

    loss = mean over the batch of  alpha H(P_T, P_S) + (1 - alpha) [label known] CE(label)
    """

    def __init__(
        self, backbone: nn.Module, classes: int, images: int, *, temperature: float, scaled: bool, alpha: float
    ) -> None:
        super().__init__(backbone, classes, images)
        self.temperature, self.scaled, self.alpha = temperature, scaled, alpha
        self.teacher: nn.Module = nn.Identity()

    def follow(self, teacher: nn.Module) -> None:
        """teacher: crops -> logits [B, classes]. It is frozen, and stays in eval mode."""
        self.teacher = teacher.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        self.teacher.eval()
        return self

    def forward(self, views: Views, clock: Clock) -> Output:
        crop = views.crops[0]
        with torch.no_grad():
            answers = widen(self.teacher(crop))  # [B, C]
        h = self.backbone(crop)  # [B, D]
        logits = widen(self.classifier(h))  # [B, C]
        loss = self.alpha * distillation(logits, answers, self.temperature, scaled=self.scaled)
        same = (logits.detach().argmax(dim=1) == answers.argmax(dim=1)).float().mean()
        if self.alpha < 1:
            label = self.labels[views.index]
            known = F.cross_entropy(logits, label, ignore_index=UNKNOWN, reduction="sum") / len(label)
            loss = loss + (1 - self.alpha) * known
        return Output(loss=loss, embedding=h.detach(), logs={"same_answer": 100 * same})


class Answering(nn.Module):
    """A finished trunk with its classifier: crops -> logits [B, C]."""

    def __init__(self, backbone: nn.Module, classifier: nn.Linear) -> None:
        super().__init__()
        self.backbone = backbone
        self.classifier = classifier

    def forward(self, crop: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.backbone(crop))
        return logits
