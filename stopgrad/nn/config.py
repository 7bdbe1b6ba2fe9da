"""Settings of the backbone. No torch here: settings are checked before it is imported."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from stopgrad.contracts import ConfigError

TINY_WIDTH = 32  # learns most in given minutes on a CPU: docs/tiny.md


@dataclass(frozen=True, kw_only=True, slots=True)
class BackboneConfig:
    """The trunk that is kept."""

    name: str = "tiny"  # tiny, or any timm model: resnet18, resnet50, vit_tiny_patch16_224, ...
    stem: Literal["auto", "small", "standard"] = "auto"  # small: 3x3, stride 1, no pooling (SimSiam, appendix D)
    init: str = ""  # weights to begin from: an encoder.safetensors or timm:NAME; "" for random ones
    width: int = TINY_WIDTH  # channels of the first stage; read by tiny alone

    def __post_init__(self) -> None:
        if self.width < 8 or self.width % 8:
            raise ConfigError(f"backbone.width must be a multiple of 8 and at least 8, got {self.width}; tiny has 32")
        if self.name != "tiny" and self.width != TINY_WIDTH:
            raise ConfigError(
                f"backbone.width={self.width} is read by tiny alone, the backbone is {self.name}; remove it"
            )
