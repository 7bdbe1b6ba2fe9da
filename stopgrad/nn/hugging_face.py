"""An encoder of Hugging Face's transformers (extra `transformers`) as a backbone of text, from a folder on the disk.

The architecture is built from its config.json by classes of the library alone; the weights come from safetensors. No
code of a model is ever run, no pickle is read, and nothing is looked for on a network.

Token 0 fills up everywhere in stopgrad. Where the model fills up with another, the two are exchanged in front of it, as
the tokenizer's are behind it (`views.tokens`).
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stopgrad.contracts import ConfigError, MissingInputError
from stopgrad.nn.config import BackboneConfig
from stopgrad.nn.sequence import NO_TOKEN
from stopgrad.nn.text import pooled, tokens_there
from stopgrad.nn.text_config import Pool, read_architecture

WEIGHTS = "model.safetensors"


class HuggingFaceEncoder(nn.Module):
    """Token ids [B, L] -> [B, dim]: the last hidden states, pooled as `nn.text` does."""

    def __init__(self, model: nn.Module, dim: int, padding: int, pool: Pool) -> None:
        super().__init__()
        self.model, self.dim, self.padding, self.pool = model, dim, padding, pool

    def forward(self, ids: Tensor) -> Tensor:
        there = tokens_there(ids)
        theirs = ids
        if self.padding != NO_TOKEN:
            theirs = torch.where(ids == NO_TOKEN, self.padding, torch.where(ids == self.padding, NO_TOKEN, ids))
        out = self.model(input_ids=theirs, attention_mask=there.long())
        return pooled(out.last_hidden_state, there, self.pool)


def hugging_face_trunk(config: BackboneConfig, vocabulary: int, length: int) -> HuggingFaceEncoder:
    """Untrained, from `config.architecture`. Raises ConfigError for one that is no encoder of text, or too small."""
    transformers = _transformers()
    values = read_architecture(config.architecture)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            described = transformers.AutoConfig.for_model(values.pop("model_type"), **values)
            described.use_cache = False
            model: nn.Module = transformers.AutoModel.from_config(described, trust_remote_code=False)
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise ConfigError(f"backbone.architecture: transformers can't build it ({reason})") from error
    if getattr(described, "is_encoder_decoder", False):
        raise ConfigError(
            f"backbone.architecture: {described.model_type} has an encoder and a decoder; an encoder alone is needed, "
            "such as BERT's"
        )
    rows, places = getattr(described, "vocab_size", 0), getattr(described, "max_position_embeddings", length)
    if rows < vocabulary:
        raise ConfigError(
            f"backbone.architecture: the model knows {rows:,} tokens, the tokenizer makes {vocabulary:,}; use the "
            "model's own: --set views.tokenizer=/folder/tokenizer.json"
        )
    padding = described.pad_token_id if isinstance(getattr(described, "pad_token_id", None), int) else NO_TOKEN
    if places < length + padding * (padding != NO_TOKEN):  # RoBERTa counts its places from behind the padding token
        raise ConfigError(
            f"backbone.architecture: the model takes {places} tokens, views.length is {length}; type --set "
            f"views.length={max(2, min(places - 2 - padding, 128))}"
        )
    return HuggingFaceEncoder(model, int(described.hidden_size), padding, config.pool)


def pretrained_trunk(config: BackboneConfig, vocabulary: int, length: int, folder: Path) -> HuggingFaceEncoder:
    """As `hugging_face_trunk`, with the weights of `folder`; global random state untouched."""
    with torch.random.fork_rng(devices=[]):
        trunk = hugging_face_trunk(config, vocabulary, length)
    load_weights(trunk, folder)
    return trunk


def load_weights(trunk: HuggingFaceEncoder, folder: Path) -> None:
    """Puts the weights of model.safetensors in `folder` into the trunk. Raises MissingInputError, ConfigError."""
    import safetensors.torch

    path = folder / WEIGHTS
    if not path.is_file():
        others = sorted(file.name for file in folder.glob("*.bin")) if folder.is_dir() else []
        instead = f"; {others[0]} is a pickle, which can run code and is not read" if others else ""
        raise MissingInputError(f"{path}: no such weights{instead}; save the model with save_pretrained")
    try:
        found = safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, OSError) as error:
        raise ConfigError(f"{path}: damaged or not a safetensors file ({error})") from error
    own = trunk.model.state_dict()
    prefix = f"{getattr(trunk.model, 'base_model_prefix', '')}."
    named = {name.removeprefix(prefix): value for name, value in found.items()}
    # a pooler on top of the states is used by nobody here, and some files have none
    missing = [name for name in own if name not in named and not name.startswith("pooler.")]
    wrong = [name for name in own if name in named and named[name].shape != own[name].shape]
    if missing or wrong:
        which = f"no {missing[0]}" if missing else f"{wrong[0]} of another shape"
        raise ConfigError(f"{path}: its weights do not fit its config.json ({which})")
    trunk.model.load_state_dict({name: named.get(name, value) for name, value in own.items()})


def _transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise ConfigError(
            "a Hugging Face encoder needs the package transformers: pip install 'stopgrad[transformers]'"
        ) from error
    return transformers
