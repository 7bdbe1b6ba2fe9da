"""What every loss does to its inputs before the formula: widen them, and refuse those that no formula can mean."""

from __future__ import annotations

import functools
from collections.abc import Callable
from itertools import chain
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

from stopgrad.contracts import ConfigError

P = ParamSpec("P")
R = TypeVar("R")


def widen(x: Tensor) -> Tensor:
    """Half precision -> float32; float32, float64, integers and booleans as they are."""
    return x.float() if x.is_floating_point() and x.dtype.itemsize < 4 else x


def in_float32(loss: Callable[P, R]) -> Callable[P, R]:
    """Run a loss on widened tensors and outside autocast, which would compute its matrix products in half precision."""

    @functools.wraps(loss)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        device = next(x.device.type for x in chain(args, kwargs.values()) if isinstance(x, Tensor))
        with torch.autocast(device, enabled=False):
            return loss(*map(_wide, args), **{name: _wide(x) for name, x in kwargs.items()})  # type: ignore[arg-type]

    return run


def _wide(x: object) -> object:
    return widen(x) if isinstance(x, Tensor) else x


def check_equal_shapes(**tensors: Tensor) -> None:
    """Broadcasting would turn a batch against a single row into a number that means nothing."""
    shapes = {name: tuple(x.shape) for name, x in tensors.items()}
    if len(set(shapes.values())) > 1:
        found = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
        raise ConfigError(f"{found}: row i of each has to be the same image's; give tensors of one shape [B, D]")


def check_above_0(**values: float | Tensor) -> None:
    """Numbers only: looking at a tensor would wait for the GPU, and a learned temperature is its owner's exp()."""
    for name, value in values.items():
        if not isinstance(value, Tensor) and not value > 0:
            raise ConfigError(f"{name} must be above 0, got {value}")


def check_rows(rows: int, first: int, candidates: int) -> None:
    """Rows first .. first + rows of the candidates are the positives: on a GPU a wrong label is an abort."""
    if first < 0 or first + rows > candidates:
        raise ConfigError(
            f"first={first} with {rows} queries needs rows {first} to {first + rows - 1} among the keys, there are "
            f"{candidates}; first is where this process's slice of the batch begins"
        )


def check_at_least_2(images: int) -> None:
    if images < 2:
        raise ConfigError(f"batch of {images}: without another image there is nothing to tell apart; use 2 or more")
