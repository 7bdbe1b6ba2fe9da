"""A disk that takes no file above some size, as a quota or a full disk would: the run says so, and nothing is lost."""

from __future__ import annotations

import random
import resource
import signal
from collections.abc import Callable
from pathlib import Path

from benchmarks.faults.forks import attempt, ended, undisturbed
from benchmarks.faults.runs import differing
from stopgrad.rundir import RunDir

NO_ROOM = 74


def limited(size: int) -> Callable[[], None]:
    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # else the process ends; ignored, the write fails
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    return limit


def denied(out: Path, method: str, count: int, seed: int) -> list[str]:
    """What went wrong with `count` sizes, drawn between those of the files that a run writes."""
    undisturbed(out, method)
    sizes = sorted({path.stat().st_size for path in (out / "whole").rglob("*") if path.is_file()})
    draw, wrong = random.Random(seed), []
    for turn in range(count):
        place = turn % len(sizes)
        size = draw.randint(sizes[place - 1] if place else 1, sizes[place])
        name = f"denied-{turn}"
        code = ended(attempt(out, name, method, before=limited(size)))
        if code not in (0, NO_ROOM):
            wrong.append(f"{size} bytes at most: ended with code {code}")
        state = RunDir(out / name).state().get("state")
        if code == 0 and state != "finished":
            wrong.append(f"{size} bytes at most: ended well, and its status is {state}")
        if code and (code := ended(attempt(out, name, method))):
            wrong.append(f"{size} bytes at most: can't be gone on with where there is room, code {code}")
        elif found := differing(out / name, out / "whole"):
            wrong.append(f"{size} bytes at most: {', '.join(found)}")
    return wrong
