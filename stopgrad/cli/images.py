"""The commands that look at images before anything is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

View = Annotated[
    Literal["image", "audio", "text"] | None,
    Parameter(help="what the data is; text for sentences (a .csv, .tsv or .jsonl is taken for them without)"),
]
Settings = Annotated[
    tuple[str, ...],
    Parameter(name="--set", consume_multiple=True, negative="", help="any setting, as a.b=c; may be repeated"),
]


def check(
    source: Annotated[str, Parameter(help="images: whatever --data of train takes")],
    /,
    *,
    method: Annotated[str, Parameter(help="METHOD[/PRESET] or a recipe file: the run to prepare")] = "simsiam",
    view: View = None,
    minutes: Annotated[float, Parameter(help="how long it may train; 0: as long as its settings say")] = 0.0,
    duplicates: Annotated[Path | None, Parameter(name=["--duplicates", "-o"], help="all groups, as CSV")] = None,
    json: Annotated[Path | None, Parameter(help="everything that was found, for machines")] = None,
    time: Annotated[bool, Parameter(help="rehearse some steps, for the time and memory of the run")] = True,
    settings: Settings = (),
) -> None:
    """Look at images before training: what is there, what would be done, what it costs.

    Exit code 65 where no run could start, 74 where the disk is the reason. Images are decoded once and kept, so the run
    after it starts at once.
    """
    from stopgrad.assemble import api
    from stopgrad.assemble.preflight import check as look
    from stopgrad.cli import printable
    from stopgrad.rundir import as_json, write_bytes

    _check_minutes(minutes)
    options = api.Options(view=view, settings=settings)
    found = look(source, method=method, minutes=minutes, options=options, timed=time)
    for title, lines in found.sections:
        width = max((len(name) for name, _ in lines), default=0)
        print(f"\n{title}")
        for name, value in lines:
            print(printable(f"  {name.ljust(width)}  {value}" if width else f"  {value}"))
    if duplicates is not None:
        write_bytes(duplicates, _as_csv(found.groups))
        print(f"\n{duplicates}: {len(found.groups):,} group{'s' * (len(found.groups) != 1)} of duplicates")
    if json is not None:
        write_bytes(json, as_json({**found.facts, "problem": found.problem}))
    if found.error is not None:
        raise found.error
    print("\nA run can start.")


def _check_minutes(minutes: float) -> None:
    from stopgrad.contracts import ConfigError

    if not 0 <= minutes < 1e6:
        raise ConfigError(f"--minutes must be 0 or more, got {minutes}")


def _as_csv(groups: list[tuple[str, list[str]]]) -> bytes:
    """group, kind, path (escaped): a line an image."""
    import csv
    import io

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["group", "kind", "path"])
    for number, (kind, names) in enumerate(groups, 1):
        writer.writerows((number, kind, name) for name in names)
    return text.getvalue().encode("utf-8")


def views(
    method: Annotated[str, Parameter(help="METHOD[/PRESET] or a recipe file")],
    /,
    *,
    data: Annotated[str | None, Parameter(help="images, or texts; the preset's own by default")] = None,
    view: View = None,
    output: Annotated[Path, Parameter(name=["--output", "-o"], help="the picture: .png, .jpg or .webp")] = Path(
        "views.png"
    ),
    images: Annotated[int, Parameter(help="rows, 1 to 64")] = 8,
    minutes: Annotated[float, Parameter(help="of a run of that length, as train's; 0: not said")] = 0.0,
    image_size: Annotated[int | None, Parameter(help="side of a view, pixels")] = None,
    seed: Annotated[int | None, Parameter(help="which images, and their views")] = None,
    settings: Settings = (),
) -> None:
    """Draw what a method would see of some images, before anything is trained."""
    from stopgrad.assemble import api
    from stopgrad.assemble.draw_views import draw_views

    _check_minutes(minutes)
    options = api.Options(data=data, view=view, image_size=image_size, seed=seed, settings=settings)
    path, rows = draw_views(method, output, options=options, images=images, minutes=minutes)
    what = "sentences" if view == "text" else "images"
    print(f"{path}: {rows} {what}, each beside its views of three epochs")
