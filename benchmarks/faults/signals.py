"""A signal at a random moment: the state of that step is saved, the exit code is the signal's, the rest is not lost."""

from __future__ import annotations

import os
import random
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.faults.forks import attempt, ended, undisturbed
from benchmarks.faults.runs import differing
from stopgrad.rundir import RunDir
from stopgrad.training.signals import EXIT_CODES

WITHIN = 5.0  # seconds from the signal to the end


def told(out: Path, method: str, number: signal.Signals, moment: float, world: int, span: float) -> list[str]:
    """What went wrong with one signal, to one process or to all of `world` at once, after `moment` of a run's span."""
    name = f"told-{number.name}-{world}-{moment:.3f}"
    children = all_of(out, name, method, world)
    time.sleep(moment * span)
    begin = time.monotonic()
    for child in children:
        os.kill(child, number)
    codes = [ended(child) for child in children]
    seconds = time.monotonic() - begin
    wrong = [f"ended {seconds:.1f} s after {number.name}"] if seconds > WITHIN else []
    run = RunDir(out / name)
    if all(code == 0 for code in codes):  # it was over before
        return wrong
    early = not run.recipe.exists()  # before the run was begun there is nothing to save, and nobody who listens
    if not early and any(code not in (EXIT_CODES[number], 0) for code in codes):
        wrong.append(f"exit codes {codes}, not {EXIT_CODES[number]}")
    if not early and world == 1 and run.state().get("state") != "interrupted":
        wrong.append(f"its status is {run.state().get('state')}")
    if any(ended(child) for child in all_of(out, name, method, world)):
        return [*wrong, "could not be gone on with"]
    reference = out / ("whole" if world == 1 else f"whole-{world}")
    return wrong + differing(out / name, reference)


def all_of(out: Path, name: str, method: str, world: int) -> list[int]:
    port = free_port()
    return [attempt(out, name, method, before=as_one_of(world, rank, port)) for rank in range(world)]


def as_one_of(world: int, rank: int, port: int) -> Callable[[], None]:
    """What torchrun tells a process; nothing of one alone."""

    def tell() -> None:
        if world > 1:
            os.environ |= {
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(world),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
            }

    return tell


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def signalled(out: Path, method: str, count: int, seed: int, world: int = 1) -> list[str]:
    """What went wrong with `count` signals, each of the three in turn."""
    span, draw = undisturbed(out, method), random.Random(seed)
    if world > 1:
        begin = time.monotonic()
        if any(ended(child) for child in all_of(out, f"whole-{world}", method, world)):
            return [f"{world} processes failed though nobody disturbed them"]
        span = time.monotonic() - begin
    wrong = []
    for turn in range(count):
        number = tuple(EXIT_CODES)[turn % 3]
        wrong += [f"{number.name}: {what}" for what in told(out, method, number, draw.uniform(0.3, 0.95), world, span)]
    return wrong
