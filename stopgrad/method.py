"""Method: what the training loop may rely on. Everything else about a method is its own affair."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from stopgrad.contracts import Clock, Output, Views


class Method(nn.Module, ABC):
    """A trunk to keep, a loss, one hook after the step.

    forward changes nothing but batch-norm statistics; a queue, bank, centre or momentum copy is staged there and
    committed in `after_step`, which is called once an optimiser step and not at all for a step that was skipped.
    """

    backbone: nn.Module  # crops [B, C, S, S] -> [B, D]; all that outlives pretraining

    @abstractmethod
    def forward(self, views: Views, clock: Clock) -> Output:
        """Views of one batch -> the loss, what the monitor reads, scalars to log."""

    def after_step(self, clock: Clock) -> None:
        """Called once after each optimiser step that was taken: moves a momentum target, commits staged state."""

    @abstractmethod
    def embed(self, crop: Tensor) -> tuple[Tensor, Tensor]:
        """crop [B, ...] -> features of the trunk [B, D] and the projection [B, P], for the monitor."""

    def trunks(self) -> Mapping[str, nn.Module]:
        """What is exported, by name; a method with two towers names two."""
        return {"backbone": self.backbone}

    def constant_lr(self) -> Sequence[str]:
        """Prefixes of parameter names whose learning rate is never decayed."""
        return ()
