"""A run that is killed at random moments ends with the bits of one that never was."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.faults.runs import METHODS, STEPS
from stopgrad.rundir import RunDir

ROOT = Path(__file__).resolve().parents[2]


def killed_run(tmp_path: Path, method: str, kills: int, *settings: str) -> None:
    command = [sys.executable, "-m", "benchmarks.faults.kills", str(tmp_path), method, str(kills), "0", *settings]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    steps = [line["step"] for line in RunDir(tmp_path / "killed").read_log()]
    assert steps == [0, *range(5, STEPS + 1, 5), STEPS]


def test_ten_kills_change_no_bit_of_weights_log_or_results(tmp_path: Path) -> None:
    killed_run(tmp_path, "simsiam", 10)


@pytest.mark.slow
@pytest.mark.parametrize("target", ["momentum", "shared"])
def test_forty_kills_change_no_bit_with_other_targets(tmp_path: Path, target: str) -> None:
    killed_run(tmp_path, "simsiam", 40, f"method.target={target}")


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_kills_change_no_bit_whatever_a_method_remembers(tmp_path: Path, method: str) -> None:
    killed_run(tmp_path, method, 30)
