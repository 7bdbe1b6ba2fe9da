"""From a recipe to a finished run folder: data, training, encoder, scores, verdict."""

from __future__ import annotations

import contextlib
import dataclasses
import resource
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from stopgrad import dist, rng
from stopgrad.assemble.begin import other_beside, start_beside
from stopgrad.assemble.build import Built, build_job, build_method, fresh_trunk, pick_device, resolve
from stopgrad.assemble.machine import check_machine
from stopgrad.assemble.minutes import epochs_in
from stopgrad.assemble.report import at_the_end, keep_gallery
from stopgrad.assemble.towers import image_part, pair_rows, save_towers, score_both, seen_by_trunk
from stopgrad.contracts import ConfigError, DataError, InterruptedRunError, MissingInputError, Result, StopgradError
from stopgrad.data import Data, write_bad_files
from stopgrad.data.concerns import concerns
from stopgrad.diagnose import Diagnosis, diagnose
from stopgrad.encoder import Encoder
from stopgrad.eval import PROTOCOL, Other, evaluate
from stopgrad.media import medium_of
from stopgrad.methods.clip import TEXT_TOWER
from stopgrad.recipe import Recipe
from stopgrad.recipe.text import dump, load
from stopgrad.recipe.typed import plain
from stopgrad.recipes.fitted import of_length, told
from stopgrad.reporting.cost import trained
from stopgrad.reporting.found import results_in
from stopgrad.rundir import RunDir, as_json
from stopgrad.training import signals
from stopgrad.training.loop import fit
from stopgrad.training.progress import Progress
from stopgrad.training.writers import Write, writers
from stopgrad.views.config import ViewsConfig


@dataclass(frozen=True)
class Finished:
    """What a run came to."""

    path: Path
    diagnosis: Diagnosis
    results: list[Result]
    trained: bool  # False where the run had been finished before


def already_finished(run: RunDir, recipe: Recipe, progress: Progress | None) -> Finished | None:
    """What a finished run came to; None where there is something left to do."""
    if run.state().get("state") != "finished" or not run.results.exists():
        return None
    (progress or Progress()).say(f"{run.path} is finished; nothing to do")
    return Finished(run.path, diagnose(run.verdict_lines(), plain(recipe)), read_results(run), trained=False)


def carry_out(run: RunDir, recipe: Recipe, minutes: float, progress: Progress | None) -> Finished:
    """Train, evaluate and judge in a folder that is locked. `minutes` above 0 sets loop.epochs from a measured step.

    Whatever goes wrong is left in status.json and error.log, and raised.
    """
    progress = progress or Progress(quiet=not run.writes)
    try:
        with signals.raised():
            finished = _train(run, recipe, minutes, progress)
    except InterruptedRunError as error:
        run.set_status("interrupted", message=str(error), exit_code=error.exit_code, **_unresolved(run))
        raise
    except KeyboardInterrupt as error:  # while opening data or evaluating; the loop has its own way
        message = f"stopped; what was saved is kept, go on with: stopgrad train {run.path} --resume"
        code = signals.code_of(error)
        run.set_status("interrupted", message=message, exit_code=code, **_unresolved(run))
        raise InterruptedRunError(message, code) from error
    except BaseException as error:
        code = error.exit_code if isinstance(error, StopgradError) else 1
        with contextlib.suppress(StopgradError):  # the disk may be what failed; the first error is the one to tell
            run.set_status("failed", message=str(error), exit_code=code, **_unresolved(run))
        run.log_error(traceback.format_exc())
        raise
    finally:
        progress.close()
    run.set_status("finished", verdict=finished.diagnosis.verdict)
    at_the_end(run, progress)
    return finished


def _unresolved(run: RunDir) -> dict[str, float]:
    """The minutes that have not become epochs in recipe.yaml yet, for a resume to start from."""
    minutes = run.state().get("minutes")
    return {"minutes": float(minutes)} if minutes else {}


def _train(run: RunDir, recipe: Recipe, minutes: float, progress: Progress) -> Finished:
    device = pick_device()
    dist.start(device.type)
    recipe = resolve(recipe, device, progress.say)
    torch.set_num_threads(recipe.loop.threads)
    data = open_source(run, recipe, progress)
    recipe = measured(recipe, data, progress)
    check_machine(run, recipe, device, progress.say, len(data.train))
    other = asked_beside(run, recipe, progress) if run.writes else {}
    note = f"resolved; runs again as is: stopgrad train {run.recipe}"
    if minutes:
        with _built(run, recipe, data, device, progress, nobody) as built:
            epochs, how = epochs_in(minutes, recipe, built)
        recipe, why = of_length(recipe, dist.from_first(epochs))  # the recipe's own is what --minutes replaces
        for line in (how, *told(recipe, recipe, why)):
            progress.say(line)
            note += f"\n{line}"
    if run.writes and load(run.recipe) != recipe:
        run.write(run.recipe, dump(recipe, note).encode())
    run.set_status("running")
    with writers(recipe.loop, run) as write, _built(run, recipe, data, device, progress, write) as built:
        # for backbones with dropout or stochastic depth; initialisation and views have numbers of their own
        torch.manual_seed(rng.torch_seed(recipe.seed, 2, dist.rank()))
        fit(built.job)
        built.job.method.eval()
        if run.writes:
            save_towers(run, recipe, built.job.method, built.preprocess)
        if built.lesson:
            built.lesson.save(run, built.job.method)
        said = diagnose(run.verdict_lines(), plain(recipe))
        progress.say(f"verdict: {said.sentence()}")
        rows = _results(run, recipe, data, built, said, progress, other)
        run.write(run.results, as_json([row.as_dict() for row in rows]))
        trunks = built.job.method.trunks()
        keep_gallery(
            run,
            trunks["backbone"],
            data,
            built.preprocess,
            recipe,
            device,
            progress,
            trained_here=True,
            text=trunks.get(TEXT_TOWER),
        )
    return Finished(run.path, said, rows, trained=True)


def asked_beside(run: RunDir, recipe: Recipe, progress: Progress) -> dict[str, Other]:
    """The encoder of eval.baseline. A run that has begun does not end because that file has gone since."""
    try:
        preprocess = medium_of(recipe.views).preprocess(recipe.data, recipe.views)
        return other_beside(recipe.eval.baseline, image_part(preprocess))
    except MissingInputError as error:
        if not run.begun():
            raise
        progress.say(f"warning: scores without the baseline ({error}); later: stopgrad eval {run.path} --baseline ...")
        return {}


def measured(recipe: Recipe, data: Data, progress: Progress) -> Recipe:
    """The recipe with what it leaves to be found in the training samples written out, as their mean and std."""
    views = medium_of(recipe.views).settled(recipe.data, recipe.views, data, progress.say)
    if views is recipe.views:
        return recipe
    if isinstance(views, ViewsConfig) and recipe.backbone.split == "sensors_lab":  # Lab is made of pixels as they are
        mean, std = ((0.0,) * 3 + views.mean[3:], (1.0,) * 3 + views.std[3:])
        views = dataclasses.replace(views, mean=mean, std=std)
    return dataclasses.replace(recipe, views=views)


@contextlib.contextmanager
def _built(
    run: RunDir, recipe: Recipe, data: Data, device: torch.device, progress: Progress, write: Write
) -> Iterator[Built]:
    built = build_job(recipe, data, run, device, progress, write)
    try:
        yield built
    finally:
        built.maker.close()


def nobody(line: Mapping[str, Any]) -> None:
    """The writer of steps that are only timed."""


def open_source(run: RunDir, recipe: Recipe, progress: Progress) -> Data:
    """The recipe's data; what is wrong with single files goes to bad_files.csv whether or not the run can start."""
    medium = medium_of(recipe.views)
    progress.many = medium.many
    try:
        data = medium.open(recipe.data, recipe.views, progress.reading)
    except DataError as error:
        if run.writes:
            write_bad_files(getattr(error, "bad", ()), run.bad_files)
        raise
    if data.bad and run.writes:
        write_bad_files(data.bad, run.bad_files)
        progress.say(f"{len(data.bad)} files could not be used and are listed in {run.bad_files}")
    for note in data.notes:
        progress.say(note)
    for concern in concerns(data, recipe.views):
        progress.say(f"warning: {concern}")
    return data


def _results(
    run: RunDir,
    recipe: Recipe,
    data: Data,
    built: Built,
    said: Diagnosis,
    progress: Progress,
    other: Mapping[str, Other],
) -> list[Result]:
    def row(name: str, value: float | str | None, n: int, split: str, protocol: str) -> Result:
        return Result(name, value, n, split, recipe.seed, protocol)

    log = run.read_log()
    watched = [line for line in log if "std_ratio" in line]
    first, last = watched[0], watched[-1]
    seen = f"{PROTOCOL}; train-mode batch norm, {first['held_images']} held-out training images, last step"
    images, seconds = trained(log, recipe.loop.batch_size)
    rows = [
        row("verdict", said.verdict, first["held_images"], "held-out", seen),
        row("std_ratio", last["std_ratio"], first["held_images"], "held-out", seen),
        row(
            "images_per_second",
            round(images / max(seconds, 1e-9), 1),
            images,
            "train",
            "whole loop with its monitors, this machine",
        ),
        row("peak_memory_mb", peak_memory_mb(built.job.device), 1, "train", "peak of the training process"),
    ]
    if built.lesson:
        rows += built.lesson.rows(recipe, data, built.job.method, built.job.device)
    device = built.job.device
    rows += pair_rows(
        recipe,
        data,
        built.job.method,
        lambda seed: build_method(dataclasses.replace(recipe, seed=seed), len(data.train)),
        built.preprocess,
        device,
        progress,
    )
    rows += evaluate(
        built.job.method.trunks()["backbone"],
        lambda seed: fresh_trunk(recipe, seed),
        *seen_by_trunk(data, built.preprocess, recipe.views),
        recipe.eval,
        seed=recipe.seed,
        device=built.job.device,
        threads=recipe.loop.view_threads,
        say=progress.say,
        others={**start_beside(run, recipe), **other},
    )
    return rows


def read_results(run: RunDir) -> list[Result]:
    """The rows of results.json. Raises MissingInputError where the run has none."""
    try:
        return results_in(run.results.read_text())
    except (OSError, ValueError) as error:
        raise MissingInputError(f"{run.results}: no results that can be read ({error}); resume the run") from error


def peak_memory_mb(device: torch.device) -> float:
    """Peak resident memory of this process, or of the device where it is a GPU; MB of 10^6 bytes."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 1e6, 1)
    with contextlib.suppress(OSError):  # ru_maxrss begins with the peak of the process that started this one
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return round(int(line.split()[1]) * 1024 / 1e6, 1)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6, 1)


def score(
    encoder: Encoder, recipe: Recipe, *, seed: int, progress: Progress | None, text: Encoder | None = None
) -> list[Result]:
    """Evaluate a loaded encoder on the recipe's data, with its own preprocessing and the recipe's views.

    text: the encoder of captions that was trained beside it.
    """
    progress = progress or Progress()
    device = pick_device()
    preprocess = encoder.preprocess
    if text is not None:
        beside = other_beside(recipe.eval.baseline, preprocess)
        return score_both(encoder, text, recipe, beside, seed=seed, device=device, progress=progress)
    if preprocess.kind != recipe.views.kind:
        raise ConfigError(f"this encoder takes samples of kind {preprocess.kind}, the data is of {recipe.views.kind}")
    medium = medium_of(preprocess)
    progress.many = medium.many
    views = medium.refitted(recipe.views, preprocess)
    other = other_beside(recipe.eval.baseline, preprocess)
    data = medium.open(medium.wanted(recipe.data, preprocess), views, progress.reading)
    for note in data.notes:
        progress.say(note)
    return evaluate(
        encoder.backbone.to(device),
        encoder.fresh,
        data,
        preprocess,
        views,
        recipe.eval,
        seed=seed,
        device=device,
        threads=recipe.loop.view_threads,
        say=progress.say,
        others=other,
    )
