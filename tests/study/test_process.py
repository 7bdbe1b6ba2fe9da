"""One run in a process of its own: how it says how it ended, and what becomes of it when we are stopped."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stopgrad.recipe.text import dump, override
from stopgrad.recipes import recipe_named
from stopgrad.rundir import RunDir
from stopgrad.study.measured import read_finished
from stopgrad.study.process import in_a_process
from tests.training.small_run import SETTINGS


def recipe(folder: Path, *settings: str) -> Path:
    path = folder / "small.yaml"
    path.write_text(dump(override(recipe_named("simsiam"), (*SETTINGS, *settings))))
    return path


def test_a_run_has_a_process_of_its_own_and_says_that_it_is_done(tmp_path: Path) -> None:
    assert in_a_process(tmp_path, "a", recipe(tmp_path, "loop.epochs=1"), 3, 0.0) == (0, "")
    run, found = read_finished(tmp_path / "a")
    assert found.seed == 3
    assert found.loop.epochs == 1
    assert run.values["peak_memory_mb"] > 0
    assert int((tmp_path / "a" / "lock").read_text()) != os.getpid()  # who had it


def test_an_error_comes_back_as_its_sentence_and_code(tmp_path: Path) -> None:
    code, why = in_a_process(tmp_path, "a", tmp_path / "none.yaml", 0, 0.0)
    assert code == 66
    assert "none.yaml: no such recipe" in why
    assert "\n" not in why


def test_a_process_that_dies_is_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOPGRAD_FAILPOINT", "after_write")
    code, why = in_a_process(tmp_path, "a", recipe(tmp_path), 0, 0.0)
    assert code == 137
    assert "ended with code 137 and did not say why; the same command tries again" in why


PARENT = """
import signal, sys
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have told its background jobs to ignore it
from stopgrad.study.process import in_a_process
try:
    in_a_process(Path(sys.argv[1]), "a", Path(sys.argv[2]), 0, 0.0)
except KeyboardInterrupt:
    sys.exit(130)
"""


def wait_until(what: object, seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not what():  # type: ignore[operator]
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def test_a_run_saves_its_state_when_its_parent_is_stopped_or_killed(tmp_path: Path) -> None:
    """Ctrl-C reaches the child through its parent; of a parent that was killed it hears by the pipe."""
    run = RunDir(tmp_path / "a")
    words = [sys.executable, "-c", PARENT, str(tmp_path), str(recipe(tmp_path, "loop.epochs=100000"))]
    steps = 0

    def further() -> bool:
        log = run.read_log()
        return bool(log) and log[-1]["step"] >= steps + 20

    for number, code in ((signal.SIGINT, 130), (signal.SIGKILL, -9)):
        parent = subprocess.Popen(words, stderr=subprocess.DEVNULL, start_new_session=True)
        try:
            wait_until(further)
            assert run.state()["state"] == "running"
        finally:
            os.killpg(parent.pid, number)  # as a terminal does
        assert parent.wait() == code
        wait_until(lambda: run.state()["state"] != "running")
        assert run.state()["state"] == "interrupted"
        assert run.state()["exit_code"] == 143
        found = run.newest_checkpoint(print)
        assert found is not None
        steps = int(found[0].stem.removeprefix("step"))
        assert steps >= run.read_log()[-1]["step"]
        with run.locked():  # the child is gone
            pass
