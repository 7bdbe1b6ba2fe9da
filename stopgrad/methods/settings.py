"""What the settings of all methods share. No torch here: settings are checked before it is imported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from stopgrad.contracts import ConfigError, Known

HiddenNorm = Literal["batch", "layer", "none"]
OutputNorm = Literal["batch_no_affine", "batch", "layer", "none"]


@dataclass(frozen=True, kw_only=True, slots=True)
class MethodConfig:
    """Settings of a method. `name` is the method's on the command line."""

    name: str

    def check(self, known: Known) -> None:
        """Raises ConfigError where the settings do not go with the rest of the recipe; all say what to type."""
        needs_pairs(self.name, known)


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadConfig:
    """An MLP: linear layers with norm and ReLU between them. Defaults are SimSiam's; every method states its own."""

    layers: int = 3
    hidden: int = 2048
    dim: int = 2048
    norm: HiddenNorm = "batch"  # between layers
    output_norm: OutputNorm = "batch_no_affine"

    def __post_init__(self) -> None:
        for name in ("layers", "hidden", "dim"):
            if getattr(self, name) < 1:
                raise ConfigError(f"method.projector.{name} must be at least 1, got {getattr(self, name)}")

    def widths(self, width_in: int) -> list[int]:
        """Of every layer, from what comes in to what goes out."""
        return [width_in, *[self.hidden] * (self.layers - 1), self.dim]


def needs_pairs(name: str, known: Known, *, multi_crop: bool = True) -> None:
    """Two global crops of one size, and local ones beside them only where the method can compare them."""
    sides = known.crops
    if len(sides) < 2:
        raise ConfigError(f"views.crops: {name} compares 2 views, got {len(sides)}; add one")
    if len(sides) > 2 and not multi_crop:
        raise ConfigError(
            f"views.crops: {name} compares 2 views and has no multi-crop, got {len(sides)}; keep the first two, or use "
            "simsiam, byol, moco_v2, simclr, swav or dino"
        )
    if sides[0] != sides[1]:
        raise ConfigError(
            f"views.crops: {name} compares the first two crops with each other and needs them equal, got {sides[0]} "
            f"and {sides[1]} pixels; type --set views.crops.1.size={sides[0]}"
        )


def above_zero(config: object, paper: Mapping[str, float]) -> None:
    """Raises ConfigError for a setting of `paper` (name -> the paper's value) that is not above 0."""
    for name, value in paper.items():
        if not getattr(config, name) > 0:
            raise ConfigError(f"method.{name} must be above 0, got {getattr(config, name)}; the paper uses {value:g}")


def at_least(config: object, least: float, paper: Mapping[str, float]) -> None:
    """Raises ConfigError for a setting of `paper` (name -> the paper's value) that is below `least`."""
    for name, value in paper.items():
        if getattr(config, name) < least:
            raise ConfigError(
                f"method.{name} must be at least {least:g}, got {getattr(config, name)}; the paper uses {value:g}"
            )


def is_share(config: object, paper: Mapping[str, float]) -> None:
    """Raises ConfigError for a setting of `paper` (name -> the paper's value) that is not in [0, 1]."""
    for name, value in paper.items():
        if not 0 <= getattr(config, name) <= 1:
            raise ConfigError(f"method.{name} must be in [0, 1], got {getattr(config, name)}; the paper uses {value:g}")
