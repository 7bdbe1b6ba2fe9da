"""The classifier of a fine-tuned run in a file of its own, beside the encoder: a linear layer and its classes."""

from __future__ import annotations

import json
from pathlib import Path

import safetensors
import safetensors.torch
from torch import nn

from stopgrad.contracts import CheckpointError, MissingInputError
from stopgrad.encoder.file import KEY

FORMAT = 1
NEEDED = "a finished run of `stopgrad finetune` has classifier.safetensors in its folder"


def classifier_bytes(classifier: nn.Linear, classes: tuple[str, ...]) -> bytes:
    """The file's content. classes: a name each output, escaped."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in sorted(classifier.state_dict().items())}
    described = json.dumps({"format": FORMAT, "classes": list(classes)}, sort_keys=True)
    return bytes(safetensors.torch.save(tensors, {KEY: described}))


def load_classifier(path: Path) -> tuple[nn.Linear, tuple[str, ...]]:
    """(features [B, D] -> logits [B, C], the C names). Raises MissingInputError or CheckpointError."""
    if not path.is_file():
        raise MissingInputError(f"{path}: no classifier there; {NEEDED}")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            described = json.loads((file.metadata() or {})[KEY])
            weight, bias = file.get_tensor("weight"), file.get_tensor("bias")  # [C, D], [C]
        classes = described["classes"]
        named = isinstance(classes, list) and all(isinstance(name, str) for name in classes)
        if described["format"] != FORMAT or not named or weight.ndim != 2 or weight.shape[:1] != bias.shape:
            raise ValueError("no linear layer with names for its outputs")
        if len(classes) != len(weight):
            raise ValueError(f"{len(classes)} names for {len(weight)} outputs")
    except (safetensors.SafetensorError, OSError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: no classifier of stopgrad ({error}); {NEEDED}") from error
    classifier = nn.Linear(weight.shape[1], weight.shape[0])
    classifier.load_state_dict({"weight": weight, "bias": bias})
    return classifier, tuple(classes)
