"""Batch norm's statistics: shared by processes, split within one, put back where a forward must leave no trace."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from stopgrad import dist
from stopgrad.contracts import ConfigError
from stopgrad.nn.heads import BatchNorm, wide


class SyncBatchNorm(_BatchNorm):
    """Batch norm over the batch of all processes, on any device (torch's own refuses CPUs).

    Mean and variance are computed in float32 from sums over processes, with gradient through both. On one process it is
    nn.BatchNorm's definition: biased variance to normalise, unbiased for the running estimate.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"batch norm needs [B, C, ...], got {input.dim()} dimensions")

    def forward(self, input: Tensor) -> Tensor:  # [B, C, ...] -> the same
        self._check_input_dim(input)
        if not self.training:
            return super().forward(input)
        x = wide(input)
        axes = [0, *range(2, x.dim())]
        shape = [1, -1] + [1] * (x.dim() - 2)
        count = dist.total(x.new_tensor([x.numel() / x.shape[1]]))  # values a channel, over all processes
        mean = dist.total(x.sum(axes)) / count
        centred = x - mean.view(shape)
        variance = dist.total(centred.square().sum(axes)) / count
        if self.track_running_stats and self.running_mean is not None and self.running_var is not None:
            with torch.no_grad():
                momentum = self.momentum or 0.0
                self.num_batches_tracked.add_(1)  # type: ignore[union-attr]
                self.running_mean.lerp_(mean.detach(), momentum)
                self.running_var.lerp_(variance.detach() * count / (count - 1), momentum)
        y = centred * torch.rsqrt(variance + self.eps).view(shape)
        if self.affine:
            y = y * self.weight.view(shape) + self.bias.view(shape)
        return y.to(input.dtype) if input.dim() > 2 else y


class SplitBatchNorm(_BatchNorm):
    """Batch norm that takes the batch for `splits` batches, in order: one process stands in for several (MoCo's demo on
    CIFAR-10, with 8).

    The running statistics move once a forward, by the mean of the groups'. Out of training it is ordinary batch norm.
    """

    def __init__(self, splits: int, features: int, *settings: Any) -> None:
        super().__init__(features, *settings)  # eps, momentum, affine, track_running_stats
        self.splits = splits
        self.whole = False  # in `untouched_statistics`: what is measured there comes in batches of any size

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"batch norm needs [B, C, ...], got {input.dim()} dimensions")

    def forward(self, input: Tensor) -> Tensor:  # [B, C, ...] -> the same
        self._check_input_dim(input)
        x = wide(input) if input.dim() == 2 else input
        if not self.training or self.whole:
            return super().forward(x)
        if len(x) % self.splits or x.numel() // x.shape[1] <= self.splits:
            fits = max(2, len(x) // self.splits) * self.splits
            raise ConfigError(
                f"batch norm in {self.splits} groups needs a batch that divides into groups of 2 or more; "
                f"one forward of one process has {len(x)}: use {fits} (--set loop.batch_size), or fewer groups"
            )
        means, variances = (  # [splits, C], a row for each group to update
            None if kept is None else kept.repeat(self.splits, 1) for kept in (self.running_mean, self.running_var)
        )
        momentum = self._next_momentum()
        groups = []
        for i, group in enumerate(x.chunk(self.splits)):  # a chunk keeps channels_last, a reshape to one call would not
            mean, variance = (None if rows is None else rows[i] for rows in (means, variances))
            groups.append(F.batch_norm(group, mean, variance, self.weight, self.bias, True, momentum, self.eps))
        for kept, rows in ((self.running_mean, means), (self.running_var, variances)):
            if kept is not None and rows is not None:
                kept.copy_(rows.mean(0))
        return torch.cat(groups)

    def _next_momentum(self) -> float:
        """Counts this forward. Without a momentum, the running statistics are the plain mean of all so far."""
        if self.num_batches_tracked is None:
            return 0.0
        self.num_batches_tracked.add_(1)
        return 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum


PLAIN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, BatchNorm)


def synchronise(module: nn.Module) -> nn.Module:
    """The module with every batch norm replaced by one over all processes; parameters and buffers are kept.

    One that is split stays: its groups are to be smaller than a batch, not larger. Raises ConfigError for a subclass
    that does something besides (timm's BatchNormAct2d).
    """
    stay = (SyncBatchNorm, SplitBatchNorm)
    return _replaced(module, SyncBatchNorm, stay, "it can't be shared by processes", "or one process")


def split(module: nn.Module, splits: int) -> nn.Module:
    """The module with every batch norm replaced by one in `splits` groups; parameters and buffers are kept.

    Raises ConfigError for a subclass that does something besides.
    """
    if splits < 1:
        raise ConfigError(f"batch norm can't be split into {splits} groups; use 1 or more (MoCo on CIFAR-10: 8)")
    return _replaced(module, partial(SplitBatchNorm, splits), (), "it can't be split into groups", "or don't split")


def _replaced(
    module: nn.Module,
    make: Callable[..., _BatchNorm],
    stay: tuple[type[_BatchNorm], ...],
    reason: str,
    otherwise: str,
) -> nn.Module:
    for name, child in module.named_children():
        if isinstance(child, _BatchNorm) and not isinstance(child, stay):
            if type(child) not in PLAIN:
                raise ConfigError(
                    f"{type(child).__name__} does more than normalise, so {reason}; "
                    f"use a backbone with plain batch norm (tiny, resnet18, resnet50), {otherwise}"
                )
            made = make(child.num_features, child.eps, child.momentum, child.affine, child.track_running_stats)
            # the same tensors, not copies: a frozen or a target's norm stays frozen
            made._parameters = child._parameters
            made._buffers = child._buffers
            setattr(module, name, made.train(child.training))
        else:
            _replaced(child, make, stay, reason, otherwise)
    return module


def statistics(module: nn.Module) -> list[Tensor]:
    """Every running mean, variance and counter below the module."""
    return [buffer for part in module.modules() if isinstance(part, _BatchNorm) for buffer in part.buffers()]


@contextmanager
def untouched_statistics(module: nn.Module) -> Iterator[None]:
    """Forwards inside leave the running statistics as they were, and take a batch of any size: none is split."""
    buffers = statistics(module)
    kept = [buffer.clone() for buffer in buffers]
    splitting = [part for part in module.modules() if isinstance(part, SplitBatchNorm) and not part.whole]
    for part in splitting:
        part.whole = True
    try:
        yield
    finally:
        for part in splitting:
            part.whole = False
        with torch.no_grad():
            for buffer, value in zip(buffers, kept):
                buffer.copy_(value)
