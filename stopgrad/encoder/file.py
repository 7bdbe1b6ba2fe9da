"""The encoder file: backbone and preprocessing in one safetensors file, the same bytes for the same weights.

No name, path or time stands inside. Loading reads tensors and checked settings, never code.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from stopgrad.contracts import CheckpointError, ConfigError, MissingInputError
from stopgrad.media import AnyPreprocess, medium_of, preprocess_from_dict
from stopgrad.nn.backbones import build_backbone, of_one_size
from stopgrad.nn.config import BackboneConfig
from stopgrad.rundir import write_bytes

FORMAT = 1
KEY = "stopgrad"  # of the metadata, in every format


@dataclass(frozen=True)
class Encoder:
    """A trained backbone with what it wants its images turned into. Call it with [B, C, S, S] that is preprocessed."""

    backbone: nn.Module
    preprocess: AnyPreprocess
    config: BackboneConfig

    @property
    def depth(self) -> int:
        """Bits of a pixel it was trained on: 8 or 16."""
        return self.preprocess.depth

    @property
    def dim(self) -> int:
        return int(self.backbone.dim)  # type: ignore[arg-type]

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:  # [B, C, S, S] -> [B, dim], float32
        self.backbone.eval()
        out: Tensor = self.backbone(x)
        return out.float()

    def fresh(self, seed: int) -> nn.Module:
        """The same architecture, randomly initialised: the baseline to be beaten."""
        return build_backbone(self.config, *medium_of(self.preprocess).input(self.preprocess), seed)

    def of_one_size(self) -> Encoder:
        """The same function of images of `preprocess.image_size` alone: what a graph is exported from."""
        return replace(self, backbone=of_one_size(self.backbone, self.config.name))


def save_encoder(path: Path, backbone: nn.Module, config: BackboneConfig, preprocess: AnyPreprocess) -> None:
    """Write the encoder whole or not at all."""
    write_bytes(path, encoder_bytes(Encoder(backbone, preprocess, config)))


def encoder_bytes(encoder: Encoder) -> bytes:
    """The file's content. Tensors have the names the backbone gives them: timm's own for a timm model."""
    state = encoder.backbone.state_dict()
    tensors = {name: value.detach().cpu().contiguous() for name, value in sorted(state.items())}
    return bytes(safetensors.torch.save(tensors, {KEY: description(encoder)}))


def description(encoder: Encoder) -> str:
    """What stands beside the weights in every format, as JSON: architecture and preprocessing."""
    described: dict[str, Any] = {
        "format": FORMAT,
        "backbone": encoder.config.described(),
        "preprocess": encoder.preprocess.as_dict(),
    }
    return json.dumps(described, sort_keys=True)


def load_encoder(path: Path) -> Encoder:
    """The encoder of a .safetensors file. Raises MissingInputError or CheckpointError."""
    if not path.is_file():
        raise MissingInputError(f"{path}: no such encoder; a finished run has encoder.safetensors in its folder")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            described = _described(path, file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dict
    except (safetensors.SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: damaged or not a safetensors file ({error})") from error
    try:
        config = BackboneConfig.from_description(described["backbone"])
        preprocess = preprocess_from_dict(described["preprocess"])
        # before anything is made of that size: a few bytes could ask for all memory there is
        if config.name == "tiny" and (found := tensors["stem.weight"].shape[:2]) != (config.width, preprocess.channels):
            raise ConfigError(f"width and channels are {config.width} and {preprocess.channels}, of weights {found}")
        backbone = build_backbone(config, *medium_of(preprocess).input(preprocess), seed=0)
        backbone.load_state_dict(tensors)
    except (ConfigError, KeyError, TypeError, AttributeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path}: weights and description do not fit ({str(error).splitlines()[0]})") from error
    return Encoder(backbone.eval(), preprocess, config)


def _described(path: Path, metadata: dict[str, str]) -> dict[str, Any]:
    try:
        found = json.loads(metadata[KEY])
        if found["format"] == FORMAT:
            return dict(found)
    except (KeyError, ValueError, TypeError, RecursionError):
        found = {}
    raise CheckpointError(
        f"{path}: no encoder of stopgrad (format {found.get('format') if isinstance(found, dict) else None}, "
        f"this version reads {FORMAT}); use encoder.safetensors of a finished run"
    )
