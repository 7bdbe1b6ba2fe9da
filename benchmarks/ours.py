"""A run of ours that is held between its steps, so that its loop can be timed in turns with others.

Nothing of it is imitated: it is `fit` with the job that `assemble` builds, with its feed, views, log and monitors. It
runs in a thread of its own and waits inside the watch, which the loop calls after every step.
"""

from __future__ import annotations

import dataclasses
import io
import math
import multiprocessing
import os
import queue
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol

import torch

from stopgrad.assemble.build import Built, build_job, pick_device, resolve
from stopgrad.assemble.train import nobody
from stopgrad.contracts import Clock, Views
from stopgrad.data import Data
from stopgrad.optim.groups import set_rates
from stopgrad.recipe import Recipe
from stopgrad.rundir import RunDir
from stopgrad.training.loop import fit, one_step
from stopgrad.training.progress import Progress

LEAST = 2  # steps of a round, however slow they are
QUIET, PATIENCE = 0.1, 20.0  # seconds: looked at, to tell whether anybody still works; waited for at most


class Side(Protocol):
    """What is timed in turns."""

    def steps(self, count: int) -> float:
        """Seconds of that many steps."""

    def rest(self) -> None:
        """Returns once nobody of this side works any more: what is made ahead has been made."""


class _OverError(Exception):
    """Raised inside a held run to end it."""


class OurLoop:
    """`fit` of a recipe on open data. Steps are timed without the monitors; `monitors` says what these cost.

    folder: of the run, which gets a log like any other. The recipe must have more epochs than will be asked for.
    """

    def __init__(self, recipe: Recipe, data: Data, folder: Path) -> None:
        self.recipe = resolve(recipe, pick_device())
        self.built = built(self.recipe, data, folder)
        self.done = 0  # steps
        self._left, self._begin = 0, time.perf_counter()
        self._orders: queue.Queue[int] = queue.Queue()
        self._answers: queue.Queue[float | BaseException] = queue.Queue()
        self._thread = threading.Thread(target=self._run, name="run", daemon=True)
        self._thread.start()
        self._answer()  # measured before its first step, as every run is

    def steps(self, count: int) -> float:
        self._orders.put(count)
        return self._answer()

    def rest(self) -> None:
        settle()

    def monitors(self, rounds: int = 2) -> list[float]:
        """Seconds of watching for each step, one value a round: what is due every so often, spread over the steps.

        Real calls, while the loop is held. The kNN must be due more seldom than the rest, as it is by default.
        """
        every, knn_every = self.recipe.watch.every_steps, self.recipe.watch.knn_every_steps
        assert every % knn_every, "the first call must come without the kNN"
        spread = []
        for _ in range(rounds):
            measured = self._watch_seconds(every)
            with_knn = self._watch_seconds(math.lcm(every, knn_every))
            spread.append(measured / every + (with_knn - measured) / knn_every)
        return spread

    def close(self) -> None:
        if self._thread.is_alive():
            self._orders.put(0)
            self._thread.join()
        self.built.maker.close()

    def _watch_seconds(self, step: int) -> float:
        begin = time.perf_counter()
        self.built.watch(self.built.job.clock(step), lambda: {"loss": -0.5, "agreement": 0.5})
        return time.perf_counter() - begin

    def _answer(self) -> float:
        answer = self._answers.get()
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def _run(self) -> None:
        try:
            fit(dataclasses.replace(self.built.job, watch=self._watch))
            raise RuntimeError(f"the run is over after {self.done} steps; give its recipe more epochs")
        except _OverError:
            return
        except BaseException as error:  # belongs to the thread that asked
            self._answers.put(error)

    def _watch(self, clock: Clock, logged: Callable[[], Mapping[str, float | None]]) -> dict[str, Any]:
        begin = time.perf_counter()
        said = self.built.watch(clock, logged)
        if said:  # it was due, and its time is told apart
            self._begin += time.perf_counter() - begin
        self.done = clock.step
        self._left -= 1
        if self._left <= 0:
            self._answers.put(time.perf_counter() - self._begin)
            self._left = self._orders.get()
            if not self._left:
                raise _OverError
            self._begin = time.perf_counter()
        return said


def built(recipe: Recipe, data: Data, folder: Path) -> Built:
    """The job of a recipe that is resolved, as `train` builds it; torch has its threads from here on."""
    torch.set_num_threads(recipe.loop.threads)
    folder.mkdir(parents=True, exist_ok=True)
    return build_job(recipe, data, RunDir(folder), pick_device(), Progress(io.StringIO()), nobody)


def losses(recipe: Recipe, data: Data, folder: Path) -> list[float]:
    """The loss of every step of a whole run. The recipe is resolved and logs every step."""
    whole = built(recipe, data, folder)
    with closing(whole.maker):
        fit(whole.job)
    return [float(line["loss"]) for line in whole.job.run.read_log() if line.get("loss") is not None]


def first_losses(recipe: Recipe, data: Data, folder: Path, steps: int) -> tuple[list[float], list[Views]]:
    """Of the loop's own step on the first views of a run, and those views."""
    start = built(recipe, data, folder)
    job, found = start.job, []
    with closing(start.maker):
        views = [job.views_at(step) for step in range(steps)]
    for step, ready in enumerate(views):
        set_rates(job.optimiser, job.optim, job.loop.batch_size, job.clock(step))
        found.append(one_step(job, ready, job.clock(step)).loss)
    return found, views


def in_turns(sides: Mapping[str, Side], seconds: float, rounds: int) -> dict[str, list[float]]:
    """{side: seconds a step, one value a round}, each round about `seconds` a side.

    While one side works the others rest. One step before each round is not timed, so that a round begins as it ends:
    in the middle of things, with what is made ahead partly used up.
    """
    counts = {}
    for name, side in sides.items():
        counts[name] = _steps_in(seconds, side)
        side.rest()
    found: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            side.steps(1)
            found[name].append(side.steps(counts[name]) / counts[name])
            side.rest()
    return found


def _steps_in(seconds: float, side: Side) -> int:
    """How many steps take about `seconds`, at least LEAST; the first ones choose kernels and are not looked at."""
    side.steps(2)
    count = 2
    while (spent := side.steps(count)) < seconds / 5:
        count *= 2
    return max(LEAST, round(seconds * count / spent))


def settle() -> None:
    """Waits until this process and its data loaders' workers have nothing to do, PATIENCE at most."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        before = _worked()
        time.sleep(QUIET)
        if _worked() - before < 0.2 * QUIET:
            return


def _worked() -> float:
    """Processor seconds of this process and of those it started with multiprocessing."""
    own = os.times()
    total = own.user + own.system
    for child in multiprocessing.active_children():
        try:
            fields = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:  # gone, or no Linux
            continue
        total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total
