"""Settings of the loop and of the watch."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal

from stopgrad.contracts import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class LoopConfig:
    """How long, how large, how exact, and how often the state is kept."""

    epochs: int = 100
    batch_size: int = 512  # images an optimiser step, over all processes
    accumulate: int = 1  # micro-batches a step; batch norm then sees batch_size / accumulate images at a time
    precision: Literal["auto", "bf16", "float32"] = "auto"  # auto: bf16 where the processor multiplies it natively
    channels_last: bool = True
    threads: int = 0  # compute threads; 0: torch's choice. Bits are promised for a fixed number
    view_threads: int = 2
    prefetch: int = 3  # batches of views made ahead
    log_every_steps: int = 10
    checkpoint_every_steps: int = 0  # 0: by time alone
    checkpoint_every_minutes: float = 5.0
    keep_checkpoints: int = 2
    # Of a step whose loss or gradient is not finite. skip: it is not taken; stop: nor any after it; rollback: it is not
    # taken, and those after it go on from the last saved state.
    on_nan: Literal["skip", "stop", "rollback"] = "skip"
    skip_limit: int = 10  # such steps in a row before the run stops
    tensorboard: bool = False
    wandb: bool = False

    def __post_init__(self) -> None:
        at_least_1 = ("epochs", "accumulate", "view_threads", "prefetch", "log_every_steps", "keep_checkpoints")
        for name in at_least_1:
            if getattr(self, name) < 1:
                raise ConfigError(f"loop.{name} must be at least 1, got {getattr(self, name)}")
        for name in ("threads", "checkpoint_every_steps", "checkpoint_every_minutes", "skip_limit"):
            if getattr(self, name) < 0:
                raise ConfigError(f"loop.{name} must not be below 0, got {getattr(self, name)}")
        if self.batch_size < 2:
            raise ConfigError(f"loop.batch_size must be at least 2 (batch norm needs 2 images), got {self.batch_size}")
        if self.batch_size % self.accumulate or self.batch_size // self.accumulate < 2:
            raise ConfigError(
                f"loop.accumulate={self.accumulate} must divide loop.batch_size={self.batch_size} "
                "and leave at least 2 images"
            )


FORWARDS = 6  # that take as long as what a step does with an image: two views, forward and backward


@dataclass(frozen=True, kw_only=True, slots=True)
class WatchConfig:
    """What is measured on held-out images while the run goes on."""

    # 0: so seldom that each of the two makes about one of a hundred of the run's forwards, within bounds: a collapse is
    # reported within 200 steps of the step from which the rule holds, and that is the most there is between two.
    every_steps: int = 0
    images: int = 512  # held out of training, at most a tenth of it
    knn_every_steps: int = 0  # where labels exist; shown, never used for the verdict
    knn_bank: int = 2048  # training images the kNN votes with
    stop_on_collapse: bool = False
    # Also of a batch of training images, at every measurement: what reaches their embeddings, as pull and push.
    gradients: bool = False
    # Views more of each held-out image: whether the predictor says their mean, and what it does if it is one matrix.
    predictor: int = 0

    def __post_init__(self) -> None:
        for name, least in (
            ("every_steps", 0),
            ("images", 16),
            ("knn_every_steps", 0),
            ("knn_bank", 1),
            ("predictor", 0),
        ):
            if getattr(self, name) < least:
                raise ConfigError(f"watch.{name} must be at least {least}, got {getattr(self, name)}")

    def paced(self, batch_size: int) -> WatchConfig:
        """The same with both intervals in steps, for a global batch of so many images."""
        step = FORWARDS * batch_size
        every = self.every_steps or min(200, max(50, 10 * math.ceil(10 * 2 * self.images / step)))
        knn = self.knn_every_steps or every * max(
            math.ceil(200 / every), round(100 * (self.knn_bank + self.images) / step / every)
        )
        return dataclasses.replace(self, every_steps=every, knn_every_steps=knn)
