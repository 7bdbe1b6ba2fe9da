"""stopgrad: learn representations without labels, and know whether the run is healthy.

    import stopgrad
    run = stopgrad.train("simsiam", data="~/photos", minutes=30)
    print(run.diagnosis.verdict, run.path)
    encoder = stopgrad.load(run.path)
    features = stopgrad.embed(encoder, "~/photos").features
    stopgrad.export(run.path, "encoder.onnx")
    rows = stopgrad.evaluate(run.path, data="~/photos")

Importing this does not import torch; using it does.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from stopgrad.version import __version__

if TYPE_CHECKING:
    from stopgrad.assemble.api import diagnose_run, evaluate, load, train
    from stopgrad.assemble.report import report
    from stopgrad.assemble.use import embed, export

__all__ = ["__version__", "diagnose_run", "embed", "evaluate", "export", "load", "report", "train"]

WHERE = {
    "embed": "stopgrad.assemble.use",
    "export": "stopgrad.assemble.use",
    "report": "stopgrad.assemble.report",
}  # of what is not in assemble/api.py


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module(WHERE.get(name, "stopgrad.assemble.api")), name)
    raise AttributeError(f"module 'stopgrad' has no attribute {name!r}")
