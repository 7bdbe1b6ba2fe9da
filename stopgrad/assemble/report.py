"""`stopgrad.report`: from run folders to one HTML page, and the gallery that a run leaves for it at its end."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from stopgrad.assemble.api import diagnose_run
from stopgrad.contracts import ConfigError, MissingInputError, StopgradError
from stopgrad.data.folder import escape_name
from stopgrad.recipe.text import load as load_recipe
from stopgrad.recipe.typed import plain
from stopgrad.reporting.found import Found, read_run
from stopgrad.reporting.page import NEEDS, available, render
from stopgrad.rundir import RunDir, check_place, write_bytes

if TYPE_CHECKING:
    import torch

    from stopgrad.data import Data
    from stopgrad.media import AnyPreprocess
    from stopgrad.recipe import Recipe
    from stopgrad.training.progress import Progress

SIDE_BY_SIDE = Path("report.html")  # of several runs, in the current folder


def report(
    runs: str | Path | Sequence[str | Path], output: str | Path | None = None, *, progress: Progress | None = None
) -> Path:
    """Write one HTML page on one run, or on several side by side, and return where it is.

    runs: run folders, finished or not; what a run lacks is left out and said.  output: by default RUN/report.html, of
    several runs report.html in the current folder. A finished run without a gallery gets one first, which reads its
    data again. Raises MissingInputError, ConfigError (jinja2 is not installed: pip install 'stopgrad[report]'),
    StorageError.
    """
    if not isinstance(runs, str | Path | Sequence):
        raise ConfigError(f"report: needs a run folder or a list of them, got {type(runs)}")
    paths = [Path(runs)] if isinstance(runs, str | Path) else [Path(path) for path in runs]
    paths = [path for at, path in enumerate(paths) if not any(same(path, other) for other in paths[:at])]
    if not paths:
        raise ConfigError("report: no run named; give one or more run folders, such as runs/NAME")
    if not available():
        raise ConfigError(NEEDS)
    for path in paths:
        if not RunDir(path).recipe.exists():
            raise MissingInputError(
                f"{path}: no run there (no recipe.yaml); a run folder is what `stopgrad train` made"
            )
    target = Path(output) if output is not None else RunDir(paths[0]).report if len(paths) == 1 else SIDE_BY_SIDE
    if target.is_dir():
        raise ConfigError(f"--output {target} is a folder; name the file, such as {target / 'report.html'}")
    if target.suffix not in (".html", ".htm"):
        raise ConfigError(f"--output {str(target)!r} must end in .html, so that no other file is overwritten")
    check_place(target)
    for path in paths:
        fill_gallery(RunDir(path), progress)
    write_bytes(target, render([found(path, name) for path, name in zip(paths, names(paths))]).encode())
    return target


def same(one: Path, other: Path) -> bool:
    return one.resolve() == other.resolve()


def found(path: Path, name: str) -> Found:
    from stopgrad.media import medium_of

    recipe = load_recipe(RunDir(path).recipe)
    medium = medium_of(recipe.views)
    return read_run(RunDir(path), name, diagnose_run(path), plain(recipe), (medium.one, medium.many))


def names(paths: Sequence[Path]) -> list[str]:
    """The folders' names; the whole paths where two have the same."""
    short = [escape_name(os.fsencode(path.resolve().name)) for path in paths]
    if len(set(short)) == len(short):
        return short
    return [escape_name(os.fsencode(path)) for path in paths]


def at_the_end(run: RunDir, progress: Progress) -> None:
    """The report of a run that has its results. What goes wrong is said in a line: the run is not lost by it."""
    if not run.writes:
        return
    if not available():
        progress.say(f"no report.html: {NEEDS}, then: stopgrad report {run.path}")
        return
    try:
        write_bytes(run.report, render([found(run.path, names([run.path])[0])]).encode())
        progress.say(f"report: {run.report}")
    except Exception as error:
        say_failed(run, progress, error)


def keep_gallery(
    run: RunDir,
    backbone: torch.nn.Module,
    data: Data,
    preprocess: AnyPreprocess,
    recipe: Recipe,
    device: torch.device,
    progress: Progress | None,
    *,
    trained_here: bool,
    text: torch.nn.Module | None = None,
) -> None:
    """RUN/gallery, for the report. What goes wrong is said in a line.  text: as of `write_gallery`."""
    if not run.writes:
        return
    from stopgrad.eval.gallery import write_gallery

    try:
        write_gallery(
            run.gallery,
            backbone,
            data,
            preprocess,
            recipe.views,
            seed=recipe.seed,
            device=device,
            threads=recipe.loop.view_threads,
            facts={"machine": machine(device)} if trained_here else {},
            text=text,
        )
    except Exception as error:
        say_failed(run, progress, error)


def fill_gallery(run: RunDir, progress: Progress | None) -> None:
    """The gallery of a finished run that has none: made before there were galleries, or its making failed."""
    if run.state().get("state") != "finished" or not run.encoder.exists() or (run.gallery / "gallery.json").exists():
        return
    from stopgrad.assemble.api import load
    from stopgrad.assemble.build import pick_device
    from stopgrad.assemble.towers import both_read
    from stopgrad.media import medium_of

    recipe = load_recipe(run.recipe)
    try:
        encoder = load(run.path)
        beside = [load(run.path, tower=name) for name in recipe.method.towers()]
        data = medium_of(recipe.views).open(recipe.data, recipe.views, progress.reading if progress else None)
    except StopgradError as error:
        say_failed(run, progress, error)
        return
    device = pick_device()
    preprocess, text = encoder.preprocess, None
    for one in beside:
        preprocess, text = both_read(preprocess, one.preprocess), one.backbone
    keep_gallery(run, encoder.backbone, data, preprocess, recipe, device, progress, trained_here=False, text=text)


def say_failed(run: RunDir, progress: Progress | None, error: Exception) -> None:
    import traceback

    known = isinstance(error, StopgradError)
    run.log_error("report: " + "".join(traceback.format_exception(error)))
    told = str(error) if known else f"{type(error).__name__}, see {run.error_log}"
    if progress is not None:
        progress.say(f"the report is not complete: {told}")


def machine(device: torch.device) -> str:
    """What the run was trained on, in words."""
    import torch

    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    return f"CPU ({processor()}), {torch.get_num_threads()} threads, torch {torch.__version__}"


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.machine() or "unknown"
