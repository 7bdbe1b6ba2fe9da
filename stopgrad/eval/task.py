"""What an evaluation is handed: one encoder's features, and what is the same for all encoders. And how it answers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stopgrad.contracts import Result
from stopgrad.eval.config import EvalConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """Everything one encoder (trained, untrained or raw pixels) says about the images, float32, on the CPU."""

    bank: Tensor | None  # [N, D], all training images; None where nothing is known of them: no labels, no attributes
    queries: Tensor | None  # [Q, D], all test images; likewise
    clean: Tensor  # [P, D], the chosen test images as they are
    first: Tensor  # [P, D], one random view of each
    second: Tensor  # [P, D], another
    pixels: tuple[int, int, int] | None = None  # [C, S, S] where the features are pixels


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What stays the same whoever is scored."""

    config: EvalConfig
    bank_labels: NDArray[np.int64] | None  # [N]
    query_labels: NDArray[np.int64] | None  # [Q]
    device: torch.device
    seed: int
    protocol: str  # version, data, splits, transform
    many: str = "images"  # what samples are called
    # what is known of samples beside their class, by name: of the training and the test samples, [N] and [Q]
    attributes: Mapping[str, tuple[NDArray[np.int64], NDArray[np.int64]]] = field(default_factory=dict)

    # data.labels: which of L occur in the training and the test samples, [N, L] and [Q, L]
    occurring: tuple[NDArray[np.bool_], NDArray[np.bool_]] | None = None

    def result(self, name: str, value: float, n: int, how: str) -> Result:
        """A row. A value that does not exist (uniformity of one image) is None, since JSON has no nan."""
        return Result(name, value if math.isfinite(value) else None, n, "test", self.seed, f"{self.protocol}; {how}")


def percent(predicted: NDArray[np.int64], labels: NDArray[np.int64]) -> float:
    """How many of `predicted` [Q] equal `labels` [Q], 0 to 100."""
    return 100.0 * float(np.mean(np.asarray(predicted) == np.asarray(labels)))


def standardiser(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean of each channel of x [N, D], and 1 / std; a constant channel is left at 0 and not blown up."""
    x = x.float()
    std, mean = torch.std_mean(x, dim=0, correction=0)  # [D]
    live = std > 1e-6 * (std.square() + mean.square()).mean().sqrt()
    return mean, torch.where(live, 1 / std.clamp_min(1e-30), torch.zeros_like(std))
