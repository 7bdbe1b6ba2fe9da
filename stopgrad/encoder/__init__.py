"""The encoder outside a run: backbone and preprocessing in a file, checked before anybody relies on it.

`file` writes and reads encoder.safetensors, `pixels` puts the normalisation in front of the backbone, `graph` writes
ONNX, `program` a torch.export program, `alone` reads them where stopgrad is absent, `export` does one after the other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stopgrad.lazy import later

if TYPE_CHECKING:
    from stopgrad.encoder.export import Exported, export_encoder
    from stopgrad.encoder.file import Encoder, load_encoder, save_encoder

__all__ = ["Encoder", "Exported", "export_encoder", "load_encoder", "save_encoder"]

__getattr__ = later(
    __name__,
    {
        "Encoder": "file",
        "load_encoder": "file",
        "save_encoder": "file",
        "Exported": "export",
        "export_encoder": "export",
    },
)
