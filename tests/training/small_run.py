"""A run of seconds on the embedded data set, for tests: 180 images, `tiny` at width 8, everything short."""

from pathlib import Path
from typing import Any

from stopgrad.assemble import api
from stopgrad.assemble.train import Finished
from stopgrad.training.progress import Progress

SETTINGS = (
    "data.limit=200",
    "backbone.width=8",
    "method.projector={layers: 2, hidden: 16, dim: 16}",
    "method.predictor_hidden=4",
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


def start(out: Path, name: str, *settings: str, **rest: Any) -> Finished:
    options = api.Options(settings=(*SETTINGS, *settings))
    return api.train("simsiam", out=out, name=name, options=options, progress=Progress(quiet=True), **rest)


def go_on(path: Path) -> Finished:
    return api.resume(path, progress=Progress(quiet=True))
