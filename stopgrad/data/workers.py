"""Work in threads whose results come in order; a thread that hangs is named instead of waited for."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, TypeVar

from stopgrad.contracts import DataError
from stopgrad.data.folder import escape_name
from stopgrad.processes import cores

S = TypeVar("S")
T = TypeVar("T")

# Looks, a second apart, that find a thread at the same file while its result is waited for. Counted and not timed: of a
# process that was stopped and goes on (SIGSTOP, a laptop's lid) no thread is to blame.
PATIENCE = 60
LOOK = 1.0  # seconds
FAREWELL = 5.0  # seconds that a thread has to end in, once nobody wants its results


class Busy:
    """What each thread is at, by name."""

    def __init__(self) -> None:
        self.now: dict[int, tuple[bytes, object]] = {}  # thread -> name, and something no other turn has
        self._looks: dict[int, tuple[object, int]] = {}

    @contextlib.contextmanager
    def at(self, name: bytes) -> Iterator[None]:
        me = threading.get_ident()
        self.now[me] = name, object()
        try:
            yield
        finally:
            del self.now[me]

    def stuck(self) -> bytes | None:
        """A name that `PATIENCE` looks in a row have found a thread at."""
        looks = {}
        for thread, (name, turn) in list(self.now.items()):
            before, count = self._looks.get(thread, (None, 0))
            looks[thread] = turn, count + 1 if before is turn else 1
            if looks[thread][1] > PATIENCE:
                return name
        self._looks = looks
        return None


class _Task(Generic[T]):
    """A group's turn: its results, or what went wrong, once `done`."""

    def __init__(self, work: Callable[[], list[T]]) -> None:
        self.work = work
        self.done = threading.Event()
        self.results: list[T] = []
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self.results = self.work()
        except BaseException as error:  # belongs to the thread that waits
            self.error = error
        self.done.set()


def in_threads(work: Callable[[S], list[T]], groups: Iterable[S], busy: Busy | None = None) -> Iterator[T]:
    """work(group) in threads; results in order, a bounded number ahead. `groups` is drawn in the calling thread.

    busy: what `work` says it is at. Raises DataError with a file's name where a thread has been at it for a minute, and
    leaves that thread behind: threads are daemons, which end with the process.
    """
    count = min(16, cores())
    todo: queue.SimpleQueue[_Task[Any] | None] = queue.SimpleQueue()
    ahead: deque[_Task[T]] = deque()
    threads = [
        threading.Thread(target=_serve, args=(todo,), name=f"stopgrad-data-{i}", daemon=True) for i in range(count)
    ]
    for thread in threads:
        thread.start()
    try:
        for group in groups:
            ahead.append(_Task(lambda group=group: work(group)))  # type: ignore[misc]
            todo.put(ahead[-1])
            if len(ahead) > count + 2:
                yield from _result(ahead.popleft(), busy)
        while ahead:
            yield from _result(ahead.popleft(), busy)
    finally:
        with contextlib.suppress(queue.Empty):  # what nobody has begun is not begun
            while True:
                todo.get_nowait()
        for _ in threads:
            todo.put(None)
        for thread in threads:  # they may hold a file that will be closed after us
            thread.join(FAREWELL)


def _serve(todo: queue.SimpleQueue[_Task[Any] | None]) -> None:
    while (task := todo.get()) is not None:
        task.run()


def _result(task: _Task[T], busy: Busy | None) -> list[T]:
    while not task.done.wait(LOOK):
        if busy is not None and (name := busy.stuck()) is not None:
            raise DataError(
                f"reading {escape_name(name)} has not come to an end for {PATIENCE * LOOK:.0f} s; look at that file "
                "and at the disk it is on, take it away, and start again"
            )
    if task.error is not None:
        raise task.error
    return task.results
