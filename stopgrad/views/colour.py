"""Colour operations on a batch of float images, each with a factor of its own: torchvision's, clamped one by one.

x: [B, C, H, W], 0 to 1, C 3 (brightness and contrast also any other).  factor: [B, 1, 1, 1].  Each returns a new tensor
like x. The gray of other than 3 channels is their mean.
Source: torchvision, transforms/v2/functional/_color.py; the hue follows Smith 1978 in its form without cases.
"""

from __future__ import annotations

import torch
from torch import Tensor

from stopgrad.views.params import LUMA


def luma(x: Tensor) -> Tensor:
    """[B, C, H, W] -> [B, 1, H, W]."""
    if x.shape[1] != 3:
        return x.mean(dim=1, keepdim=True)
    red, green, blue = x.unbind(1)
    return (LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue)[:, None]


def brightness(x: Tensor, factor: Tensor) -> Tensor:
    return (x * factor).clamp_(0, 1)


def contrast(x: Tensor, factor: Tensor) -> Tensor:
    return torch.lerp(luma(x).mean(dim=(1, 2, 3), keepdim=True), x, factor).clamp_(0, 1)


def saturation(x: Tensor, factor: Tensor) -> Tensor:
    return torch.lerp(luma(x), x, factor).clamp_(0, 1)


def gray(x: Tensor) -> Tensor:
    return luma(x).expand_as(x)


def hue(x: Tensor, turns: Tensor) -> Tensor:
    """Turns the hue in HSV; value and chroma stay. turns: [B, 1, 1, 1], -0.5 to 0.5."""
    red, green, blue = x.unbind(1)  # [B, H, W]
    value, least = x.amax(dim=1), x.amin(dim=1)
    chroma = value - least
    safe = torch.where(chroma > 0, chroma, 1.0)
    sixths = torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, (blue - red) / safe + 2, (red - green) / safe + 4),
    )
    sixths = sixths + 6 * turns[:, 0]
    # A channel at distance k along the circle has value - chroma * clamp(min(k, 4 - k), 0, 1).
    channels = []
    for offset in (5.0, 3.0, 1.0):
        k = torch.remainder(sixths + offset, 6)
        channels.append(value - chroma * torch.minimum(k, 4 - k).clamp_(0, 1))
    return torch.stack(channels, dim=1)
