"""Start-up: from the command to the first word of `--help`, and to the first finished step of a run.

Compiled modules are kept, as an installed package has them (the first call of each, not timed, may still compile).
Cold: the cache of decoded images is empty; warm: the second run. The files of Python itself are warm in both.
"""

from __future__ import annotations

import builtins
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.memory import plain_environment
from benchmarks.pairs import ROUNDS, Goal, Pair, alone, paired

POLL = 0.02  # seconds between two looks at the log
PATIENCE = 300.0  # seconds a run gets to its first step
OURS = Path(sys.executable).with_name("stopgrad")
# Their imports are told apart. torch's optimisers bring torch._dynamo in when the first is made.
HEAVY = ("torch", "torch._dynamo", "torchvision", "timm", "sklearn", "scipy", "cv2", "numpy", "cyclopts")
LIGHTLY = Path(sys.executable).with_name("lightly-ssl-train")


def took(command: Sequence[str | Path], cache: Path) -> float:
    """Seconds from the start of a process to its end."""
    begin = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env=plain_environment(cache))
    seconds = time.perf_counter() - begin
    if done.returncode:
        raise SystemExit(f"bench: {command[0]} failed: {done.stderr.strip().splitlines()[-1:]}")
    return seconds


def help_text(rounds: int = ROUNDS) -> list[Pair]:
    """`stopgrad --help` beside an import of torch and beside the help of lightly's command, in turns."""
    commands: dict[str, tuple[str | Path, ...]] = {
        "stopgrad --help": (OURS, "--help"),
        "python -c 'import torch'": (sys.executable, "-c", "import torch"),
        "lightly-ssl-train --help": (LIGHTLY, "--help"),
    }
    with tempfile.TemporaryDirectory(prefix="stopgrad-bench-") as cache:
        for command in commands.values():
            took(command, Path(cache))
        seconds: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(rounds):
            for name, command in commands.items():
                seconds[name].append(took(command, Path(cache)))
    ours, *rivals = commands
    pairs = [alone(f"`{ours}`", "seconds", seconds[ours], goal=Goal(floor=0.5, target=0.3, at="most"))]
    for rival in rivals:
        rows = list(zip(seconds[ours], seconds[rival], strict=True))
        pairs.append(paired(f"`{ours}`: share of the rival's", "seconds", rows, rival))
    return pairs


# --- the first step ---------------------------------------------------------------------------------------------------


def to_first_step(folder: Path, cache: Path, settings: Sequence[str]) -> float:
    """Seconds from the start of `stopgrad train simsiam/scenes` until its log has the line of step 1; then stops it."""
    from stopgrad.rundir import RunDir

    run = RunDir(Path(tempfile.mkdtemp(dir=folder)) / "run")
    said = folder / "said.txt"
    command = [str(OURS), *words(run.path), *settings]
    with said.open("wb") as file:
        begin = time.perf_counter()
        process = subprocess.Popen(command, stdout=file, stderr=file, env=plain_environment(cache))
        try:
            while not any(line["step"] >= 1 for line in run.read_log()):
                if process.poll() is not None or time.perf_counter() - begin > PATIENCE:
                    last = said.read_text(errors="replace").strip().splitlines()[-1:]
                    raise SystemExit(f"bench: the run did not get to its first step: {last}")
                time.sleep(POLL)
            return time.perf_counter() - begin
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()


def words(run: Path) -> list[str]:
    """The command of a run in the folder `run`, which logs every step."""
    where = ["--out", str(run.parent), "--name", run.name]
    return ["train", "simsiam/scenes", *where, "--set", "loop.log_every_steps=1"]


def first_step(settings: Sequence[str] = (), rounds: int = ROUNDS) -> list[Pair]:
    """`train simsiam/scenes` to its first finished step: nothing decoded yet, and the second time."""
    cold, warm, parts = [], [], []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory(prefix="stopgrad-bench-") as name:
            folder, cache = Path(name), Path(name) / "cache"
            cold.append(to_first_step(folder, cache, settings))
            warm.append(to_first_step(folder, cache, settings))
            parts.append(stages(folder, cache, settings))
    goes = ", ".join(f"{stage} {statistics.median(part[stage] for part in parts):.2f}" for stage in parts[0])
    note = f"on the CPU; seconds of a warm start, timed in runs of their own: {goes}"
    return [
        alone(
            "`train simsiam/scenes` to the first step, warm",
            "seconds",
            warm,
            goal=Goal(floor=10, target=5, at="most"),
            note=note,
        ),
        alone("`train simsiam/scenes` to the first step, cold", "seconds", cold, note="renders all scenes once"),
    ]


# --- where the seconds go ---------------------------------------------------------------------------------------------


def stages(folder: Path, cache: Path, settings: Sequence[str]) -> dict[str, float]:
    """Seconds of each stage of one start, from a process with timers in it."""
    run = Path(tempfile.mkdtemp(dir=folder)) / "run"
    command = [sys.executable, "-m", "benchmarks.start", repr(time.time()), *words(run), *settings]
    done = subprocess.run(command, capture_output=True, text=True, env=plain_environment(cache))
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        raise SystemExit(f"bench: the timed start failed: {done.stderr.strip().splitlines()[-1:]}")
    found: dict[str, float] = json.loads(lines[-1])
    return found


def child(begin: float, command: list[str]) -> None:
    """Runs the command up to its first step and prints {stage: seconds}."""
    marks = [("", begin)]

    def mark(stage: str) -> None:
        marks.append((stage, time.time()))

    def timed(owner: Any, name: str, before: str, after: str, then: Callable[[], None] = lambda: None) -> None:
        """owner.name, which ends the stage `before` when it is called first, and `after` when it returns."""
        work = getattr(owner, name)

        def instead(*args: Any, **named: Any) -> Any:
            setattr(owner, name, work)
            mark(before)
            found = work(*args, **named)
            mark(after)
            then()
            return found

        setattr(owner, name, instead)

    plain, around = builtins.__import__, ["python"]  # stages that are interrupted by an import, innermost last

    def importing(name: str, *rest: Any) -> Any:
        """Import; a large library that is new becomes a stage of its own, wherever it is first asked for."""
        new = [one for one in (name.partition(".")[0], name) if one in HEAVY and one not in sys.modules]
        if not new:
            return plain(name, *rest)
        mark(around[-1])
        around.append(f"import {new[0]}")
        found = plain(name, *rest)
        mark(around.pop())
        return found

    builtins.__import__ = importing  # type: ignore[assignment]
    mark("python")
    around[:] = ["import the rest"]
    from stopgrad import cli
    from stopgrad.assemble import build, train
    from stopgrad.cli import app  # noqa: F401
    from stopgrad.training import loop
    from stopgrad.training.watch import Watch

    mark(around[0])
    around[:] = ["the rest"]

    def end() -> None:
        seconds: dict[str, float] = {}
        for (_, last), (stage, at) in pairwise(marks):
            seconds[stage] = seconds.get(stage, 0.0) + at - last
        print(json.dumps(seconds), flush=True)
        os._exit(0)  # nothing of this run is wanted

    timed(train, "open_source", "the rest", "open the store")
    timed(train, "build_job", "the rest", "optimiser, watched views")
    timed(build, "build_method", "the rest", "build the model")
    timed(Watch, "__call__", "the rest", "step-0 monitors")
    timed(loop, "one_step", "wait for views", "first step", end)
    sys.exit(cli.run(command, debug=True))


MEASURES: dict[str, Callable[[], list[Pair]]] = {"help": help_text, "first_step": first_step}

if __name__ == "__main__":
    child(float(sys.argv[1]), sys.argv[2:])
