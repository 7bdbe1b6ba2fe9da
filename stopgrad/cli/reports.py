"""`stopgrad report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


def report(
    *runs: Annotated[Path, Parameter(help="run folders, finished or not; several are set side by side")],
    output: Annotated[
        Path | None,
        Parameter(name=["--output", "-o"], help="the file; default RUN/report.html, of several runs ./report.html"),
    ] = None,
) -> None:
    """Write one HTML page that a person can read: verdict, scores, curves, pictures, recipe, cost.

    stopgrad report runs/NAME
    stopgrad report runs/A runs/B -o both.html
    """
    from stopgrad.assemble.report import report as write
    from stopgrad.training.progress import Progress

    progress = Progress()
    try:
        path = write(runs, output, progress=progress)
    finally:
        progress.close()
    print(f"{path}: open it in a browser; it needs no network")
