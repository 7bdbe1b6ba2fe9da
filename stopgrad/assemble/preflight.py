"""`stopgrad check`: what a source holds, what would be done with it, what that costs, before anything is trained.

The source is opened as a run opens it, so its store is there when the run starts. Steps, monitors and evaluation are
rehearsed for some seconds on a copy; nothing is kept of them.
"""

from __future__ import annotations

import dataclasses
import math
import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stopgrad.assemble import machine
from stopgrad.assemble.api import Options, choose, folder_for
from stopgrad.assemble.build import pick_device, resolve, split_held
from stopgrad.assemble.rehearse import Cost, rehearse
from stopgrad.assemble.train import measured
from stopgrad.contracts import DataError, Images, StopgradError, StorageError
from stopgrad.data import BadFile, BadFilesError, Data
from stopgrad.data.captioned import distinct_images
from stopgrad.data.concerns import concerns
from stopgrad.data.duplicates import Groups, exact_groups, looks, near_groups
from stopgrad.data.loader import Loader
from stopgrad.data.pack import PackedImages, cache_root
from stopgrad.media import medium_of
from stopgrad.media.sizes import shapes_of
from stopgrad.processes import cores
from stopgrad.recipe import Recipe
from stopgrad.recipes.folder import STEPS_CPU, STEPS_GPU
from stopgrad.rundir import RunDir, as_size, free_bytes
from stopgrad.training.progress import Progress, time_left

SHOWN = 5  # bad files, groups and members of a group that are printed
NEAR_IMAGES, NEAR_BYTES = 200_000, 40e9  # near duplicates are looked for among at most so many images and stored bytes


@dataclass(slots=True)
class Preflight:
    """What was found. `error` is None where a run could start, else what it would end with."""

    sections: list[tuple[str, list[tuple[str, str]]]] = field(default_factory=list)  # title, (name, value) lines
    facts: dict[str, Any] = field(default_factory=dict)  # the same for machines; JSON
    groups: list[tuple[str, list[str]]] = field(default_factory=list)  # "exact" or "near", names of the images
    warnings: list[str] = field(default_factory=list)
    error: StopgradError | None = None

    @property
    def problem(self) -> str:
        """The sentence that says why no run could start; "" where one could."""
        return str(self.error or "")

    def section(self, title: str, *lines: tuple[str, str]) -> None:
        self.sections.append((title, list(lines)))


def check(
    source: str,
    *,
    method: str = "simsiam",
    minutes: float = 0.0,
    options: Options | None = None,
    timed: bool = True,
    progress: Progress | None = None,
) -> Preflight:
    """Looks at `source` as a run of `method` (METHOD[/PRESET] or a recipe file) would use it.

    minutes: how long the run may train; 0: as the preset says.  timed: rehearse steps and evaluation, for time and
    memory. Raises ConfigError and MissingInputError; what is wrong with the images or the disk is in `.error`.
    """
    progress = progress or Progress()
    options = dataclasses.replace(options or Options(), data=source)
    found = Preflight()
    recipe, reasons = choose(method, options, minutes)
    try:
        data = medium_of(recipe.views).open(recipe.data, recipe.views, progress.reading)
    except BadFilesError as error:
        found.error = error
        found.section("Images", *_bad_lines(error.bad))
        found.facts["bad"] = [dataclasses.asdict(item) for item in error.bad]
        return found
    except (DataError, StorageError) as error:
        found.error = error
        return found
    recipe = measured(recipe, data, progress)
    _count(found, data, medium_of(recipe.views).many)
    lines, facts = medium_of(recipe.views).sizes(data, recipe.data, recipe.views)
    found.section("Sizes", *lines)
    found.facts |= facts
    progress.say("looking for duplicates")
    _find_copies(found, distinct_images(data), by_looks=recipe.views.kind in ("image", "captioned"))
    found.warnings = [*concerns(data, recipe.views, found.facts), *found.warnings]
    _suggest(found, recipe, reasons, source, method, minutes, options.settings, options.view)
    try:
        _say_machine(found, recipe, len(data.train))
        Loader(split_held(data.train, recipe)[0], recipe.loop.batch_size, recipe.seed)
    except (StorageError, DataError) as error:  # no room, fewer images than a batch
        found.error = error
    if timed and not found.error:
        cost = rehearse(recipe, data, minutes, progress)
        _say_cost(found, cost, recipe.loop.batch_size)
        _warn_of_few_steps(found, cost, minutes)
    _say_storage(found, distinct_images(data))
    told = found.facts["copied"] or found.facts["one_colour"]
    notes = [note for note in data.notes if not (told and ("duplicates of others" in note or "one colour" in note))]
    if notes:
        found.section("Notes", *(("", note) for note in notes))
    if found.warnings:
        found.section("Warnings", *(("", warning) for warning in found.warnings))
    found.facts |= {"warnings": found.warnings, "notes": list(data.notes), "problem": found.problem}
    return found


# --- what is there ----------------------------------------------------------------------------------------------------


def _count(found: Preflight, data: Data, many: str) -> None:
    train, test = len(data.train), len(data.test)
    lines = [("counted", f"{train:,} for training, {test:,} for the test ({data.split_rule})")]
    of_class = np.bincount(data.train.labels, minlength=len(data.classes)) if data.train.labels is not None else None
    if of_class is not None and len(of_class):
        least, most = int(of_class.min()), int(of_class.max())
        named = ", ".join(data.classes[:8]) + (", ..." if len(data.classes) > 8 else "")
        each = f"{least:,}" if least == most else f"{least:,} to {most:,}"
        lines.append(("classes", f"{len(data.classes):,} with {each} training {many} each: {named}"))
        lines.append(("", "used by the evaluation alone; no label reaches a method"))
    else:
        lines.append(("classes", "none; scores that need labels are left out"))
    lines += _bad_lines(data.bad)
    for name, known in data.attributes.items():
        lines.append(
            (name, f"{len(known.classes):,}: {', '.join(known.classes[:8])}{', ...' * (len(known.classes) > 8)}")
        )
    if data.occurring is not None:
        each = f"{data.occurring.train.sum(axis=1).mean():.1f} of them in one of the {many}"
        lines.append(("labels", f"{len(data.occurring.names):,}, {each}; used by the evaluation alone"))
    lines.append(("ignored", f"{data.ignored:,} files that are no {many}"))
    found.section(many.capitalize(), *lines)
    found.facts |= {
        "source": data.name,
        "train": train,
        "test": test,
        "split": data.split_rule,
        "classes": {} if of_class is None else dict(zip(data.classes, of_class.tolist())),
        "bad": [dataclasses.asdict(item) for item in data.bad],
        "ignored": data.ignored,
    }


def _bad_lines(bad: Iterable[BadFile]) -> list[tuple[str, str]]:
    bad = list(bad)
    if not bad:
        return [("bad", "none")]
    reasons = Counter(item.reason.partition(" (")[0] for item in bad)
    lines = [("bad", f"{len(bad):,}: " + ", ".join(f"{count:,} {reason}" for reason, count in reasons.most_common(6)))]
    lines += [("", f"{item.path}: {item.reason}") for item in bad[:SHOWN]]
    return [*lines, *([("", f"and {len(bad) - SHOWN:,} more")] if len(bad) > SHOWN else [])]


def _splits(data: Data) -> list[Images]:
    return [data.train] if data.test is data.train else [data.train, data.test]


def _find_copies(found: Preflight, data: Data, *, by_looks: bool) -> None:
    splits = _splits(data)
    where = [(images, i) for images in splits for i in range(len(images))]
    total = len(where)
    content = np.concatenate([i.pack.hashes[i.rows] for i in splits if isinstance(i, PackedImages)])  # [N]
    exact = exact_groups(content)
    near, chosen, flat = _look(splits, where, content) if by_looks else ([], np.arange(total), 0)

    def names(groups: Groups) -> list[list[str]]:
        return [[where[int(n)][0].name(where[int(n)][1]) for n in group] for group in groups]

    copied, alike = (sum(len(group) - 1 for group in groups) for groups in (exact, near))
    sampled = f" (looked for among {len(chosen):,})" if len(chosen) < total else ""
    found.groups = [*(("exact", group) for group in names(exact)), *(("near", group) for group in names(near))]
    lines = []
    kinds = [("exact", exact, copied, "byte for byte"), ("near", near, alike, "by their looks")]
    for kind, groups, count, how in kinds if by_looks else kinds[:1]:
        some = f" in {len(groups):,} group{'s' * (len(groups) != 1)}" if groups else ""
        told = f"{count:,} of {total:,} are copies of another image, {how}{some}" if count else f"none, {how}"
        lines.append((kind, told + (sampled if kind == "near" else "")))
        lines += [("", _group(group)) for group in names(groups[:SHOWN])]
        shared = sum(int(group[0]) < len(data.train) <= int(group[-1]) for group in groups)
        if shared:
            lines.append(("", f"{shared:,} of these groups stand in both the training and the test part"))
    if by_looks:
        lines.append(("one colour", f"{flat:,} of {len(chosen):,}" if flat else "none"))
    found.section("Duplicates", *lines)
    found.facts |= {
        "images": total,
        "copied": copied,
        "exact_groups": len(exact),
        "near": alike,
        "near_groups": len(near),
        "near_looked_at": len(chosen),
        "one_colour": flat,
    }
    if alike > total / 10:
        found.warnings.append(f"{alike:,} of {total:,} images nearly repeat another: less to learn from than it seems")


def _look(
    splits: list[Images], where: list[tuple[Images, int]], content: NDArray[np.uint64]
) -> tuple[Groups, NDArray[np.int64], int]:
    """Groups of images that look alike and are no copies, those that were looked at, how many are of one colour."""
    total = len(where)
    stored = sum(float(shapes_of(images).prod(axis=1).sum()) * _itemsize(images) for images in splits)
    most = max(1, min(total, NEAR_IMAGES, int(total * NEAR_BYTES / max(stored, 1.0))))
    chosen = np.unique(np.linspace(0, total - 1, most).astype(np.int64))
    seen = looks(images[i] for images, i in (where[int(n)] for n in chosen))
    distinct = _first_of_each(content[chosen])
    near = near_groups(dataclasses.replace(seen, hashes=seen.hashes[distinct], thumbs=seen.thumbs[distinct]))
    return [chosen[distinct[group]] for group in near], chosen, int(seen.flat.sum())


def _first_of_each(content: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Positions without exact copies: a near duplicate is told of once, and not again as a copy."""
    return np.sort(np.unique(content, return_index=True)[1]).astype(np.int64)


def _itemsize(images: Images) -> int:
    return images.pack.channels * images.pack.pixels.itemsize if isinstance(images, PackedImages) else 3


def _group(names: list[str]) -> str:
    return "  ".join(names[:SHOWN]) + (f"  and {len(names) - SHOWN:,} more" if len(names) > SHOWN else "")


# --- what would be done -----------------------------------------------------------------------------------------------


def _suggest(
    found: Preflight,
    recipe: Recipe,
    reasons: tuple[str, ...],
    source: str,
    method: str,
    minutes: float,
    settings: Sequence[str],
    view: str | None,
) -> None:
    same = f" --minutes {minutes:g}" if minutes else ""
    same += f" --view {view}" if view else ""
    same += " --set " + shlex.join(settings) if settings else ""
    lines = [("", reason) for reason in reasons]
    if not reasons:
        lines = [
            ("", f"{method}: views of {recipe.views.sides[0]}, {recipe.backbone.name}, {recipe.loop.epochs} epochs")
        ]
    named = f"{shlex.quote(method)} --data {shlex.quote(source)}"
    lines.append(("start it", f"stopgrad train {named}{same}"))
    if recipe.views.kind in ("image", "text"):
        lines.append(("see the views", f"stopgrad views {named} -o views.png{same}"))
    found.section("Suggested", *lines)
    found.facts["settings"] = list(reasons)


def _say_machine(found: Preflight, recipe: Recipe, images: int) -> None:
    """images: for training; some methods keep a row of each.

    Raises StorageError where a run could not be kept in the folder that `train` would choose.
    """
    run = RunDir(folder_for(recipe, "runs", ""))
    needed, free, cache = machine.needed_bytes(recipe, images), free_bytes(run.path), free_bytes(cache_root())
    notes: list[str] = []
    threads = resolve(recipe, pick_device(), notes.append).loop.threads
    found.section(
        "Machine",
        ("run folder", f"{_free(free)} at {run.path}, which needs up to {as_size(needed)}"),
        ("cache", f"{_free(cache)} at {cache_root()}"),
        ("threads", f"{threads} on {cores()} cores"),
        *(("", note) for note in notes),
    )
    found.facts |= {
        "run_bytes": needed,
        "run_free_bytes": free,
        "cache_free_bytes": cache,
        "threads": threads,
        "cores": cores(),
    }
    run.check_writable()
    machine.check_space(run, needed)


def _free(count: int | None) -> str:
    return "unknown space" if count is None else f"{as_size(count)} free"


# --- what it would cost -----------------------------------------------------------------------------------------------


def _say_cost(found: Preflight, cost: Cost, batch: int) -> None:
    of_steps = f"{cost.steps:,} steps of {batch}, {cost.step:.3f} s each and {cost.watching:.3f} s of watching"
    found.section(
        "Time, measured here",
        ("training", f"{_clock(cost.training)}: {of_steps}"),
        ("", f"{batch / (cost.step + cost.watching):,.0f} images/s, {cost.epochs} epochs"),
        ("evaluation", _clock(cost.evaluation)),
        ("report", _clock(cost.report)),
        ("together", f"{_clock(cost.seconds)} on this machine as busy as it is now, once the images are stored"),
    )
    where = "of the GPU" if cost.on_gpu else "of the training"
    found.section("Memory", (where, f"about {cost.memory / 1e9:.1f} GB at its peak"))
    found.facts |= {
        "seconds": round(cost.seconds, 1),
        "training_seconds": round(cost.training, 1),
        "evaluation_seconds": round(cost.evaluation, 1),
        "report_seconds": round(cost.report, 1),
        "step_seconds": round(cost.step, 4),
        "steps": cost.steps,
        "memory_bytes": round(cost.memory),
    }


def _warn_of_few_steps(found: Preflight, cost: Cost, minutes: float) -> None:
    least = STEPS_GPU if cost.on_gpu else STEPS_CPU
    if minutes and cost.steps < least / 2:
        enough = math.ceil(least * (cost.step + cost.watching) / 60)
        found.warnings.append(
            f"{cost.steps:,} steps are few, {least:,} are usual: at this speed they take --minutes {enough}"
        )


def _say_storage(found: Preflight, data: Data) -> None:
    if not isinstance(data.train, PackedImages):
        return
    folder = data.train.pack.folder
    size = sum(file.stat().st_size for file in folder.iterdir())
    line = ("of the store", f"{size / 1e9:.2f} GB on disk in {folder}; safe to delete, made again when needed")
    memory = next((lines for title, lines in found.sections if title == "Memory"), None)
    if memory is None:
        found.section("Memory", line)
    else:
        memory.append(line)
    found.facts["store_bytes"] = size


def _clock(seconds: float) -> str:
    return f"{time_left(seconds)} {'h' if seconds >= 3600 else 'min'}"
