"""The encoder outside a run: backbone and preprocessing in a file, checked before anybody relies on it.

`file` writes and reads encoder.safetensors, `pixels` puts the normalisation in front of the backbone, `graph` writes
ONNX, `program` a torch.export program, `alone` reads them where stopgrad is absent, `export` does one after the other.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stopgrad.encoder.export import Exported, export_encoder
    from stopgrad.encoder.file import Encoder, load_encoder, save_encoder

__all__ = ["Encoder", "Exported", "export_encoder", "load_encoder", "save_encoder"]

_PLACES = {
    "Encoder": "file",
    "load_encoder": "file",
    "save_encoder": "file",
    "Exported": "export",
    "export_encoder": "export",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
