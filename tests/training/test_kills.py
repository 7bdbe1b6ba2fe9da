"""A run that is killed at random moments ends with the bits of one that never was."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from stopgrad.rundir import MEASURED_FIELDS, RunDir

ROOT = Path(__file__).resolve().parents[2]
MEASURED_RESULTS = {"images_per_second", "peak_memory_mb"}


def comparable(path: Path) -> dict[str, Any]:
    """Everything a run leaves but what measures time or memory."""
    run = RunDir(path)
    log = [{k: v for k, v in line.items() if k not in MEASURED_FIELDS} for line in run.read_log()]
    results = [row for row in json.loads(run.results.read_text()) if row["name"] not in MEASURED_RESULTS]
    newest = max(run.checkpoints.glob("*.ckpt"))
    state = torch.load(newest, weights_only=True)
    del state["log_length"]  # bytes of the log, whose times have more or fewer digits
    return {
        "encoder": run.encoder.read_bytes(),
        "log": log,
        "results": results,
        "newest": [newest.name, *flat(state)],
        "state": run.state(),
    }


def flat(value: Any) -> list[Any]:
    """A checkpoint as a list that compares to the bit; its file may lay the same tensors out in another order."""
    if isinstance(value, dict):
        return [item for key in sorted(value, key=str) for item in (key, *flat(value[key]))]
    if isinstance(value, list | tuple):
        return [item for inner in value for item in flat(inner)]
    if isinstance(value, torch.Tensor):
        return [str(value.dtype), tuple(value.shape), value.numpy().tobytes()]
    return [value]


def killed_run(tmp_path: Path, kills: int, *settings: str) -> None:
    command = [sys.executable, "-m", "tests.training.kills", str(tmp_path), str(kills), "0", *settings]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    whole = comparable(tmp_path / "whole")
    assert [line["step"] for line in whole["log"]] == [0, *range(5, 49, 5), 48]
    for name in ("again", *(path.name for path in tmp_path.glob("killed*"))):
        if not (tmp_path / name / "results.json").exists():
            continue
        other = comparable(tmp_path / name)
        assert not [part for part in whole if whole[part] != other[part]], f"{name} differs from the whole run"
        assert not list((tmp_path / name).rglob("*.tmp"))
    assert (tmp_path / "killed" / "results.json").exists()


def test_ten_kills_change_no_bit_of_weights_log_or_results(tmp_path: Path) -> None:
    killed_run(tmp_path, 10)


@pytest.mark.slow
@pytest.mark.parametrize("target", ["momentum", "shared"])
def test_forty_kills_change_no_bit_with_other_targets(tmp_path: Path, target: str) -> None:
    killed_run(tmp_path, 40, f"method.target={target}")
