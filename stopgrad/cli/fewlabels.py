"""`stopgrad fewlabels`: accuracy against the number of labels, from scratch, probed, fine-tuned and distilled."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter


def fewlabels(
    *runs: Annotated[str, Parameter(help="a finished run of any method for all seeds, or one a seed")],
    labels: Annotated[str, Parameter(help="amounts, with commas between them: 1%, 10%, 5-per-class")] = "1%,10%,100%",
    minutes: Annotated[float | None, Parameter(help="of training, a run")] = None,
    epochs: Annotated[int | None, Parameter(help="a run, instead of minutes")] = None,
    seeds: Annotated[int, Parameter(help="of each; also say which images' labels are known")] = 3,
    data: Annotated[str | None, Parameter(help="images, as train takes them; the run's own by default")] = None,
    student: Annotated[
        Literal["run", "scratch"], Parameter(help="what it begins from: the pre-trained weights, or random ones")
    ] = "run",
    from_projector_layer: Annotated[int | None, Parameter(help="as finetune's")] = None,
    out: Annotated[Path | None, Parameter(help="the study's folder; default runs/fewlabels-RUN")] = None,
    settings: Annotated[
        tuple[str, ...],
        Parameter(name="--set", consume_multiple=True, negative="", help="any setting, for every run, as a.b=c"),
    ] = (),
) -> None:
    """Measure what a run is worth where labels are few: one table, and one chart of accuracy against labels.

    stopgrad fewlabels runs/NAME --minutes 1.5                   the same command goes on where it was stopped
    stopgrad fewlabels runs/A runs/B runs/C --minutes 1.5        another pre-training for each seed
    """
    from stopgrad.cli import printable
    from stopgrad.study.few_table import FewLabels
    from stopgrad.study.fewlabels import FewPlan
    from stopgrad.study.fewlabels import fewlabels as study
    from stopgrad.study.table import as_text

    found: FewLabels = study(
        FewPlan(
            runs=runs,
            labels=tuple(text.strip() for text in labels.split(",")),
            seeds=seeds,
            minutes=minutes,
            epochs=epochs,
            data=data,
            student=student,
            from_projector_layer=from_projector_layer,
            settings=settings,
        ),
        out,
    )
    print(as_text(found.table, shutil.get_terminal_size().columns))
    print()
    for line in found.caption:
        print(printable(line))
    page = ", fewlabels.html (the chart)" if (found.out / "fewlabels.html").exists() else ""
    print(f"\n{found.out}/: fewlabels.md, fewlabels.json{page}, recipes, and the runs")
