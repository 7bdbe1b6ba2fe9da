"""Heads: plain vectors in, plain vectors out. They are thrown away after pretraining."""

from __future__ import annotations

import itertools
from typing import Literal

import torch
from torch import Tensor, nn

HiddenNorm = Literal["batch", "layer", "none"]
OutputNorm = Literal["batch_no_affine", "batch", "layer", "none"]


class BatchNorm(nn.BatchNorm1d):
    """Batch norm of vectors, in float32 whatever autocast made of its input."""

    def forward(self, x: Tensor) -> Tensor:  # [B, D] -> [B, D]
        return super().forward(wide(x))


class LayerNorm(nn.LayerNorm):
    """Layer norm of vectors, in float32 whatever autocast made of its input."""

    def forward(self, x: Tensor) -> Tensor:  # [B, D] -> [B, D]
        return super().forward(wide(x))


def wide(x: Tensor) -> Tensor:
    """float32 instead of what autocast made of it; float64 stays, for tests of gradients."""
    return x if x.dtype == torch.float64 else x.float()


def norm(kind: HiddenNorm | OutputNorm, dim: int) -> list[nn.Module]:
    """The layers a norm setting stands for: one, or none."""
    if kind == "none":
        return []
    if kind == "layer":
        return [LayerNorm(dim)]
    return [BatchNorm(dim, affine=kind != "batch_no_affine")]


def mlp(widths: list[int], hidden_norm: HiddenNorm, output_norm: OutputNorm) -> nn.Sequential:
    """Linear layers from widths[0] to widths[-1] with norm and ReLU between them.

    A linear layer before a norm has no bias, since the norm would take it away again: SimSiam's released code keeps one
    before its last, affine-free batch norm but freezes it, which is the same function.
    """
    layers: list[nn.Module] = []
    for i, (width_in, width) in enumerate(itertools.pairwise(widths)):
        last = i == len(widths) - 2
        kind = output_norm if last else hidden_norm
        layers += [nn.Linear(width_in, width, bias=kind == "none"), *norm(kind, width)]
        if not last:
            layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)
