"""What the settings of all methods share. No torch here: settings are checked before it is imported."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from stopgrad.contracts import ConfigError, Known
from stopgrad.nn.config import BackboneConfig

HiddenNorm = Literal["batch", "batch_no_affine", "layer", "group", "none"]
OutputNorm = Literal["batch_no_affine", "batch", "layer", "none"]


@dataclass(frozen=True, kw_only=True, slots=True)
class MethodConfig:
    """Settings of a method. `name` is the method's on the command line."""

    name: str

    def check(self, known: Known) -> None:
        """Raises ConfigError where the settings do not go with the rest of the recipe; all say what to type."""
        needs_pairs(self.name, known)

    def trunk(self, backbone: BackboneConfig) -> BackboneConfig:
        """The trunk as it is kept: `backbone`, with the layers on it that the method itself makes a part of it."""
        return backbone

    def towers(self) -> Mapping[str, BackboneConfig]:
        """The method's trunks besides the backbone, by name, as they are kept."""
        return {}


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadConfig:
    """An MLP: linear layers with norm and ReLU between them. Defaults are SimSiam's; every method states its own."""

    layers: int = 3
    hidden: int = 2048  # 0: as wide as the backbone
    dim: int = 2048
    norm: HiddenNorm = "batch"  # between layers
    output_norm: OutputNorm = "batch_no_affine"

    def __post_init__(self) -> None:
        for name in ("layers", "dim"):
            if getattr(self, name) < 1:
                raise ConfigError(f"method.projector.{name} must be at least 1, got {getattr(self, name)}")
        if self.hidden < 0:
            raise ConfigError(
                f"method.projector.hidden must be at least 1, or 0 for the backbone's width, got {self.hidden}"
            )

    def widths(self, width_in: int) -> list[int]:
        """Of every layer, from what comes in to what goes out."""
        return [width_in, *[self.hidden or width_in] * (self.layers - 1), self.dim]


def needs_pairs(name: str, known: Known, *, multi_crop: bool = True) -> None:
    """Two global crops of one size, and local ones beside them only where the method can compare them."""
    sides = known.crops
    if len(sides) < 2:
        raise ConfigError(f"views.crops: {name} compares 2 views, got {len(sides)}; add one")
    if len(sides) > 2 and not multi_crop:
        raise ConfigError(
            f"views.crops: {name} compares 2 views and has no multi-crop, got {len(sides)}; keep the first two, or use "
            "any other method but instdisc"
        )
    if sides[0] != sides[1]:
        raise ConfigError(
            f"views.crops: {name} compares the first two crops with each other and needs them equal, got {sides[0]} "
            f"and {sides[1]} pixels; type --set views.crops.1.size={sides[0]}"
        )


def read_with(config: MethodConfig, reader: str, is_read: bool, *names: str) -> None:
    """Raises ConfigError for a setting of `names` that is set (is not the class's default) while nothing reads it.

    reader: the setting that would have it read, as it is typed.  Only for what no preset sets: a study switches a part
    of a preset off by one setting (method.predictor=none), and what the preset says of that part is no mistake then.
    """
    for name in names if not is_read else ():
        value = getattr(config, name)
        if value != _default(config, name):
            raise ConfigError(
                f"method.{name}={value} is read by nothing here; remove it, or type --set method.{reader}, where it is"
            )


def one_layer_reads(config: MethodConfig, head: HeadConfig) -> None:
    """Raises ConfigError for a width or norm between layers where the method's projector, unless set, is one layer."""
    usual = _default(config, "projector")
    if head.layers > 1 or usual.layers > 1:  # or one layer is a study of a preset that has more
        return
    for name in ("hidden", "norm"):
        if getattr(head, name) != getattr(usual, name):
            raise ConfigError(
                f"method.projector.{name}={getattr(head, name)} is read between layers, and {config.name}'s projector "
                "has 1; remove it, or type --set method.projector.layers=2"
            )


def _default(config: MethodConfig, name: str) -> Any:
    field = next(field for field in dataclasses.fields(config) if field.name == name)
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def trained_in_time(known: Known, frozen_epochs: int) -> None:
    """Raises ConfigError for prototypes that would be frozen for the whole run."""
    if known.epochs and frozen_epochs >= known.epochs:
        raise ConfigError(
            f"method.frozen_epochs={frozen_epochs} leaves nothing of loop.epochs={known.epochs}: prototypes would "
            f"never be trained; type --set method.frozen_epochs={min(1, known.epochs - 1)}, or train for more epochs"
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
