"""A backbone in two halves: one sees how light an image is, the other its colour (CMC, arXiv:1906.05849).

A crop of red, green and blue becomes CIE Lab inside the backbone: L goes to the one half, a and b to the other. To
everybody else it is a backbone like any other, a function of RGB crops; a method that compares halves asks for them.
Pixels are sRGB from 0 to 1, without a mean taken away (views.mean 0, views.std 1): Lab has no other way to be read.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

# Linear red, green and blue to X, Y, Z, and white, for sRGB's primaries (IEC 61966-2-1) under D65: a row's sum is
# white's, so gray has no colour.
XYZ = ((0.4124564, 0.3575761, 0.1804375), (0.2126729, 0.7151522, 0.0721750), (0.0193339, 0.1191920, 0.9503041))
WHITE = (0.95047, 1.0, 1.08883)
# What sRGB reaches of L, a and b; HobbitLong/CMC train_CMC.py normalises by the middle and half of it.
RANGES = ((0.0, 100.0), (-86.183, 98.233), (-107.857, 94.478))
BEND = 6 / 29  # of CIE's cube root: linear below its third power


class LabSplit(nn.Module):
    """Two backbones, one for L and one for a and b, that are one: [B, 3, S, S] -> [B, dim], L's features first."""

    def __init__(self, luminance: nn.Module, chrominance: nn.Module) -> None:
        super().__init__()
        self.luminance = luminance  # [B, 1, S, S] -> [B, .dim]
        self.chrominance = chrominance  # [B, 2, S, S] -> [B, .dim]
        self.dims = int(luminance.dim), int(chrominance.dim)  # type: ignore[arg-type]
        self.dim = sum(self.dims)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat(self.halves(x), dim=1)

    def halves(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x: [B, 3, S, S], RGB from 0 to 1.  Returns the features of L and of a and b, [B, .dims] each."""
        lab = normalised_lab(x)
        return self.luminance(lab[:, :1]), self.chrominance(lab[:, 1:])


def normalised_lab(x: Tensor) -> Tensor:
    """[B, 3, S, S], RGB from 0 to 1 -> L, a, b from -1 to 1, by the range sRGB has of each."""
    planes = [
        (plane - (high + low) / 2) / ((high - low) / 2)
        for plane, (low, high) in zip(lab(x).unbind(dim=1), RANGES, strict=True)
    ]
    return torch.stack(planes, dim=1)


def lab(x: Tensor) -> Tensor:
    """[B, 3, S, S], sRGB from 0 to 1 -> CIE Lab, L from 0 to 100. What lies outside 0 to 1 is no colour and is clamped.

    Plane by plane, without a matrix product: autocast would compute one in half precision, which Lab does not survive.
    """
    x = x.clamp(0, 1)
    linear = torch.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)
    red, green, blue = linear.unbind(dim=1)  # each [B, S, S]
    fx, fy, fz = (_bent((r * red + g * green + b * blue) / white) for (r, g, b), white in zip(XYZ, WHITE, strict=True))
    return torch.stack([116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)], dim=1)


def _bent(t: Tensor) -> Tensor:
    """The cube root, with a straight piece where it would be too steep (CIE 1976)."""
    return torch.where(t > BEND**3, t.clamp(min=BEND**3) ** (1 / 3), t / (3 * BEND**2) + 4 / 29)
