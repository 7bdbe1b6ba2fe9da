"""The parent's side of `child`: start one run, hear how it ended, hand signals on."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path

Said = tuple[int, str]  # how a run ended: exit code, and why it is not 0


def in_a_process(out: Path, name: str, recipe: Path, seed: int, minutes: float) -> Said:
    """One run as a child (stopgrad.study.child), and how it ended. Ctrl-C and SIGTERM are handed on."""
    words = [str(out), name, str(recipe), str(seed), str(minutes)]
    with subprocess.Popen(
        [sys.executable, "-m", "stopgrad.study.child", *words],
        stdin=subprocess.PIPE,  # closes when we are gone
        stdout=subprocess.PIPE,
        start_new_session=True,  # else a terminal's Ctrl-C would reach it twice, and the second means: at once
    ) as child:
        assert child.stdout is not None
        try:
            answer = child.stdout.read()
            code = child.wait()
        except KeyboardInterrupt:
            _end(child)
            raise
    with contextlib.suppress(ValueError, KeyError, TypeError):
        said = json.loads(answer)
        return int(said["code"]), str(said["message"])
    return code or 1, _crashed(code)


def _crashed(code: int) -> str:
    if code < 0:
        why = " (out of memory, as a rule; --set loop.batch_size=N below the preset's needs less)" if code == -9 else ""
        return f"its process was ended by signal {-code}{why}; the same command tries again"
    return f"its process ended with code {code} and did not say why; the same command tries again"


def _end(child: subprocess.Popen[bytes]) -> None:
    """Ask a child to save its state and end; a further Ctrl-C is handed on as well, and ends it at once."""
    while True:
        child.terminate()
        try:
            child.wait()
            return
        except KeyboardInterrupt:
            continue
