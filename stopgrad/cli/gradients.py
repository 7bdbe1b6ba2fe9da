"""`stopgrad gradients`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


def gradients(
    *runs: Annotated[Path, Parameter(help="runs that were trained with --set watch.gradients=true")],
    output: Annotated[Path, Parameter(name=["--output", "-o"], help="the drawing, an .svg")] = Path("gradients.svg"),
) -> None:
    """Draw how the gradient that reaches the embeddings parts into pull and push over a run; several side by side.

    stopgrad train simclr --set watch.gradients=true
    stopgrad gradients runs/simclr-scenes runs/simsiam-scenes
    """
    from stopgrad.study.reached import gradients as draw

    rows, drawing = draw(runs, output)
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
    print(f"\n{drawing}: over the run; pull and push are means over images of the sum's gradient by unit embeddings")
