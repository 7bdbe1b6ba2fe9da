"""ONNX: the backbone with its normalisation in one graph, the same bytes for the same weights.

What the exporter notes about where a node came from (file paths, line numbers, class names) is removed.
"""

from __future__ import annotations

import logging
import warnings
from typing import Any

import torch

from stopgrad.contracts import ConfigError
from stopgrad.encoder.entrance import entrance
from stopgrad.encoder.file import KEY, Encoder, description

OUTPUT = "features"
LARGEST = 1_900_000_000  # bytes of weights; a protobuf message ends at 2 GiB


def onnx_bytes(encoder: Encoder) -> bytes:
    """The file's content: pixels [batch, C, S, S], or what else `entrance` says -> features [batch, dim], any batch.

    Raises ConfigError.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401  # torch's exporter needs it
    except ImportError as error:
        raise ConfigError(f"export to .onnx needs {error.name}: pip install 'stopgrad[onnx]'") from error
    size = sum(value.numel() * value.element_size() for value in encoder.backbone.state_dict().values())
    if size > LARGEST:
        raise ConfigError(f"export: {size / 1e9:.1f} GB of weights do not fit one ONNX file (2 GB); use .safetensors")
    into = entrance(encoder.of_one_size())
    with warnings.catch_warnings(), _quiet("torch.onnx", "onnxscript", "onnx_ir"):
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            into.model.eval(),
            (into.example(),),
            dynamo=True,
            verbose=False,
            input_names=[into.name],
            output_names=[OUTPUT],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
        )
    assert program is not None
    model = program.model_proto
    _without_origin(model)
    about = {
        KEY: description(encoder),
        "input": into.about,
    }
    onnx.helper.set_model_props(model, about)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))


def _without_origin(model: Any) -> None:
    """Clear every note on nodes, values, graphs and functions, and who produced it when."""
    for field in ("producer_name", "producer_version", "doc_string", "metadata_props"):
        model.ClearField(field)
    for graph in (model.graph, *model.functions):
        graph.ClearField("doc_string")
        graph.ClearField("metadata_props")
        for values in ("node", "input", "output", "value_info", "initializer"):
            for one in getattr(graph, values, ()):
                if hasattr(one, "metadata_props"):
                    one.ClearField("metadata_props")
                    one.ClearField("doc_string")


class _quiet:
    """Loggers that tell a user nothing to act on are silent while the `with` lasts."""

    def __init__(self, *names: str) -> None:
        self.loggers = [logging.getLogger(name) for name in names]

    def __enter__(self) -> None:
        self.levels = [logger.level for logger in self.loggers]
        for logger in self.loggers:
            logger.setLevel(logging.ERROR)

    def __exit__(self, *_: object) -> None:
        for logger, level in zip(self.loggers, self.levels):
            logger.setLevel(level)
