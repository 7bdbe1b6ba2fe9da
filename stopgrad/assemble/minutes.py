"""`--minutes N` becomes a number of epochs before the first step, from a measured step time."""

from __future__ import annotations

import copy
import dataclasses
import time

import torch

from stopgrad import dist
from stopgrad.assemble.build import Built
from stopgrad.nn.batch_norm import untouched_statistics
from stopgrad.optim.groups import build_optimiser
from stopgrad.recipe import Recipe
from stopgrad.training.feed import Feed
from stopgrad.training.loop import Job, one_step

WARM_STEPS = 4  # besides those that were prefetched while nothing ran
MEASURED_SECONDS = 6.0
PATIENCE = 30.0  # seconds; steps so slow that it is over need no warming, and few of them tell


def epochs_in(minutes: float, recipe: Recipe, built: Built) -> tuple[int, str]:
    """(epochs that fit, at least 1; how that was found). The method itself is not touched: a copy is trained."""
    return epochs_at(minutes, step_seconds(recipe, built), watch_seconds(recipe, built), built)


def epochs_at(minutes: float, step: float, watching: float, built: Built) -> tuple[int, str]:
    """As `epochs_in`, where a step takes `step` seconds and its share of the watching `watching`."""
    steps = built.job.steps_per_epoch
    epoch = steps * (step + watching)
    epochs = max(1, int(minutes * 60 / epoch))
    if minutes * 60 < 0.8 * epoch:
        how = f"one epoch of {steps} steps takes about {epoch / 60:.1f} minutes, longer than the {minutes:g} asked for"
        return 1, f"{how}; --set data.limit=N trains on fewer images"
    how = (
        f"{minutes:g} minutes are {epochs} epochs of {steps} steps: {step:.3f} s a step, measured on this machine,"
        f" and {watching:.3f} s of watching"
    )
    return epochs, how


def watch_seconds(recipe: Recipe, built: Built) -> float:
    """Seconds of watching for each step: what is measured every so often, and the kNN more seldom."""
    watch = built.watch
    whole = knn = 0.0
    for _ in range(2):  # the first time, kernels are chosen for shapes that no step has
        begin = time.monotonic()
        watch.rehearse()
        whole = time.monotonic() - begin
        if whole > PATIENCE:
            break
    if watch.labelled is not None:
        watch.method.train()
        begin = time.monotonic()
        with torch.no_grad(), untouched_statistics(watch.method):
            watch.online_knn(watch.labelled)
        knn = time.monotonic() - begin
    return max(0.0, whole - knn) / recipe.watch.every_steps + knn / recipe.watch.knn_every_steps


def step_seconds(recipe: Recipe, built: Built) -> float:
    """Seconds a step takes, views included, on a copy of the method; at least 5 steps and MEASURED_SECONDS of them,
    or 2 once PATIENCE is over.
    """
    method = copy.deepcopy(built.job.method)
    job = dataclasses.replace(
        built.job,
        method=method,
        parallel=method,
        optimiser=build_optimiser(
            method, recipe.optim, recipe.loop.batch_size, method.constant_lr(), method.undecayed(), method.rates()
        ),
    )
    method.train()
    with torch.random.fork_rng(devices=[]):  # dropout of these steps must not move the run's own
        return _time_steps(job, recipe.loop.prefetch)


def _time_steps(job: Job, prefetch: int) -> float:
    warm = WARM_STEPS + prefetch
    times = []
    with Feed(job.views_at, 0, warm + 10_000, prefetch) as feed:
        for step, views in feed:
            one_step(job, views, job.clock(step))
            times.append(time.monotonic())
            enough = step >= warm + 5 and times[-1] - times[warm] > MEASURED_SECONDS
            enough |= step >= prefetch + 2 and times[-1] - times[0] > PATIENCE
            if dist.from_first(int(enough)):  # every step holds collectives: all stop together
                break
    begin = warm if len(times) > warm + 2 else prefetch
    return (times[-1] - times[begin]) / (len(times) - 1 - begin)
