"""Which settings of a backbone belong to text, and what they have to be. No torch here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from stopgrad.contracts import ConfigError, MissingInputError

if TYPE_CHECKING:
    from stopgrad.nn.config import BackboneConfig

Pool = Literal["mean", "end"]
OWN_TEXTS = ("text_transformer", "text_gru")  # ours, of token ids: nn/text.py
HF = "hf"  # a Hugging Face encoder, whose architecture is in `backbone.architecture`: nn/hugging_face.py
HUGGING_FACE = "hf:"  # of --backbone and of backbone.init: the folder of a model follows
TEXTS = (*OWN_TEXTS, HF)
# Described in an encoder's file; with their defaults.
OF_TEXT: dict[str, Any] = {"layers": 2, "pool": "mean", "causal": False, "architecture": ""}
MOST_LAYERS = 64
LARGEST_ARCHITECTURE = 100_000  # characters of a config.json
LARGEST_NUMBER = 1 << 20  # in it: of a width, a vocabulary, a length
# What a training run left in a config.json, and what says where it came from: no part of the architecture.
LEFT_OUT = ("_name_or_path", "transformers_version", "torch_dtype", "dtype", "architectures", "auto_map")
# What says how deep it is, by the names that models have for it.
DEPTHS = ("num_hidden_layers", "n_layers", "n_layer", "num_layers", "encoder_layers")


def check_text(config: BackboneConfig) -> None:
    """Raises ConfigError for a setting of text where nothing reads it, and for one that text does not read."""
    readers = {"layers": OWN_TEXTS, "pool": TEXTS, "causal": ("text_transformer",), "architecture": (HF,)}
    for name, who in readers.items():
        value = getattr(config, name)
        if value != OF_TEXT[name] and config.name not in who:
            raise ConfigError(
                f"backbone.{name}={value!r:.60} is read by {', '.join(who)}, the backbone is {config.name}; remove it"
            )
    if not 1 <= config.layers <= MOST_LAYERS:
        raise ConfigError(f"backbone.layers must be 1 to {MOST_LAYERS}, got {config.layers}; 2 are enough for captions")
    if config.pool not in get_args(Pool):
        raise ConfigError(f"backbone.pool must be mean or end, got {config.pool!r}; use mean")
    if config.name not in TEXTS:
        return
    for name in ("norm", "patches", "stages", "context", "stem", "split"):
        value = getattr(config, name)
        if value != type(config).__dataclass_fields__[name].default:
            raise ConfigError(f"backbone.{name}={value} is not read by {config.name}; remove it")
    if config.name == "text_transformer" and config.heads and config.width % config.heads:
        raise ConfigError(
            f"backbone.heads={config.heads} must divide backbone.width={config.width}; use {heads_for(config.width)}"
        )
    if config.name == HF:
        read_architecture(config.architecture)


def described_text(config: BackboneConfig) -> dict[str, Any]:
    """What an encoder's file says of it; a default is left out."""
    return {name: getattr(config, name) for name, value in OF_TEXT.items() if getattr(config, name) != value}


def text_from(values: Mapping[str, Any]) -> dict[str, Any]:
    """The other way round. Raises ConfigError for other types: they may be a stranger's."""
    found = {name: values.get(name, value) for name, value in OF_TEXT.items()}
    if any(type(found[name]) is not type(value) for name, value in OF_TEXT.items()):
        raise ConfigError(
            f"backbone: layers must be a number, pool and architecture words, causal true or false, got {found!r:.160}"
        )
    return found


def heads_for(width: int) -> int:
    """Heads of 32 channels or a little more: the largest number of them that divides the width."""
    return next(heads for heads in range(max(1, width // 32), 0, -1) if width % heads == 0)


def read_architecture(text: str) -> dict[str, Any]:
    """A model's config.json as plain values. Raises ConfigError where it is none, or asks for code or huge sizes."""
    if not text:
        raise ConfigError("backbone.name=hf needs the folder of the model; type --backbone hf:/folder")
    try:
        values = json.loads(text) if len(text) <= LARGEST_ARCHITECTURE else None
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict) or not isinstance(values.get("model_type"), str):
        raise ConfigError(f"backbone.architecture: {text!r:.60} is no config.json of a Hugging Face model")
    if "auto_map" in values:
        raise ConfigError("backbone.architecture: this model brings code of its own (auto_map), which is never run")
    for name, value in values.items():
        most = 4 * MOST_LAYERS if name in DEPTHS else LARGEST_NUMBER
        if isinstance(value, int) and value > most:
            raise ConfigError(f"backbone.architecture: {name:.60} must be {most:,} or less, got {value:,}")
    return values


def architecture_of(folder: Path) -> str:
    """What `backbone.architecture` says of the model in `folder`. Raises MissingInputError."""
    path = folder / "config.json"
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise MissingInputError(
            f"--backbone {HUGGING_FACE}{folder}: no config.json that can be read ({error}); needed is a folder that "
            "transformers' save_pretrained wrote"
        ) from error
    if len(text) > LARGEST_ARCHITECTURE:
        raise ConfigError(f"{path}: {len(text):,} characters are no config.json")
    values = read_architecture(text)
    return json.dumps({name: value for name, value in values.items() if name not in LEFT_OUT}, sort_keys=True)
