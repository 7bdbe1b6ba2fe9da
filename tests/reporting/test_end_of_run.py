"""Every run leaves a gallery and a report; where that goes wrong, the run is not lost by it."""

import io
import json
import sys
from pathlib import Path

import pytest

from stopgrad.assemble import report as assembled
from stopgrad.cli import run as command
from stopgrad.contracts import StorageError
from stopgrad.rundir import RunDir
from stopgrad.training.progress import Progress
from tests.reporting import made
from tests.training import small_run

pytest.importorskip("jinja2")


def test_a_run_ends_with_a_report_and_one_made_again_is_the_same(tmp_path: Path) -> None:
    path = small_run.start(tmp_path, "a", "loop.epochs=2").path
    run = RunDir(path)
    first = run.report.read_text()
    index = json.loads((run.gallery / "gallery.json").read_text())
    assert index["synthetic"]
    assert index["facts"]["machine"]
    assert "Synthetic data." in first
    assert 'id="map"' in first
    assert run.state()["state"] == "finished"
    assert assembled.report(path) == run.report
    assert run.report.read_text() == first
    for file in run.gallery.iterdir():
        file.unlink()
    assembled.report(path)  # a run from before there were galleries
    again = json.loads((run.gallery / "gallery.json").read_text())
    assert again["neighbours"]["index"] == index["neighbours"]["index"]
    assert again["facts"] == {}


def said(run: RunDir) -> str:
    out = io.StringIO()
    assembled.at_the_end(run, Progress(stream=out))
    return out.getvalue()


def test_without_jinja2_a_line_says_how_to_get_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunDir(made.run(tmp_path / "a", pictures=False))
    monkeypatch.setitem(sys.modules, "jinja2", None)
    assert "pip install 'stopgrad[report]'" in said(run)
    assert not run.report.exists()


def test_what_goes_wrong_is_said_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunDir(made.run(tmp_path / "a", pictures=False))

    def full(path: Path, data: bytes) -> None:
        raise StorageError(f"{path}: disk full: needs {len(data)} bytes")

    monkeypatch.setattr(assembled, "write_bytes", full)
    assert "disk full" in said(run)
    monkeypatch.setattr(assembled, "render", lambda runs: 1 / 0)
    assert "ZeroDivisionError, see" in said(run)
    assert "ZeroDivisionError" in run.error_log.read_text()


def test_only_the_first_process_writes(tmp_path: Path) -> None:
    path = made.run(tmp_path / "a", pictures=False)
    assert said(RunDir(path, writes=False)) == ""
    assert not RunDir(path).report.exists()


def test_the_command_prints_where_the_report_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = (made.run(tmp_path / name, pictures=False) for name in "ab")
    assert command(["report", str(a)], debug=False) == 0
    assert capsys.readouterr().out.startswith(f"{a}/report.html: ")
    assert command(["report", str(a), str(b), "-o", str(tmp_path / "both.html")], debug=False) == 0
    assert (tmp_path / "both.html").exists()
    assert command(["report", str(tmp_path / "none")], debug=False) == 66
    assert "no run there" in capsys.readouterr().err
    assert command(["report"], debug=False) == 2
