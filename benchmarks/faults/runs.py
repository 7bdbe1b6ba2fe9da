"""Runs of seconds, a method each with its own memories, and what is compared of two of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from stopgrad.assemble import api
from stopgrad.assemble.train import Finished
from stopgrad.rundir import MEASURED_FIELDS, RunDir
from stopgrad.training.progress import Progress

SETTINGS = (
    "data.limit=200",
    "backbone.width=8",
    "loop.batch_size=30",
    "loop.epochs=8",
    "loop.threads=1",
    "loop.view_threads=1",
    "loop.precision=float32",
    "loop.log_every_steps=5",
    "loop.checkpoint_every_steps=5",
    "watch={every_steps: 10, images: 20, knn_every_steps: 20, knn_bank: 60}",
    "eval={k: [5], linear: none, random_seeds: 1, retrieval_images: 16, batch_size: 64}",
)
STEPS = 48  # 8 epochs of 6
SMALL = "method.projector={layers: 2, hidden: 16, dim: 16}"
# What each remembers beside weights is in brackets.
METHODS: dict[str, tuple[str, ...]] = {
    "simsiam": (SMALL, "method.predictor_hidden=4"),
    "moco_v2": (SMALL, "method.queue_size=90", "method.bn_splits=2"),  # (queue, slow copy)
    "swav": (SMALL, "method.prototypes=8", "method.queue_size=90", "method.queue_from_epoch=1"),  # (prototypes, queue)
    "dino": ("method.projector={layers: 2, hidden: 16, dim: 16, norm: batch}", "method.prototypes=16"),  # (centre)
    "unigrad": (SMALL,),  # (F, slow copy)
    "instdisc": ("method.projector={layers: 1, dim: 16}", "method.negatives=16"),  # (bank)
    "cpc": ("method.context=8", "method.drawn=5"),
}
MEASURED_RESULTS = {"images_per_second", "peak_memory_mb"}


def start(out: Path, name: str, method: str, *settings: str) -> Finished:
    options = api.Options(settings=(*SETTINGS, *METHODS[method], *settings))
    return api.train(f"{method}/scenes", out=out, name=name, options=options, progress=Progress(quiet=True))


def go_on(path: Path) -> Finished:
    return api.resume(path, progress=Progress(quiet=True))


def comparable(path: Path) -> dict[str, Any]:
    """Everything a run leaves but what measures time or memory."""
    run = RunDir(path)
    log = [{k: v for k, v in line.items() if k not in MEASURED_FIELDS} for line in run.read_log()]
    results = [row for row in json.loads(run.results.read_text()) if row["name"] not in MEASURED_RESULTS]
    newest = max(run.checkpoints.glob("*.ckpt"))
    state = torch.load(newest, weights_only=True)
    del state["log_length"]  # bytes of the log, whose times have more or fewer digits
    return {
        "encoder": run.encoder.read_bytes(),
        "log": log,
        "results": results,
        "newest": [newest.name, *flat(state)],
        "state": run.state(),
    }


def flat(value: Any) -> list[Any]:
    """A checkpoint as a list that compares to the bit; its file may lay the same tensors out in another order."""
    if isinstance(value, dict):
        return [item for key in sorted(value, key=str) for item in (key, *flat(value[key]))]
    if isinstance(value, list | tuple):
        return [item for inner in value for item in flat(inner)]
    if isinstance(value, torch.Tensor):
        return [str(value.dtype), tuple(value.shape), value.numpy().tobytes()]
    return [value]


def differing(path: Path, whole: Path) -> list[str]:
    """What of a run is not as in the run that nobody disturbed."""
    if not (path / "results.json").exists():
        return ["never finished"]
    one, other = comparable(path), comparable(whole)
    left = ["left *.tmp behind"] if list(path.rglob("*.tmp")) else []
    return [part for part in other if one[part] != other[part]] + left
