"""One run of a comparison, in a process of its own: `python -m stopgrad.study.child OUT NAME RECIPE SEED MINUTES`.

It trains RECIPE into OUT/NAME, or goes on with what is there, and says on its standard output, as JSON, how it ended.
Its standard input is a pipe that its parent never writes to: where it closes, the parent is gone, however it went, and
the run ends as after a signal, with its state saved.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from stopgrad.contracts import StopgradError
from stopgrad.rundir import RunDir
from stopgrad.training.signals import INTERRUPTED

DEFECT = 1


def main(words: Sequence[str]) -> int:
    """Returns the exit code, which the JSON holds as well."""
    with contextlib.suppress(KeyboardInterrupt):
        out, name, recipe, seed, minutes = words
        answer = os.dup(1)
        os.dup2(2, 1)  # what a library prints is no answer
        threading.Thread(target=end_with_parent, daemon=True).start()
        code, message = carry_out(Path(out), name, Path(recipe), int(seed), float(minutes))
        os.write(answer, json.dumps({"code": code, "message": message}).encode())
        return code
    return INTERRUPTED


def end_with_parent() -> None:
    """Waits until the parent is gone, which closes the pipe; then asks this process to end."""
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def carry_out(out: Path, name: str, recipe: Path, seed: int, minutes: float) -> tuple[int, str]:
    """Train or go on: (exit code, why it is not 0). minutes: 0 where the recipe's epochs say how long."""
    from stopgrad.assemble import api

    run = RunDir(out / name)
    try:
        if run.recipe.exists():
            api.resume(run.path)
        else:
            api.train(recipe, out=out, name=name, seed=seed, minutes=minutes or None)
    except StopgradError as error:
        return error.exit_code, str(error)
    except Exception as error:  # a defect; what others came to is not lost by it
        return DEFECT, f"this is a defect of stopgrad: {type(error).__name__}: {error}; see {run.error_log}"
    return 0, ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
