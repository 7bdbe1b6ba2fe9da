"""Settings of the backbone. No torch here: settings are checked before it is imported."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from stopgrad.contracts import ConfigError

Stem = Literal["auto", "small", "standard"]
Positions = Literal["learned", "sincos"]
InitScheme = Literal["default", "moco_v3"]
DESCRIBED = ("heads", "positions", "init_scheme")  # what a file needs for the same model, trained and untrained
VIT_ONLY = ("heads", "positions", "patch_projection", "init_scheme")
TINY_WIDTH = 32  # learns most in given minutes on a CPU: docs/tiny.md


@dataclass(frozen=True, kw_only=True, slots=True)
class BackboneConfig:
    """The trunk that is kept."""

    name: str = "tiny"  # tiny, or any timm model: resnet18, resnet50, vit_tiny_patch16_224, ...
    stem: Stem = "auto"  # small: 3x3, stride 1, no pooling (SimSiam, appendix D)
    init: str = ""  # weights to begin from: an encoder.safetensors or timm:NAME; "" for random ones
    width: int = TINY_WIDTH  # channels of the first stage; read by tiny alone
    # The rest is read by ViTs, and drop_path by whatever model of timm's has it.
    heads: int = 0  # of attention; 0: the model's own (6 of a ViT-Small, where MoCo v3 has 12)
    positions: Positions = "learned"  # sincos: fixed, in two dimensions (MoCo v3)
    patch_projection: Literal["trained", "frozen"] = "trained"  # frozen: random patches, for stability (MoCo v3)
    init_scheme: InitScheme = "default"  # of random weights; moco_v3: Xavier's, query, key and value apart
    drop_path: float = 0.0  # share of residual branches left out while training, in the last block; DINO's student: 0.1

    def __post_init__(self) -> None:
        if self.width < 8 or self.width % 8:
            raise ConfigError(f"backbone.width must be a multiple of 8 and at least 8, got {self.width}; tiny has 32")
        if self.name != "tiny" and self.width != TINY_WIDTH:
            raise ConfigError(
                f"backbone.width={self.width} is read by tiny alone, the backbone is {self.name}; remove it"
            )
        if self.heads < 0:
            raise ConfigError(f"backbone.heads must be 0 (the model's own) or more, got {self.heads}")
        if not 0 <= self.drop_path < 1:
            raise ConfigError(f"backbone.drop_path must be in [0, 1), got {self.drop_path}; DINO uses 0.1")
        changed = self.changed()
        if self.name == "tiny" and changed:
            raise ConfigError(f"backbone.{changed[0]} is read by timm's models, the backbone is tiny; remove it")
        if self.init.startswith("timm:") and {"heads", "positions"} & set(changed):
            raise ConfigError(
                f"backbone.{changed[0]}={getattr(self, changed[0])} is not what {self.init} was trained with; "
                "remove it, or backbone.init"
            )

    def changed(self) -> list[str]:
        """Which settings ask for another model than timm's own, besides the stem."""
        names = (*VIT_ONLY, "drop_path")
        return [name for name in names if getattr(self, name) != type(self).__dataclass_fields__[name].default]

    def described(self) -> dict[str, Any]:
        """What an encoder's file has to say of its architecture; the other way round from `from_description`.

        A default that version 0.1 did not know is left out: the same weights stay the same bytes.
        """
        width = {"width": self.width} if self.name == "tiny" else {}  # nothing else has a width to choose
        more = {name: getattr(self, name) for name in DESCRIBED if name in self.changed()}
        return {"name": self.name, "stem": self.stem, **width, **more}

    @classmethod
    def from_description(cls, values: Mapping[str, Any]) -> BackboneConfig:
        """Raises ConfigError, KeyError or TypeError for values that describe nothing: they may be a stranger's."""
        name, stem = values["name"], values["stem"]
        width = values["width"] if name == "tiny" else TINY_WIDTH  # version 0.1 wrote one beside every name
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_.-]{1,100}", name):
            raise ConfigError(f"backbone: the name must be tiny or a timm model's, got {name!r:.60}")
        if stem not in get_args(Stem) or type(width) is not int:
            raise ConfigError(f"backbone: stem must be of {get_args(Stem)}, width a number, got {stem!r} and {width!r}")
        heads, positions = values.get("heads", 0), values.get("positions", "learned")
        scheme = values.get("init_scheme", "default")
        if type(heads) is not int or positions not in get_args(Positions) or scheme not in get_args(InitScheme):
            raise ConfigError(
                f"backbone: heads must be a number, positions of {get_args(Positions)}, init_scheme of "
                f"{get_args(InitScheme)}, got {heads!r:.60}, {positions!r:.60} and {scheme!r:.60}"
            )
        return cls(name=name, stem=stem, width=width, heads=heads, positions=positions, init_scheme=scheme)
