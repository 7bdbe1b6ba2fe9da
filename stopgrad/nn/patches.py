"""An image as a grid of overlapping patches, each seen by itself (CPC, arXiv:1807.03748, section 3.2).

`Patches` is a backbone like any other, [B, C, S, S] -> [B, dim]: its features are the mean over the grid, which is what
the paper probes. `RowContext` is what predicts from it and is thrown away after pretraining.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from stopgrad.contracts import ConfigError


def grid_of(size: int, side: int) -> int:
    """Rows of patches of `side` pixels, at strides of half of it, in an image of `size`; there are as many columns."""
    return (size - side) // (side // 2) + 1 if size >= side else 0


class Patches(nn.Module):
    """A backbone for patches that is one for images.

    encoder: [N, C, P, P] -> [N, .dim]. It has no batch norm: one would tell the patches of an image of each other, and
    the prediction would be learnt from that (CPC v2, arXiv:1905.09272, section 3). Pixels that the patches do not
    reach are left out on all sides alike.
    """

    def __init__(self, encoder: nn.Module, side: int, image_size: int) -> None:
        super().__init__()
        if image_size < side:
            raise ConfigError(
                f"backbone.patches={side} is larger than the images, which have {image_size} pixels; use "
                f"backbone.patches={max(4, 2 * (image_size // 8))}"
            )
        if any(isinstance(module, _BatchNorm) for module in encoder.modules()):
            raise ConfigError(
                f"backbone.patches={side} needs a backbone without batch norm, through which patches see each other; "
                "type --set backbone.norm=layer, with tiny or a ResNet"
            )
        self.encoder = encoder
        self.side = side
        self.dim = int(encoder.dim)  # type: ignore[arg-type]

    def length(self, size: int) -> int:
        """Rows of the grid of an image of `size` pixels."""
        return grid_of(size, self.side)

    def cut(self, x: Tensor) -> Tensor:
        """[B, C, S, S] -> [B, G, G, C, P, P], row by row."""
        size, stride = x.shape[-1], self.side // 2
        grid = grid_of(size, self.side)
        if grid < 1:
            raise ConfigError(f"backbone.patches={self.side} is larger than the crop, which has {size} pixels")
        margin = (size - self.side - stride * (grid - 1)) // 2
        starts = margin + stride * torch.arange(grid, device=x.device)
        pixels = (starts[:, None] + torch.arange(self.side, device=x.device)).flatten()  # [G * P]
        x = x.index_select(2, pixels).index_select(3, pixels)
        x = x.reshape(-1, x.shape[1], grid, self.side, grid, self.side)
        return x.permute(0, 2, 4, 1, 3, 5)

    def latents(self, patches: Tensor) -> Tensor:
        """[B, G, G, C, P, P] -> [B, G, G, dim]"""
        grid = patches.shape[1]
        out: Tensor = self.encoder(patches.flatten(0, 2))
        return out.reshape(-1, grid, grid, self.dim)

    def forward(self, x: Tensor) -> Tensor:  # [B, C, S, S] -> [B, dim]
        return self.latents(self.cut(x)).flatten(1, 2).mean(dim=1)


class RowContext(nn.Module):
    """What lies in a row and above it, by masked convolutions: [B, G, G, dim_in] -> [B, G, G, channels].

    Each of `layers` sees the row itself and the one above it, 3 columns wide, and is added to what came in; so a
    context knows `layers` rows above its own and nothing below.
    """

    def __init__(self, dim_in: int, channels: int, layers: int) -> None:
        super().__init__()
        self.into = nn.Conv2d(dim_in, channels, 1)
        # two rows, and not three of which one is masked: a fast algorithm for 3x3 would let rounding errors of the row
        # below through
        self.layers = nn.ModuleList(nn.Conv2d(channels, channels, (2, 3)) for _ in range(layers))

    def forward(self, z: Tensor) -> Tensor:
        x: Tensor = self.into(z.permute(0, 3, 1, 2))  # [B, channels, G, G]
        for layer in self.layers:
            x = x + layer(F.pad(F.relu(x), (1, 1, 1, 0)))  # a row of zeros above the first
        return x.permute(0, 2, 3, 1)
