"""Layers of a projector that are kept on a backbone (SimCLR v2, arXiv:2006.10029): how they are described. No torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from stopgrad.contracts import ConfigError

Norm = Literal["batch", "batch_no_affine", "layer", "none"]
Activation = Literal["relu", "gelu", "none"]
LARGEST_WIDTH, MOST = 65_536, 16  # a few bytes of a stranger's file could ask for all memory there is


@dataclass(frozen=True, kw_only=True, slots=True)
class KeptLayer:
    """A linear layer with what follows it in the projector it comes from. Defaults are SimCLR v2's."""

    width: int
    norm: Norm = "batch"
    bias: bool = False
    activation: Activation = "relu"  # none: a projector's last layer

    def __post_init__(self) -> None:
        if not 1 <= self.width <= LARGEST_WIDTH:
            raise ConfigError(f"backbone.kept: width must be 1 to {LARGEST_WIDTH}, got {self.width}")

    @classmethod
    def from_description(cls, values: Mapping[str, Any]) -> KeptLayer:
        """Raises ConfigError, KeyError or TypeError for values that describe nothing: they may be a stranger's."""
        found = {**dataclasses.asdict(cls(width=1)), **values}
        known = found.keys() == {field.name for field in dataclasses.fields(cls)}
        numbers = type(found["width"]) is int and type(found["bias"]) is bool
        words = found["norm"] in get_args(Norm) and found["activation"] in get_args(Activation)
        if not (known and numbers and words):
            raise ConfigError(
                f"backbone.kept: a layer has a width, a norm of {get_args(Norm)}, bias true or false, an activation of "
                f"{get_args(Activation)}, got {values!r:.160}"
            )
        return cls(**found)


def described_layers(kept: tuple[KeptLayer, ...]) -> dict[str, Any]:
    """What an encoder's file says of them; nothing where there are none."""
    return {"kept": [dataclasses.asdict(layer) for layer in kept]} if kept else {}


def layers_from(values: Mapping[str, Any]) -> tuple[KeptLayer, ...]:
    """The other way round. Raises ConfigError, KeyError or TypeError."""
    found = values.get("kept", [])
    if not isinstance(found, list) or len(found) > MOST or not all(isinstance(layer, Mapping) for layer in found):
        raise ConfigError(f"backbone.kept must be a list of at most {MOST} layers, got {found!r:.160}")
    return tuple(map(KeptLayer.from_description, found))
