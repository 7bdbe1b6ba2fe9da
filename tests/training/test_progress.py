"""Progress: a moving line on a terminal, plain lines elsewhere, nothing when quiet."""

import io

from stopgrad.contracts import Clock
from stopgrad.training.progress import Progress, time_left


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


FIELDS = {"loss": -0.5, "std_ratio": 0.9, "images_per_second": 700.0, "verdict": "healthy", "knn_top1": 33.3}


def test_a_file_gets_plain_lines_now_and_then_and_always_the_last() -> None:
    stream = io.StringIO()
    progress = Progress(stream)
    for step in (1, 2, 3, 100):
        progress.step(Clock(step, 100, 10), FIELDS)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 2  # the first, then none for PLAIN_SECONDS, then the last
    assert lines[0] == "epoch 1/10  step 1/100  loss -0.500  std_ratio 0.90  kNN 33.3  healthy  700 images/s"
    assert lines[1].startswith("epoch 10/10  step 100/100")
    assert "\r" not in stream.getvalue()


def test_a_terminal_gets_one_line_that_moves() -> None:
    stream = Terminal()
    progress = Progress(stream)
    progress.step(Clock(1, 100, 10), FIELDS)
    progress.step(Clock(2, 100, 10), FIELDS)
    assert "\n" not in stream.getvalue()
    assert stream.getvalue().count("\r") == 2
    progress.say("a message")
    assert stream.getvalue().endswith("\r\x1b[2Ka message\n")


def test_quiet_says_nothing() -> None:
    stream = io.StringIO()
    progress = Progress(stream, quiet=True)
    progress.say("x")
    progress.reading(1, 2)
    progress.step(Clock(1, 1, 1), FIELDS)
    progress.close()
    assert stream.getvalue() == ""


def test_reading_images_is_told_the_first_time() -> None:
    stream = io.StringIO()
    Progress(stream).reading(1000, 50_000)
    assert stream.getvalue() == "reading images 1,000/50,000 (once; kept decoded for the next runs)\n"


def test_time_left_is_short_for_short_and_long_for_long() -> None:
    assert [time_left(seconds) for seconds in (5, 65, 3665, -1)] == ["0:05", "1:05", "1:01:05", "0:00"]
