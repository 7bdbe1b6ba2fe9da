"""Settings of the backbone. No torch here: settings are checked before it is imported."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from stopgrad.contracts import ConfigError
from stopgrad.nn.kept import KeptLayer, described_layers, layers_from
from stopgrad.nn.text_config import OWN_TEXTS, TEXTS, Pool, check_text, described_text, text_from

Stem = Literal["auto", "small", "standard"]
Positions = Literal["learned", "sincos"]
InitScheme = Literal["default", "moco_v3"]
Split = Literal["none", "lab", "sensors", "sensors_lab"]
Norm = Literal["batch", "layer", "none"]
DESCRIBED = ("heads", "positions", "init_scheme")  # what a file needs for the same model, trained and untrained
SEQUENCES = ("cpc_audio", "cpc_text")  # ours, of waveforms and of tokens: nn/sequence.py
OWN = ("tiny", *SEQUENCES, *OWN_TEXTS)  # what has a width to choose
# Described as well; with their defaults.
OF_CPC: dict[str, Any] = {"norm": "batch", "patches": 0, "stages": 4, "context": 256}
LARGEST_WIDTH = 4096  # of what is ours: a few bytes of a stranger's file could ask for all memory there is
VIT_ONLY = ("heads", "positions", "patch_projection", "init_scheme")
TINY_WIDTH = 32  # learns most in given minutes on a CPU: docs/tiny.md


@dataclass(frozen=True, kw_only=True, slots=True)
class BackboneConfig:
    """The trunk that is kept."""

    name: str = "tiny"  # tiny, any timm model (resnet18, vit_tiny_patch16_224, ...), one of SEQUENCES or TEXTS
    stem: Stem = "auto"  # small: 3x3, stride 1, no pooling (SimSiam, appendix D)
    init: str = ""  # weights to begin from: an encoder.safetensors or timm:NAME; "" for random ones
    width: int = TINY_WIDTH  # channels: of tiny's first stage; of cpc_audio's latents (CPC: 512), of cpc_text's (2400)
    # layer: over a sample's channels and places together (group norm with one group); of tiny and of timm's ResNets.
    # cpc_audio takes each, its layer is a frame's alone.
    norm: Norm = "batch"
    patches: int = 0  # side of overlapping patches, pixels, each encoded by itself (CPC: 64 of 256); 0: the whole image
    stages: int = 4  # of a ResNet on patches; CPC: 3
    context: int = 256  # units of the GRU behind the latents; read by cpc_audio and cpc_text
    # lab: two backbones that are one, for lightness and for colour (CMC); of half width where tiny or a timm ResNet is
    # named, of full width each otherwise. They read pixels from 0 to 1: views.mean is 0 and views.std 1.
    # sensors: a backbone of full width for each of data.sensors.  sensors_lab: that of the first one split as lab is.
    split: Split = "none"
    layers: int = 2  # of text_transformer and text_gru
    pool: Pool = "mean"  # of text: over the tokens that are there; end: what stands at the last of them (CLIP)
    causal: bool = False  # a token of text_transformer looks at those before it alone (CLIP)
    architecture: str = ""  # of hf: its config.json
    kept: tuple[KeptLayer, ...] = ()  # layers of a projector on it (SimCLR v2's fine-tuning); all is one trunk then
    # The rest is read by ViTs, and drop_path by whatever model of timm's has it.
    heads: int = 0  # of attention; 0: the model's own (6 of a ViT-Small, where MoCo v3 has 12)
    positions: Positions = "learned"  # sincos: fixed, in two dimensions (MoCo v3)
    patch_projection: Literal["trained", "frozen"] = "trained"  # frozen: random patches, for stability (MoCo v3)
    init_scheme: InitScheme = "default"  # of random weights; moco_v3: Xavier's, query, key and value apart
    drop_path: float = 0.0  # share of residual branches left out while training, in the last block; DINO's student: 0.1

    def __post_init__(self) -> None:
        if self.width < 8 or self.width % 8:
            raise ConfigError(f"backbone.width must be a multiple of 8 and at least 8, got {self.width}; tiny has 32")
        if self.name not in OWN and self.width != TINY_WIDTH:
            raise ConfigError(
                f"backbone.width={self.width} is read by {', '.join(OWN)}, the backbone is {self.name}; remove it"
            )
        self._check_cpc()
        check_text(self)
        if self.heads < 0:
            raise ConfigError(f"backbone.heads must be 0 (the model's own) or more, got {self.heads}")
        if not 0 <= self.drop_path < 1:
            raise ConfigError(f"backbone.drop_path must be in [0, 1), got {self.drop_path}; DINO uses 0.1")
        changed = self.changed()
        if self.name == "text_transformer":
            changed = [name for name in changed if name != "heads"]
        if self.name in (*OWN, *TEXTS) and changed:
            raise ConfigError(f"backbone.{changed[0]} is read by timm's models, the backbone is {self.name}; remove it")
        if self.init.startswith("timm:") and self.split != "none":
            raise ConfigError(
                f"backbone.split={self.split} makes two backbones of other widths and channels than {self.init}; "
                "remove it, or backbone.init"
            )
        if self.init.startswith("timm:") and {"heads", "positions"} & set(changed):
            raise ConfigError(
                f"backbone.{changed[0]}={getattr(self, changed[0])} is not what {self.init} was trained with; "
                "remove it, or backbone.init"
            )

    def _check_cpc(self) -> None:
        """What CPC has added: norms, patches, sequences."""
        if max(self.width, self.context) > LARGEST_WIDTH or self.context < 1:
            raise ConfigError(
                f"backbone.width and backbone.context must be at most {LARGEST_WIDTH}, and context at least 1, got "
                f"{self.width} and {self.context}; CPC's are 512 and 256"
            )
        if self.patches < 0 or self.patches % 2 or self.patches == 2:
            raise ConfigError(
                f"backbone.patches must be 0 (the whole image) or an even side of 4 pixels or more, got "
                f"{self.patches}: patches overlap by half; CPC has 64 of 256"
            )
        if not 1 <= self.stages <= 4:
            raise ConfigError(f"backbone.stages must be 1 to 4, got {self.stages}; CPC takes 3 of a ResNet's 4")
        if self.norm == "none" and self.name != "cpc_audio":
            raise ConfigError(f"backbone.norm=none is for cpc_audio, the backbone is {self.name}; use norm=layer")
        sequence, whole = self.name in SEQUENCES, not self.patches
        unread = {  # setting -> whether nothing reads it, and who would
            "norm": (self.name == "cpc_text", "backbones of images and cpc_audio"),
            "patches": (sequence, "backbones of images"),
            "stages": (whole or self.name == "tiny", "timm's ResNets on backbone.patches"),
            "context": (not sequence, " and ".join(SEQUENCES)),
            "stem": (sequence, "backbones of images"),
            "split": (sequence or not whole, "backbones of whole images"),
        }
        defaults = {**OF_CPC, "stem": "auto", "split": "none"}
        for name, (is_unread, who) in unread.items():
            value = getattr(self, name)
            if is_unread and value != defaults[name]:
                on = "" if whole else f" on patches of {self.patches}"
                raise ConfigError(
                    f"backbone.{name}={value} is read by {who}, the backbone is {self.name}{on}; remove it"
                )
        if self.init.startswith("timm:") and (set_here := self._of_cpc()):
            name, value = next(iter(set_here.items()))
            raise ConfigError(
                f"backbone.{name}={value} is not what {self.init} was trained with; remove it, or backbone.init"
            )

    def _of_cpc(self) -> dict[str, Any]:
        """What is set of it."""
        return {name: getattr(self, name) for name, value in OF_CPC.items() if getattr(self, name) != value}

    def changed(self) -> list[str]:
        """Which settings ask for another model than timm's own, besides the stem."""
        names = (*VIT_ONLY, "drop_path")
        return [name for name in names if getattr(self, name) != type(self).__dataclass_fields__[name].default]

    def described(self) -> dict[str, Any]:
        """What an encoder's file has to say of its architecture; the other way round from `from_description`.

        A default that version 0.1 did not know is left out: the same weights stay the same bytes.
        """
        width = {"width": self.width} if self.name in OWN else {}  # nothing else has a width to choose
        more = {name: getattr(self, name) for name in DESCRIBED if name in self.changed()}
        split = {"split": self.split} if self.split != "none" else {}
        more |= self._of_cpc() | described_text(self) | described_layers(self.kept)
        return {"name": self.name, "stem": self.stem, **width, **split, **more}

    @classmethod
    def from_description(cls, values: Mapping[str, Any]) -> BackboneConfig:
        """Raises ConfigError, KeyError or TypeError for values that describe nothing: they may be a stranger's."""
        name, stem = values["name"], values["stem"]
        # version 0.1 wrote one beside every name
        width = values["width"] if name in OWN else TINY_WIDTH
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_.-]{1,100}", name):
            raise ConfigError(f"backbone: the name must be tiny or a timm model's, got {name!r:.60}")
        if stem not in get_args(Stem) or type(width) is not int:
            raise ConfigError(f"backbone: stem must be of {get_args(Stem)}, width a number, got {stem!r} and {width!r}")
        heads, positions = values.get("heads", 0), values.get("positions", "learned")
        scheme, split = values.get("init_scheme", "default"), values.get("split", "none")
        if split not in get_args(Split):
            raise ConfigError(f"backbone: split must be of {get_args(Split)}, got {split!r:.60}")
        if type(heads) is not int or positions not in get_args(Positions) or scheme not in get_args(InitScheme):
            raise ConfigError(
                f"backbone: heads must be a number, positions of {get_args(Positions)}, init_scheme of "
                f"{get_args(InitScheme)}, got {heads!r:.60}, {positions!r:.60} and {scheme!r:.60}"
            )
        cpc = {name: values.get(name, value) for name, value in OF_CPC.items()}
        wrong = [name for name, value in OF_CPC.items() if type(cpc[name]) is not type(value)]
        if wrong or cpc["norm"] not in get_args(Norm):
            raise ConfigError(
                f"backbone: norm must be of {get_args(Norm)}, patches, stages and context numbers, got {cpc!r:.160}"
            )
        return cls(
            name=name,
            stem=stem,
            width=width,
            split=split,
            heads=heads,
            positions=positions,
            init_scheme=scheme,
            kept=layers_from(values),
            **cpc,
            **text_from(values),
        )
