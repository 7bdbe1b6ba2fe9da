"""A run of seconds on the embedded data set, for tests: 180 images, `tiny` at width 8, everything short."""

from pathlib import Path
from typing import Any

from benchmarks.faults import runs
from benchmarks.faults.runs import go_on
from stopgrad.assemble import api
from stopgrad.assemble.train import Finished
from stopgrad.training.progress import Progress

SETTINGS = (*runs.SETTINGS, *runs.METHODS["simsiam"])
STEPS = runs.STEPS


def start(out: Path, name: str, *settings: str, **rest: Any) -> Finished:
    options = api.Options(settings=(*SETTINGS, *settings))
    return api.train("simsiam", out=out, name=name, options=options, progress=Progress(quiet=True), **rest)


__all__ = ["SETTINGS", "STEPS", "go_on", "start"]
