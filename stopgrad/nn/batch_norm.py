"""Batch norm's statistics: shared by processes, and put back where a forward must leave no trace."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
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


PLAIN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, BatchNorm)


def synchronise(module: nn.Module) -> nn.Module:
    """The module with every batch norm replaced by one over all processes; parameters and buffers are kept.

    Raises ConfigError for a subclass that does something besides (timm's BatchNormAct2d).
    """
    for name, child in module.named_children():
        if isinstance(child, _BatchNorm) and not isinstance(child, SyncBatchNorm):
            if type(child) not in PLAIN:
                raise ConfigError(
                    f"{type(child).__name__} does more than normalise, so it can't be shared by processes; "
                    "use a backbone with plain batch norm (tiny, resnet18, resnet50), or one process"
                )
            shared = SyncBatchNorm(child.num_features, child.eps, child.momentum, child.affine)
            # the same tensors, not copies: a frozen or a target's norm stays frozen
            shared._parameters = child._parameters
            shared._buffers = child._buffers
            setattr(module, name, shared)
        else:
            synchronise(child)
    return module


def statistics(module: nn.Module) -> list[Tensor]:
    """Every running mean, variance and counter below the module."""
    return [buffer for part in module.modules() if isinstance(part, _BatchNorm) for buffer in part.buffers()]


@contextmanager
def untouched_statistics(module: nn.Module) -> Iterator[None]:
    """Forwards inside leave the running statistics as they were."""
    buffers = statistics(module)
    kept = [buffer.clone() for buffer in buffers]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in zip(buffers, kept):
                buffer.copy_(value)
