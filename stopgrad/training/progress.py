"""Progress on the terminal: one moving line where there is one, plain lines where output goes to a file or a pipe."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Mapping
from typing import Any, TextIO

from stopgrad.contracts import Clock

PLAIN_SECONDS = 15.0  # between plain lines
SHOWN = {
    "loss": "loss {:.3f}",
    "std_ratio": "std_ratio {:.2f}",
    "accuracy": "accuracy {:.1f}",  # of a run that is taught
    "knn_top1": "kNN {:.1f}",
}


def time_left(seconds: float) -> str:
    """hours:minutes:seconds, hours only where there are some."""
    minutes, rest = divmod(max(0, int(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class Progress:
    """Says what the loop tells it. `quiet` prints nothing (processes other than the first, tests)."""

    def __init__(self, stream: TextIO | None = None, quiet: bool = False) -> None:
        self.stream = stream or sys.stderr
        self.quiet = quiet
        self.moving = not quiet and self.stream.isatty()
        self.begin, self.first_step = 0.0, -1
        self.printed = float("-inf")
        self.kept: dict[str, Any] = {}
        self.many = "images"  # what samples are called

    def say(self, line: str) -> None:
        if not self.quiet:
            self._clear()
            print(line, file=self.stream, flush=True)

    def reading(self, done: int, total: int) -> None:
        """Samples decoded into the store so far, the first time a source is used."""
        now = time.monotonic()
        if not self.quiet and now - self.printed > (0.2 if self.moving else PLAIN_SECONDS):
            self.printed = now
            self._show(f"reading {self.many} {done:,}/{total:,} (once; kept decoded for the next runs)")

    def step(self, clock: Clock, fields: Mapping[str, Any]) -> None:
        """Called with the fields of a log line; `clock.step` steps are done."""
        now = time.monotonic()
        if self.first_step < 0:
            self.begin, self.first_step = now, clock.step
        self.kept.update({name: value for name, value in fields.items() if value is not None})
        finished = clock.step >= clock.total_steps
        if self.quiet or not (self.moving or finished or now - self.printed > PLAIN_SECONDS):
            return
        self.printed = now
        text = self._text(clock, now)
        if finished:
            self.say(text)
        else:
            self._show(text)

    def _text(self, clock: Clock, now: float) -> str:
        done = clock.step - self.first_step
        left = (now - self.begin) / done * (clock.total_steps - clock.step) if done else float("nan")
        epochs = -(-clock.total_steps // clock.steps_per_epoch)
        parts = [f"epoch {min(clock.epoch + 1, epochs)}/{epochs}", f"step {clock.step}/{clock.total_steps}"]
        for name, form in SHOWN.items():
            if name in self.kept:
                parts.append(form.format(self.kept[name]))
        if "verdict" in self.kept:
            parts.append(str(self.kept["verdict"]))
        if "images_per_second" in self.kept:
            parts.append(f"{self.kept['images_per_second']:.0f} {self.many.partition(' ')[0]}/s")
        if left == left:
            parts.append(f"{time_left(left)} left")
        return "  ".join(parts)

    def close(self) -> None:
        """Leave the terminal's line clean."""
        if not self.quiet:
            self._clear()

    def _show(self, text: str) -> None:
        """On the moving line where there is one, else as a line of its own."""
        if not self.moving:
            self.say(text)
            return
        self._clear()
        self.stream.write(text[: shutil.get_terminal_size().columns - 1])
        self.stream.flush()

    def _clear(self) -> None:
        if self.moving:
            self.stream.write("\r\x1b[2K")
            self.stream.flush()
