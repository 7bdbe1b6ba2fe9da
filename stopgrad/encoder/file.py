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
from stopgrad.nn.text import check_shapes
from stopgrad.nn.text_config import TEXTS
from stopgrad.nn.with_kept import widths_in
from stopgrad.rundir import write_bytes
from stopgrad.views.sensors import widths

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
        taken = medium_of(self.preprocess).input(self.preprocess)
        return build_backbone(self.config, *taken, seed, widths(self.preprocess))

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
        channels, size = medium_of(preprocess).input(preprocess)
        sensors = widths(preprocess)
        of_first = sensors[0] if sensors and config.split.startswith("sensors") else channels
        first, said = "stem.weight", (config.width, of_first)
        if config.split.endswith("lab"):  # the half that sees lightness
            first, said = "luminance.stem.weight", (config.width // 2, 1)
        if config.split.startswith("sensors"):
            first = f"towers.0.{first}"
        if config.patches:
            first = f"encoder.{first}"
        if config.kept:
            first = f"trunk.{first}"
            if (there := widths_in(tensors)) != (layers := [layer.width for layer in config.kept]):
                raise ConfigError(f"widths of the kept layers are {layers}, of weights {there}")
        if config.name == "tiny" and (found := tensors[first].shape[:2]) != said:
            raise ConfigError(f"width and channels are {said[0]} and {said[1]}, of weights {tuple(found)}")
        if config.name in TEXTS:
            shapes = {name.removeprefix("trunk."): tuple(tensor.shape) for name, tensor in tensors.items()}
            check_shapes(config, *medium_of(preprocess).input(preprocess), shapes)
        backbone = build_backbone(config, channels, size, 0, sensors)
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
