"""Signals: the first asks for a clean end at the next step boundary, a second one ends at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

INTERRUPTED, TERMINATED = 130, 143
EXIT_CODES = {signal.SIGINT: INTERRUPTED, signal.SIGTERM: TERMINATED}


class Asked:
    """Whether a signal asked the run to end, and with which exit code."""

    def __init__(self) -> None:
        self.exit_code = 0

    def handle(self, number: int, frame: FrameType | None) -> None:
        code = EXIT_CODES[signal.Signals(number)]
        if self.exit_code:
            os._exit(code)
        self.exit_code = code


class Terminated(KeyboardInterrupt):
    """SIGTERM where no loop is there to notice it: while data is opened, minutes are measured, features evaluated."""


@contextmanager
def raised() -> Iterator[None]:
    """SIGTERM raises Terminated inside, as SIGINT raises KeyboardInterrupt; inside the loop its own way goes first."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def terminate(number: int, frame: FrameType | None) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def watched() -> Iterator[Asked]:
    """SIGINT and SIGTERM are noted instead of raised while inside; outside the main thread nothing changes."""
    asked = Asked()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = {number: signal.signal(number, asked.handle) for number in EXIT_CODES}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
