"""The family's one forward. What differs between methods is in the parts it is given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from stopgrad.contracts import Clock, ConfigError, Output, Views
from stopgrad.losses import negative_cosine
from stopgrad.method import Method
from stopgrad.siamese.pairs import Pairs

Vectors = dict[int, Tensor]  # view -> [B, D]
Encode = Callable[[Views, Sequence[int], nn.Module, nn.Module], Vectors]
BatchNormBatch = Literal["view", "size", "all"]


class Target(Protocol):
    """Says what each target view should look like; see targets.py."""

    def __call__(self, views: Views, z: Vectors, online: Siamese, encode: Encode, which: Sequence[int]) -> Vectors: ...

    def after_step(self, online: Siamese, clock: Clock) -> None: ...


class Objective(Protocol):
    """Compares predictions with targets over the pairs; see objectives.py."""

    def __call__(self, p: Vectors, z: Vectors, t: Vectors, pairs: Pairs, index: Tensor, clock: Clock) -> Tensor: ...


class Siamese(Method):
    """views -> backbone -> projector -> predictor, compared by the objective with what the target branch says.

    bn_batch says which crops share batch statistics: `view` runs one forward a view (SimSiam, BYOL, MoCo), `size` one a
    crop size (SwAV, DINO), `all` one over everything (SimCLR).
    """

    projector: nn.Module
    predictor: nn.Module

    def __init__(
        self,
        *,
        backbone: nn.Module,
        projector: nn.Module,
        predictor: nn.Module,
        target: nn.Module,
        objective: nn.Module,
        pairs: Pairs,
        bn_batch: BatchNormBatch = "view",
        constant_predictor_lr: bool = False,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.projector = projector
        self.predictor = predictor
        self.target = target
        self.objective = objective
        self.pairs = pairs
        self.bn_batch = bn_batch
        self.constant_predictor_lr = constant_predictor_lr

    def forward(self, views: Views, clock: Clock) -> Output:
        if len(views.crops) < self.pairs.views:
            raise ConfigError(
                f"views.crops: {len(views.crops)} given, the method compares {self.pairs.views}; add crops"
            )
        z = self.encode(views, self.pairs.online, self.backbone, self.projector)
        p = {view: self.predictor(z_view) for view, z_view in z.items()}
        t = self.target(views, z, self, self.encode, self.pairs.targets)
        loss = self.objective(p, z, t, self.pairs, views.index, clock)
        agreement = torch.stack([-negative_cosine(p[o].detach(), t[g].detach()) for o, g in self.pairs.both]).mean()
        embedding = torch.cat([z[view].detach() for view in self.pairs.online])
        return Output(loss=loss, embedding=embedding, logs={"agreement": agreement})

    def encode(self, views: Views, which: Sequence[int], backbone: nn.Module, projector: nn.Module) -> Vectors:
        """{view: projection [B, D]}, crops grouped into forwards as `bn_batch` says."""
        out: Vectors = {}
        for group in self._groups(views, which):
            crops = torch.cat([views.crops[view] for view in group]) if len(group) > 1 else views.crops[group[0]]
            out |= dict(zip(group, projector(backbone(crops)).chunk(len(group))))
        return out

    def _groups(self, views: Views, which: Sequence[int]) -> list[list[int]]:
        if self.bn_batch == "view":
            return [[view] for view in which]
        if self.bn_batch == "all":
            return [list(which)] if which else []
        sizes: dict[int, list[int]] = {}
        for view in which:
            sizes.setdefault(views.crops[view].shape[-1], []).append(view)
        return list(sizes.values())

    def after_step(self, clock: Clock) -> None:
        self.target.after_step(self, clock)  # type: ignore[operator]  # a Target, see the protocol

    def embed(self, crop: Tensor) -> tuple[Tensor, Tensor]:
        h = self.backbone(crop)
        return h, self.projector(h)

    def constant_lr(self) -> Sequence[str]:
        return ("predictor.",) if self.constant_predictor_lr else ()
