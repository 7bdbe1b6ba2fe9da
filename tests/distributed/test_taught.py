"""Fine-tuning and distillation: two gloo processes with half a batch each are one process with all of it."""

import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.methods.taught import SETTINGS


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict[str, Any]]]:
    """What each of the two processes came to."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    files = [tmp_path_factory.mktemp("taught") / f"{rank}.pt" for rank in range(2)]
    command = [sys.executable, "-W", "ignore", "-m", "tests.distributed.two_taught"]
    processes = [
        subprocess.Popen(
            [*command, str(rank), str(port), str(files[rank])],
            stderr=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).resolve().parents[2],
        )
        for rank in range(2)
    ]
    for process in processes:
        _, err = process.communicate(timeout=240)
        if process.returncode:
            [other.kill() for other in processes if other.poll() is None]
            [other.communicate() for other in processes if other is not process]
        assert process.returncode == 0, err
    return [torch.load(file, weights_only=True) for file in files]


def close(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], rtol=1e-6, atol=1e-10, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize("case", SETTINGS)
def test_losses_gradients_and_state_equal_those_of_one_process(
    answers: list[dict[str, dict[str, Any]]], case: str
) -> None:
    one = answers[0][case]["one"]
    assert all(len(gradients) > 10 for gradients in one["gradients"])
    for rank in range(2):
        two = answers[rank][case]["two"]
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-9)
        for ours, theirs in zip(two["gradients"], one["gradients"], strict=True):
            close(ours, theirs)
        close(two["state"], one["state"])
