"""Heads: plain vectors in, plain vectors out. They are thrown away after pretraining."""

from __future__ import annotations

import itertools
import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HiddenNorm = Literal["batch", "batch_no_affine", "layer", "group", "none"]
OutputNorm = Literal["batch_no_affine", "batch", "layer", "none"]
Activation = Literal["relu", "gelu"]
GROUPS = 16


class BatchNorm(nn.BatchNorm1d):
    """Batch norm of vectors, in float32 whatever autocast made of its input."""

    def forward(self, x: Tensor) -> Tensor:  # [B, D] -> [B, D]
        return super().forward(wide(x))


class LayerNorm(nn.LayerNorm):
    """Layer norm of vectors, in float32 whatever autocast made of its input."""

    def forward(self, x: Tensor) -> Tensor:  # [B, D] -> [B, D]
        return super().forward(wide(x))


class GroupNorm(nn.GroupNorm):
    """Group norm of vectors, in float32 whatever autocast made of its input: each group of channels of each vector by
    itself, so that nothing is known of the batch. 16 groups, or fewer, of two channels at least: one by itself would
    always be 0."""

    def __init__(self, dim: int) -> None:
        super().__init__(math.gcd(GROUPS, dim // 2) if dim % 2 == 0 else 1, dim)

    def forward(self, x: Tensor) -> Tensor:  # [B, D] -> [B, D]
        return super().forward(wide(x))


class StandardisedLinear(nn.Linear):
    """A linear layer whose rows are used with mean 0 and length 1 (weight standardisation, arXiv:1903.10520; the
    layer's scale is the norm's that follows). What batch norm does to a layer's weights, without a batch."""

    def forward(self, x: Tensor) -> Tensor:  # [B, D] -> [B, K]
        centred = self.weight - self.weight.mean(dim=1, keepdim=True)
        return F.linear(x, F.normalize(centred, dim=1), self.bias)


class SymmetricLinear(nn.Linear):
    """x -> (W + W^T) / 2 x: a linear layer whose matrix is symmetric (DirectPred, arXiv:2102.06810, table 3)."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim, dim, bias=False)

    @property
    def matrix(self) -> Tensor:
        return (self.weight + self.weight.T) / 2

    def forward(self, x: Tensor) -> Tensor:  # [B, D] -> [B, D]
        return F.linear(x, self.matrix)


class Normalise(nn.Module):
    """Vectors to unit length, in float32 whatever autocast made of them. A zero vector stays zero."""

    def forward(self, x: Tensor) -> Tensor:  # [B, D] -> [B, D]
        return F.normalize(wide(x), dim=1)


class Prototypes(nn.Linear):
    """Cosines of unit vectors with `count` trained unit vectors, the rows of `weight` (SwAV, arXiv:2006.09882).

    The optimiser takes the rows off the unit sphere; `normalise` puts them back and belongs after every step.
    """

    def __init__(self, dim: int, count: int) -> None:
        super().__init__(dim, count, bias=False)  # [B, dim] -> [B, count]
        self.normalise()

    @torch.no_grad()
    def normalise(self) -> None:
        self.weight.copy_(F.normalize(self.weight, dim=1))


class WeightNormPrototypes(nn.Linear):
    """Cosines of unit vectors with the directions of `weight`'s rows (DINO, arXiv:2104.14294, section 3.1).

    Weight normalisation with the gain fixed at 1: the length of a row is free, has no effect, and gets no gradient.
    """

    def __init__(self, dim: int, count: int) -> None:
        super().__init__(dim, count, bias=False)

    def forward(self, x: Tensor) -> Tensor:  # [B, dim] -> [B, count]
        return F.linear(x, F.normalize(self.weight, dim=1))


def wide(x: Tensor) -> Tensor:
    """float32 instead of what autocast made of it; float64 stays, for tests of gradients."""
    return x if x.dtype == torch.float64 else x.float()


def norm(kind: HiddenNorm | OutputNorm, dim: int) -> list[nn.Module]:
    """The layers a norm setting stands for: one, or none."""
    if kind == "none":
        return []
    if kind == "layer":
        return [LayerNorm(dim)]
    if kind == "group":
        return [GroupNorm(dim)]
    return [BatchNorm(dim, affine=kind != "batch_no_affine")]


def mlp(
    widths: list[int],
    hidden_norm: HiddenNorm,
    output_norm: OutputNorm,
    *,
    hidden_bias: bool | None = None,
    output_bias: bool | None = None,
    activation: Activation = "relu",
) -> nn.Sequential:
    """Linear layers from widths[0] to widths[-1] with norm and activation between them.

    A linear layer before a norm has no bias, since the norm would take it away again: SimSiam's released code keeps one
    before its last, affine-free batch norm but freezes it, which is the same function. hidden_bias and output_bias say
    otherwise, for all layers but the last and for the last: BYOL, SwAV and VICReg have biases before norms, and
    BYOL, MoCo v3 and VICReg none in the last layer, though no norm follows. Group norm stands behind a linear layer
    with standardised weights.
    """
    layers: list[nn.Module] = []
    for i, (width_in, width) in enumerate(itertools.pairwise(widths)):
        last = i == len(widths) - 2
        kind, bias = (output_norm, output_bias) if last else (hidden_norm, hidden_bias)
        linear = StandardisedLinear if kind == "group" else nn.Linear
        layers += [linear(width_in, width, bias=kind == "none" if bias is None else bias), *norm(kind, width)]
        if not last:
            layers.append(nn.ReLU(inplace=True) if activation == "relu" else nn.GELU())
    return nn.Sequential(*layers)


def dino_mlp(dim_in: int, hidden: int, bottleneck: int, layers: int, hidden_norm: HiddenNorm = "none") -> nn.Sequential:
    """DINO's projector, up to the prototypes: GELU between linear layers with bias, unit vectors at the end.

    [B, dim_in] -> [B, bottleneck]. Weights from a normal of std .02, biases 0. hidden_norm=batch is the code's
    use_bn_in_head.
    """
    widths = [dim_in, *[hidden] * (layers - 1), bottleneck]
    head = mlp(widths, hidden_norm, "none", hidden_bias=True, activation="gelu")
    for layer in head:
        if isinstance(layer, nn.Linear):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
    return nn.Sequential(*head, Normalise())
