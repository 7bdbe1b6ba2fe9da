"""Settings of the backbone. No torch here: settings are checked before it is imported."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from stopgrad.contracts import ConfigError

Stem = Literal["auto", "small", "standard"]
TINY_WIDTH = 32  # learns most in given minutes on a CPU: docs/tiny.md


@dataclass(frozen=True, kw_only=True, slots=True)
class BackboneConfig:
    """The trunk that is kept."""

    name: str = "tiny"  # tiny, or any timm model: resnet18, resnet50, vit_tiny_patch16_224, ...
    stem: Stem = "auto"  # small: 3x3, stride 1, no pooling (SimSiam, appendix D)
    init: str = ""  # weights to begin from: an encoder.safetensors or timm:NAME; "" for random ones
    width: int = TINY_WIDTH  # channels of the first stage; read by tiny alone

    def __post_init__(self) -> None:
        if self.width < 8 or self.width % 8:
            raise ConfigError(f"backbone.width must be a multiple of 8 and at least 8, got {self.width}; tiny has 32")
        if self.name != "tiny" and self.width != TINY_WIDTH:
            raise ConfigError(
                f"backbone.width={self.width} is read by tiny alone, the backbone is {self.name}; remove it"
            )

    @classmethod
    def from_description(cls, values: Mapping[str, Any]) -> BackboneConfig:
        """Raises ConfigError, KeyError or TypeError for values that describe nothing: they may be a stranger's."""
        name, stem = values["name"], values["stem"]
        width = values["width"] if name == "tiny" else TINY_WIDTH  # version 0.1 wrote one beside every name
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_.-]{1,100}", name):
            raise ConfigError(f"backbone: the name must be tiny or a timm model's, got {name!r:.60}")
        if stem not in get_args(Stem) or type(width) is not int:
            raise ConfigError(f"backbone: stem must be of {get_args(Stem)}, width a number, got {stem!r} and {width!r}")
        return cls(name=name, stem=stem, width=width)
