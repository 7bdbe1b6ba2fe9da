"""Views for the next steps, made while the model works on this one.

What is made depends on the step alone, so nothing here has state to save: a resumed run asks for the step it needs.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator

from stopgrad.contracts import DataError, Views

LOOK = 1.0  # seconds


class Feed:
    """Iterates over views of steps start .. stop - 1, at most `depth` ahead, made in one background thread."""

    def __init__(self, make: Callable[[int], Views], start: int, stop: int, depth: int) -> None:
        self._make = make
        self._steps = range(start, stop)
        self._ready: queue.Queue[Views | BaseException] = queue.Queue(maxsize=depth)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._work, name="feed", daemon=True)
        self.waited = 0.0  # seconds the model has waited for views

    def __enter__(self) -> Feed:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        while self._thread.is_alive():  # it may be waiting for room
            try:
                self._ready.get_nowait()
            except queue.Empty:
                self._thread.join(timeout=0.05)

    def __iter__(self) -> Iterator[tuple[int, Views]]:
        for step in self._steps:
            begin = time.monotonic()
            item = self._next(step)
            self.waited += time.monotonic() - begin
            if isinstance(item, BaseException):
                raise item
            yield step, item

    def _next(self, step: int) -> Views | BaseException:
        while True:
            try:
                return self._ready.get(timeout=LOOK)
            except queue.Empty:  # is anybody still at it?
                if not self._thread.is_alive() and self._ready.empty():
                    raise DataError(f"step {step}: the thread that makes views is gone; go on with --resume") from None

    def _work(self) -> None:
        try:
            for step in self._steps:
                views = self._make(step)
                self._put(views)
                if self._closed.is_set():
                    return
        except BaseException as error:  # every failure belongs to the thread that trains
            self._put(error)

    def _put(self, item: Views | BaseException) -> None:
        while not self._closed.is_set():
            try:
                self._ready.put(item, timeout=0.1)
                return
            except queue.Full:
                continue
