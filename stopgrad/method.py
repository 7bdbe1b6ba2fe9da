"""Method: what the training loop may rely on. Everything else about a method is its own affair."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from stopgrad.contracts import Clock, Output, Views


class Method(nn.Module, ABC):
    """A trunk to keep, a loss, and what happens around the optimiser's step.

    forward changes nothing but batch-norm statistics; a queue, bank, centre or momentum copy is staged there and
    committed in `after_step`, which is called once an optimiser step and not at all for a step that was skipped: then
    `discard` is called instead.
    """

    backbone: nn.Module  # crops [B, C, S, S] -> [B, D]; trained by gradient
    syncs_batch_norm: bool = True  # over processes; False where the paper normalises in each process by itself

    @abstractmethod
    def forward(self, views: Views, clock: Clock) -> Output:
        """Views of one batch -> the loss, what the monitor reads, scalars to log."""

    # Whether the loss compares the images of a batch with each other, so that micro-batches are another loss. Such a
    # method has its forward in two halves, `encoded` and `loss_of`: the loop can then take a large batch in parts.
    compares_images: bool = False

    def encoded(self, views: Views) -> tuple[Tensor, ...]:
        """The first half: what the loss sees of the images, [B, ...] each, of every image by itself."""
        raise NotImplementedError(f"{type(self).__name__} has its forward in one piece")

    def loss_of(self, encoded: tuple[Tensor, ...], views: Views, clock: Clock) -> Output:
        """The second half."""
        raise NotImplementedError(f"{type(self).__name__} has its forward in one piece")

    def encoders(self) -> Sequence[nn.Module]:
        """The modules that `encoded` is made by."""
        return (self.backbone,)

    def before_step(self, clock: Clock) -> None:
        """Called once a step when all gradients are there, averaged over processes: drops those of a frozen layer."""

    def after_step(self, clock: Clock) -> None:
        """Called once after each optimiser step that was taken: moves a momentum target, commits staged state."""

    def discard(self) -> None:
        """Called instead of `after_step` for a step that was not taken: forgets staged state."""

    @abstractmethod
    def embed(self, crop: Tensor) -> tuple[Tensor, Tensor]:
        """crop [B, ...] -> features of the trunk that is kept [B, D] and the projection [B, P], for the monitor."""

    def across(self, crop: Tensor) -> tuple[Tensor, Tensor] | None:
        """Of a method that compares kinds of view and not crops: two of them of one crop, in one space, [B, P] each.

        The monitor then asks whether an image is told from others across kinds. None: it compares crops.
        """
        return None

    def trunks(self) -> Mapping[str, nn.Module]:
        """What is exported, by name; a method with two towers names two."""
        return {"backbone": self.backbone}

    def constant_lr(self) -> Sequence[str]:
        """Prefixes of parameter names whose learning rate is never decayed."""
        return ()

    def rates(self) -> Mapping[str, float]:
        """Prefixes of parameter names whose learning rate is not the others' but so many times that."""
        return {}

    def undecayed(self) -> Sequence[str]:
        """Prefixes of parameter names that are never decayed (nor, by LARS, adapted), whatever their shape."""
        return ()

    def parts(self) -> Mapping[str, str]:
        """What the method is made of, in words, for `stopgrad methods`: part -> what stands there."""
        return {}
