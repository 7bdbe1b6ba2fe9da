"""A run in a fork, which a fault is done to."""

from __future__ import annotations

import os
import signal
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import torch  # noqa: F401  # imported before the forks

from benchmarks.faults.runs import go_on, start
from stopgrad.assemble import train  # noqa: F401
from stopgrad.contracts import StopgradError


def attempt(out: Path, name: str, method: str, settings: tuple[str, ...] = (), before: Callable[[], None] = int) -> int:
    """Forks a process that starts the run, or goes on with it; its number. It ends with the command's exit code.

    before: done in the child first, such as to break what it will call.
    """
    child = os.fork()
    if child:
        return child
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        before()
        go_on(out / name) if (out / name / "recipe.yaml").exists() else start(out, name, method, *settings)
        os._exit(0)
    except StopgradError as error:
        os._exit(error.exit_code)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def ended(child: int) -> int:
    """Its exit code; minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def undisturbed(out: Path, method: str, settings: tuple[str, ...] = ()) -> float:
    """Makes the run `whole`, and tells how many seconds one takes. Raises RuntimeError where it fails by itself."""
    for name in ("whole", "again"):  # the second one finds a warm store
        begin = time.monotonic()
        if code := ended(attempt(out, name, method, settings)):
            raise RuntimeError(f"{method} ended with code {code} though nobody disturbed it")
    return time.monotonic() - begin
