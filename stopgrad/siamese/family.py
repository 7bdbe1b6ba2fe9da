"""The family's one forward. What differs between methods is in the parts it is given."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from stopgrad.contracts import Clock, ConfigError, Output, Views
from stopgrad.method import Method
from stopgrad.nn.heads import SymmetricLinear
from stopgrad.siamese.pairs import Pairs

Vectors = dict[int, Tensor]  # view -> [B, D]
Encode = Callable[[Views, Sequence[int], nn.Module, nn.Module], Vectors]
BatchNormBatch = Literal["view", "size", "all"]


class Part(nn.Module):
    """A part with state, or with words of its own: a target, an objective, a predictor that is no plain MLP.

    Its forward stages what has to be remembered and changes none of its buffers; `after_step` commits, `discard`
    forgets. Hooks do nothing unless a part overrides them.
    """

    says = ""  # what stands in the method's row of `stopgrad methods`

    def attraction(
        self, p: Vectors, z: Vectors, t: Vectors, pairs: Pairs, index: Tensor, clock: Clock
    ) -> Tensor | None:
        """Of an objective, called as its forward: the part of minus the loss that draws a view to its target, a scalar.
        None where the loss has no such part by itself (a cosine). For `reaching`; nothing is staged."""
        return None

    def before_step(self, clock: Clock) -> None:
        """All gradients of the step are there."""

    def after_step(self, online: Siamese, clock: Clock) -> None:
        """The step was taken."""

    def discard(self) -> None:
        """The step was not taken."""


class Target(Protocol):
    """Says what each target view should look like; see targets.py."""

    def __call__(self, views: Views, z: Vectors, online: Siamese, which: Sequence[int], clock: Clock) -> Vectors: ...


class Objective(Protocol):
    """Compares predictions with targets over the pairs: the loss, and scalars for the log; see objectives.py."""

    def __call__(
        self, p: Vectors, z: Vectors, t: Vectors, pairs: Pairs, index: Tensor, clock: Clock
    ) -> tuple[Tensor, dict[str, Tensor]]: ...


class Siamese(Method):
    """views -> backbone -> projector -> predictor, compared by the objective with what the target branch says.

    bn_batch says which crops share batch statistics: `view` runs one forward a view (SimSiam, BYOL, MoCo), `size` one a
    crop size (SwAV, DINO), `all` one over everything. keeps says which trunk outlives the run: the one trained by
    gradient, or the target's slow copy (DINO's teacher).
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
        predictor_rate: float = 1.0,
        keeps: Literal["online", "target"] = "online",
        syncs_batch_norm: bool = True,
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
        self.predictor_rate = predictor_rate
        self.keeps = keeps
        self.syncs_batch_norm = syncs_batch_norm

    def forward(self, views: Views, clock: Clock) -> Output:
        if len(views.crops) < self.pairs.views:
            raise ConfigError(
                f"views.crops: {len(views.crops)} given, the method compares {self.pairs.views}; add crops"
            )
        return self.loss_of(self.encoded(views), views, clock)

    @property
    def compares_images(self) -> bool:  # type: ignore[override]
        return bool(getattr(self.objective, "compares_images", False))

    def encoders(self) -> Sequence[nn.Module]:
        return self.backbone, self.projector

    def encoded(self, views: Views) -> tuple[Tensor, ...]:
        """The projections of the online views, in order."""
        z = self.encode(views, self.pairs.online, self.backbone, self.projector)
        return tuple(z[view] for view in self.pairs.online)

    def loss_of(self, encoded: tuple[Tensor, ...], views: Views, clock: Clock) -> Output:
        z = dict(zip(self.pairs.online, encoded, strict=True))
        p = {view: self.predictor(z_view) for view, z_view in z.items()}
        t = self.target(views, z, self, self.pairs.targets, clock)
        loss, logs = self.objective(p, z, t, self.pairs, views.index, clock)
        embedding = torch.cat([z[view].detach() for view in self.pairs.online])
        return Output(loss=loss, embedding=embedding, logs=logs)

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

    def _hooked(self) -> Iterator[Part]:
        """The parts that want to know of steps. The predictor first: a target that follows it sees what it became."""
        return (part for part in (self.predictor, self.target, self.objective) if isinstance(part, Part))

    def before_step(self, clock: Clock) -> None:
        for part in self._hooked():
            part.before_step(clock)

    def after_step(self, clock: Clock) -> None:
        for part in self._hooked():
            part.after_step(self, clock)

    def discard(self) -> None:
        for part in self._hooked():
            part.discard()

    def embed(self, crop: Tensor) -> tuple[Tensor, Tensor]:
        backbone, projector = self._kept()
        h = backbone(crop)
        return h, projector(h)

    def trunks(self) -> Mapping[str, nn.Module]:
        return {"backbone": self._kept()[0]}

    def _kept(self) -> tuple[nn.Module, nn.Module]:
        if self.keeps == "online":
            return self.backbone, self.projector
        return self.target.target_backbone, self.target.target_projector  # type: ignore[return-value]

    def constant_lr(self) -> Sequence[str]:
        return ("predictor.",) if self.constant_predictor_lr else ()

    def rates(self) -> Mapping[str, float]:
        return {"predictor.": self.predictor_rate} if self.predictor_rate != 1 else {}

    def parts(self) -> Mapping[str, str]:
        """A row of the switchboard: predictor, target, objective, pairs, and what else tells methods apart."""
        return {
            "predictor": in_words(self.predictor),
            "target": in_words(self.target),
            "objective": in_words(self.objective),
            "pairs": str(self.pairs),
            "batch norm": f"one forward a {self.bn_batch}" if self.bn_batch != "all" else "one forward",
            "keeps": self.keeps,
        }


def in_words(part: nn.Module) -> str:
    """What a part calls itself; an MLP and nothing have no words of their own."""
    if isinstance(part, Part):
        return part.says
    if isinstance(part, nn.Identity):
        return "none"
    if isinstance(part, nn.Linear):
        return "a symmetric matrix" if isinstance(part, SymmetricLinear) else "a matrix"
    frozen = not any(parameter.requires_grad for parameter in part.parameters())
    return "MLP, frozen" if frozen else "MLP"
