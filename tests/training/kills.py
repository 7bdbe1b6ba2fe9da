"""Run by test_kills.py: a run that is killed with SIGKILL at random moments until it is finished.

    python kills.py OUT KILLS SEED

torch is imported once here and never computes here; every attempt is a fork, which costs milliseconds instead of
seconds of imports.
"""

import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path

import torch  # noqa: F401  # imported before the forks

from stopgrad.assemble import train  # noqa: F401
from tests.training.small_run import go_on, start


def attempt(out: Path, name: str, extra: tuple[str, ...]) -> int:
    """Fork a process that starts or continues the run."""
    child = os.fork()
    if child:
        return child
    try:
        go_on(out / name) if (out / name / "recipe.yaml").exists() else start(out, name, *extra)
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def finish(child: int) -> None:
    _, status = os.waitpid(child, 0)
    if os.waitstatus_to_exitcode(status) != 0:
        sys.exit("the run failed by itself")


def main(out: Path, kills: int, seed: int, extra: tuple[str, ...]) -> None:
    finish(attempt(out, "whole", extra))
    begin = time.monotonic()
    finish(attempt(out, "again", extra))  # with a warm store: how long a run takes from start to end
    span = time.monotonic() - begin
    draw = random.Random(seed)
    landed = 0
    while landed < kills:
        child = attempt(out, "killed", extra)
        time.sleep(draw.uniform(0.05, 0.9) * span)
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        landed += 1
        if os.waitstatus_to_exitcode(status) == 0:  # it was finished before: start over, so that kills land in a run
            (out / "killed").rename(out / f"killed-{landed}")
    finish(attempt(out, "killed", extra))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), tuple(sys.argv[4:]))
