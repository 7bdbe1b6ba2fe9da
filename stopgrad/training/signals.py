"""Signals: the first asks for a clean end at the next step boundary, a second one ends at once."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

INTERRUPTED, TERMINATED, PREEMPTED = 130, 143, 75
# SIGUSR1 is what schedulers send some time before they take the machine away (SLURM: --signal=USR1@60)
EXIT_CODES = {signal.SIGINT: INTERRUPTED, signal.SIGTERM: TERMINATED, signal.SIGUSR1: PREEMPTED}
# Seconds: what comes so soon after the first is the same wish, sent to the group and handed on by torchrun or a shell.
ONE_WISH = 0.5


class Asked:
    """Whether a signal asked the run to end, and with which exit code."""

    def __init__(self) -> None:
        self.exit_code = 0
        self._since = 0.0

    def handle(self, number: int, frame: FrameType | None) -> None:
        code, now = EXIT_CODES[signal.Signals(number)], time.monotonic()
        if not self.exit_code:
            self.exit_code, self._since = code, now
        elif now - self._since > ONE_WISH:
            os._exit(code)


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGUSR1 where no loop is there to notice it: while data is opened, minutes are measured, features
    evaluated."""

    def __init__(self, exit_code: int = TERMINATED) -> None:
        super().__init__()
        self.exit_code = exit_code


def code_of(error: KeyboardInterrupt) -> int:
    """The exit code of what ended a run."""
    return error.exit_code if isinstance(error, Terminated) else INTERRUPTED


@contextmanager
def raised() -> Iterator[None]:
    """SIGTERM and SIGUSR1 raise Terminated inside, as SIGINT raises KeyboardInterrupt; inside the loop its own way goes
    first."""

    def terminate(number: int, frame: FrameType | None) -> None:
        raise Terminated(EXIT_CODES[signal.Signals(number)])

    with _handled(terminate, (signal.SIGTERM, signal.SIGUSR1)):
        yield


@contextmanager
def watched() -> Iterator[Asked]:
    """All three are noted instead of raised while inside."""
    asked = Asked()
    with _handled(asked.handle, tuple(EXIT_CODES)):
        yield asked


@contextmanager
def _handled(how: Callable[[int, FrameType | None], None], which: tuple[signal.Signals, ...]) -> Iterator[None]:
    """`which` are handled so while inside; outside the main thread nothing changes."""
    with contextlib.ExitStack() as put_back:
        if threading.current_thread() is threading.main_thread():
            for number in which:
                put_back.callback(signal.signal, number, signal.signal(number, how))
        yield
