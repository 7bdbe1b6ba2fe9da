"""`stopgrad study`: a paper's table, run here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from stopgrad.cli.images import Settings

LIST, ALL = "list", "all"


def study(
    name: Annotated[str, Parameter(help="PAPER/WHAT, list, or all, one after the other")] = LIST,
    /,
    *,
    data: Annotated[str | None, Parameter(help="any source that train takes; the preset's by default")] = None,
    recipe: Annotated[str, Parameter(help="METHOD/RECIPE is the preset; by default the scale's")] = "",
    scale: Annotated[
        Literal["tiny", "small", "paper"],
        Parameter(help="tiny: scenes, about a minute a run; small: CIFAR-10; paper: ImageNet; the last two need GPUs"),
    ] = "tiny",
    seeds: Annotated[int | None, Parameter(help="by default 3 for what a paper calls decisive, else 1")] = None,
    out: Annotated[Path, Parameter(help="where the runs go")] = Path("runs/studies"),
    pages: Annotated[
        Path | None, Parameter(help="where the page goes, and what is kept of each run; default OUT/pages")
    ] = None,
    settings: Settings = (),
) -> None:
    """Run a paper's study and set its numbers beside the paper's; go on with one that was stopped.

    stopgrad study list                            what there is, its source and its cost
    stopgrad study simsiam/stop-gradient           two rows, three seeds: what collapse looks like
    stopgrad study byol/momentum --seeds 3 --data DIR
    stopgrad study all --pages docs/studies        in the order of the list; hours
    """
    from stopgrad.contracts import ConfigError
    from stopgrad.study.lab.conduct import Asked, compose, conduct, gather, study_named
    from stopgrad.study.lab.page import write_index, write_page
    from stopgrad.study.papers import STUDIES

    if name == LIST:
        print_list()
        return
    if seeds is not None and seeds < 1:
        raise ConfigError(f"--seeds must be 1 or more, got {seeds}")
    chosen = STUDIES.values() if name == ALL else [study_named(name, STUDIES)]
    asked = [
        Asked(study=one, scale=scale, data=data, recipe=recipe, seeds=seeds or 0, settings=tuple(settings))
        for one in chosen
    ]
    for one in asked:
        page = conduct(one, write_page, out=out, pages=pages)
    if name == ALL:
        kept = pages or out / "pages"
        page = write_index([gather(one, compose(one), kept) for one in asked], kept)
    print(page.read_text(), end="")
    print(f"\n{page}" + (", and beside it .csv, .tex and .svg" if name != ALL else ""))


def print_list() -> None:
    from stopgrad.study.papers import STUDIES

    rows = [("study", "runs", "source")]
    rows += [
        (
            study.name,
            str(sum("tiny" in case.scales for case in study.cases) * study.seeds),
            study.source.split(";")[0].split(". ")[0],
        )
        for study in STUDIES.values()
    ]
    widths = [max(map(len, column)) for column in zip(*rows)]
    for name, runs, source in rows:
        print(f"{name.ljust(widths[0])}  {runs.rjust(widths[1])}  {source}")
    print("\nruns: at --scale tiny, about a minute each on two cores; runs that two studies share are made once.")
