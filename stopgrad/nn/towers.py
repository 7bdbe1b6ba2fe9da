"""A backbone of several: one for each sensor of a scene, whose channels follow each other in a crop (CMC's views).

To everybody else it is a backbone like any other; a method that compares views asks for `parts_of`. A tower is a
backbone of its own, for the channels of its sensor, and leaves as one (`stopgrad export --tower`). The tower of a
photograph may be split further, into lightness and colour (`colour_split`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from stopgrad.contracts import ConfigError
from stopgrad.nn.colour_split import LabSplit


class SensorTowers(nn.Module):
    """[B, C, S, S] -> [B, dim], the features of the towers side by side.

    towers: [B, channels of one, S, S] -> [B, .dim] each.  channels: how many of a crop's each takes, in their order.
    """

    def __init__(self, towers: Sequence[nn.Module], channels: Sequence[int]) -> None:
        super().__init__()
        self.towers = nn.ModuleList(towers)
        self.channels = list(channels)
        self.dim = sum(int(cast(Any, tower).dim) for tower in towers)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([tower(part) for tower, part in zip(self.towers, self.cut(x), strict=True)], dim=1)

    def cut(self, x: Tensor) -> tuple[Tensor, ...]:
        """Each tower's part of a crop."""
        return torch.split(x, self.channels, dim=1)


def parts_of(trunk: nn.Module, x: Tensor) -> tuple[Tensor, ...]:
    """[B, ...] -> [B, .dim] for each view the trunk sees: each sensor, lightness and colour; one where it is whole."""
    if isinstance(trunk, SensorTowers):
        return tuple(
            part for tower, own in zip(trunk.towers, trunk.cut(x), strict=True) for part in parts_of(tower, own)
        )
    return trunk.halves(x) if isinstance(trunk, LabSplit) else (trunk(x),)


def widths_of(trunk: nn.Module) -> tuple[int, ...]:
    """Of the features of each view the trunk sees."""
    if isinstance(trunk, SensorTowers):
        return tuple(width for tower in trunk.towers for width in widths_of(tower))
    return trunk.dims if isinstance(trunk, LabSplit) else (int(trunk.dim),)  # type: ignore[arg-type]


class SomeViews(nn.Module):
    """Of all views that a trunk sees, the features of some: [B, ...] -> [B, dim]."""

    def __init__(self, trunk: nn.Module, views: Sequence[int]) -> None:
        super().__init__()
        widths = widths_of(trunk)
        if not views or max(views) >= len(widths):
            raise ConfigError(
                f"eval.tower: view {max(views, default=0) + 1} is asked for, and this backbone has {len(widths)}; "
                "remove the setting"
            )
        self.trunk, self.views = trunk, list(views)
        self.dim = sum(widths[view] for view in views)

    def forward(self, x: Tensor) -> Tensor:
        parts = parts_of(self.trunk, x)
        return torch.cat([parts[view] for view in self.views], dim=1)
