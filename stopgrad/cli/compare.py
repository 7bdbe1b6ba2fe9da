"""`stopgrad compare`: train methods with the same budget, or set finished runs side by side."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

if TYPE_CHECKING:
    from stopgrad.study.comparison import Comparison

SEEDS = 3


def compare(
    *runs: Annotated[Path, Parameter(help="finished run folders, to set side by side; nothing is trained then")],
    data: Annotated[str | None, Parameter(help="images, as train takes them; the preset's own by default")] = None,
    minutes: Annotated[float | None, Parameter(help="of training, a run")] = None,
    epochs: Annotated[int | None, Parameter(help="a run, instead of minutes")] = None,
    seeds: Annotated[int | None, Parameter(help=f"runs of each method, seeds 0, 1, ...; {SEEDS} by default")] = None,
    methods: Annotated[str | None, Parameter(help="names, with commas between them; all by default")] = None,
    recipe: Annotated[str | None, Parameter(help="METHOD/RECIPE is the preset; scenes by default")] = None,
    backbone: Annotated[str | None, Parameter(help="tiny, or any timm model, for every method")] = None,
    views: Annotated[
        Literal["equal", "own"] | None,
        Parameter(help="equal, the default: SimSiam's two crops for every method; own: each preset's"),
    ] = None,
    out: Annotated[Path | None, Parameter(help="the comparison's folder; default runs/compare-DATA")] = None,
    settings: Annotated[
        tuple[str, ...],
        Parameter(name="--set", consume_multiple=True, negative="", help="any setting, for every method, as a.b=c"),
    ] = (),
    output: Annotated[
        Path | None, Parameter(name=["--output", "-o"], help="of finished runs: also write it, to this .md or .json")
    ] = None,
) -> None:
    """Train every method alike, with the same budget, into one table; or set finished runs side by side.

    stopgrad compare --data scenes-v1 --minutes 1.5 --seeds 3    the same command goes on where it was stopped
    stopgrad compare --data DIR --epochs 20 --methods simsiam,byol
    stopgrad compare runs/A runs/B -o both.md
    """
    from stopgrad.contracts import ConfigError

    training = {
        "--data": data,
        "--minutes": minutes,
        "--epochs": epochs,
        "--seeds": seeds,
        "--methods": methods,
        "--recipe": recipe,
        "--backbone": backbone,
        "--views": views,
        "--out": out,
        "--set": settings or None,
    }
    if runs:
        if given := [name for name, value in training.items() if value is not None]:
            raise ConfigError(
                f"compare: {given[0]} is for training, and {len(runs)} runs are named, which are compared as they are; "
                "leave out the one or the other"
            )
        _finished(runs, output)
        return
    if all(value is None for value in training.values()):
        raise ConfigError(
            "compare: nothing to compare; `stopgrad compare --minutes 1.5` trains every method, "
            "`stopgrad compare RUN RUN` sets finished runs side by side"
        )
    if output is not None:
        raise ConfigError("--output is for finished runs; --out names the folder, which gets compare.md and .json")
    from stopgrad.study.compare import compare as train_all
    from stopgrad.study.plan import Plan

    plan = Plan(
        methods=() if methods is None else tuple(name.strip() for name in methods.split(",")),
        seeds=SEEDS if seeds is None else seeds,
        minutes=minutes,
        epochs=epochs,
        recipe=recipe or "scenes",
        data=data,
        backbone=backbone,
        views=views or "equal",
        settings=settings,
    )
    _print(train_all(plan, out))


def _print(found: Comparison) -> None:
    from stopgrad.cli import printable
    from stopgrad.study.table import as_text

    print(as_text(found.table, shutil.get_terminal_size().columns))
    print()
    for line in found.caption:
        print(printable(line))
    print(f"\n{found.out}/: compare.md, compare.json, recipes, and the runs")


def _finished(runs: tuple[Path, ...], output: Path | None) -> None:
    from stopgrad.assemble.tables import check_output
    from stopgrad.rundir import write_bytes
    from stopgrad.study.side_by_side import side_by_side

    if output is not None:
        check_output(output, (".md", ".json"))
    found = side_by_side(runs)
    print(found.text(shutil.get_terminal_size().columns))
    if output is not None:
        write_bytes(output, found.json() if output.suffix == ".json" else found.markdown().encode())
        print(f"\n{output}: the same as a file")
