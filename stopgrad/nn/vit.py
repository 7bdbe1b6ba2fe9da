"""What MoCo v3 (arXiv:2104.02057) does to timm's ViTs; and stochastic depth switched off.

Reference: facebookresearch/moco-v3, vits.py. The names of tensors stay timm's, so plain timm reads the weights.
"""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import Tensor, nn

from stopgrad.contracts import ConfigError
from stopgrad.nn.config import BackboneConfig

WAVELENGTH = 10_000.0  # the longest is 2 pi times as many patches, almost


def set_up_vit(model: nn.Module, config: BackboneConfig) -> None:
    """Initialisation, positions and frozen patches as the settings say. model: timm's VisionTransformer, just built."""
    if config.init_scheme == "moco_v3":
        initialise_moco_v3(model)
    if config.positions == "sincos":
        positions = cast(nn.Parameter | None, model.pos_embed)  # [1, prefix + rows * columns, D]
        if positions is None or positions.shape[-1] % 4:
            raise ConfigError(
                f"backbone.positions=sincos needs a ViT with positions and a width that 4 divides, {config.name} has "
                f"{'none' if positions is None else positions.shape[-1]}; use positions=learned"
            )
        rows, columns = cast(Any, model.patch_embed).grid_size
        fixed = sincos(rows, columns, positions.shape[-1])
        with torch.no_grad():
            positions.zero_()  # the class token's position
            positions[0, -len(fixed) :] = fixed
        positions.requires_grad_(False)
    if config.patch_projection == "frozen":
        cast(nn.Module, model.patch_embed).requires_grad_(False)


def sincos(rows: int, columns: int, dim: int) -> Tensor:
    """Positions of patches, row by row, [rows * columns, dim]: a quarter each of sin and cos of the row, and of the
    column, at wavelengths from 2 pi to almost 2 pi * 10,000 patches."""
    frequency = 1 / WAVELENGTH ** (torch.arange(dim // 4, dtype=torch.float32) / (dim // 4))
    row = torch.arange(rows).repeat_interleave(columns)[:, None] * frequency  # [rows * columns, dim / 4]
    column = torch.arange(columns).repeat(rows)[:, None] * frequency
    return torch.cat([row.sin(), row.cos(), column.sin(), column.cos()], dim=1)


def initialise_moco_v3(model: nn.Module) -> None:
    """Xavier's uniform weights, biases 0. Query, key and value stand in one matrix and are drawn as three; the patch
    projection as the linear layer it is. The class token is drawn at std 1e-6, as timm does by itself."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            width_out, width_in = module.weight.shape
            bound = math.sqrt(6 / (width_out / (3 if name.endswith("qkv") else 1) + width_in))
            nn.init.uniform_(module.weight, -bound, bound)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    projection = cast(nn.Conv2d, cast(Any, model.patch_embed).proj)
    bound = math.sqrt(6 / (projection.weight[0].numel() + projection.out_channels))
    nn.init.uniform_(projection.weight, -bound, bound)
    if projection.bias is not None:
        nn.init.zeros_(projection.bias)


def without_drop_path(module: nn.Module) -> nn.Module:
    """The module with every residual branch always taken, in training too: DINO's teacher."""
    for part in module.modules():
        if hasattr(part, "drop_prob"):  # timm's DropPath: asking for the class would import timm where it is not used
            setattr(part, "drop_prob", 0.0)  # noqa: B010  # an attribute of no type known here
    return module
