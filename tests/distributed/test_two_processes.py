"""Two gloo processes with half a batch each give the gradients of one process with all of it, and hold the same state
after it: queue in order, bank, centre, correlation matrix, prototypes, momentum weights."""

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.distributed.two_processes import CASES

Answers = list[tuple[dict[str, Any], dict[str, dict[str, Any]]]]  # of each process: what it said, and its tensors


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Answers:
    """What each of the two processes came to; one group serves all tests."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    files = [tmp_path_factory.mktemp("two") / f"{rank}.pt" for rank in range(2)]
    command = [sys.executable, "-W", "ignore", "-m", "tests.distributed.two_processes"]
    processes = [
        subprocess.Popen(
            [*command, str(rank), str(port), str(files[rank])],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).resolve().parents[2],
        )
        for rank in range(2)
    ]
    printed = []
    for process in processes:
        out, err = process.communicate(timeout=240)
        if process.returncode:
            [other.kill() for other in processes if other.poll() is None]
            [other.communicate() for other in processes if other is not process]
        assert process.returncode == 0, err
        printed.append(json.loads(out.splitlines()[-1]))
    return [(said, torch.load(file, weights_only=True)) for said, file in zip(printed, files)]


def close(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], rtol=1e-6, atol=1e-10, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize("case", CASES)
def test_losses_gradients_and_state_equal_those_of_one_process(answers: Answers, case: str) -> None:
    one = answers[0][1][case]["one"]
    assert all(len(gradients) > 8 for gradients in one["gradients"])
    for rank in range(2):
        two = answers[rank][1][case]["two"]
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-9)
        for ours, theirs in zip(two["gradients"], one["gradients"], strict=True):
            close(ours, theirs)
        close(two["state"], one["state"])


def test_gather_is_in_rank_order_and_its_backward_sums_over_processes(answers: Answers) -> None:
    assert [said["gathered"] for said, _ in answers] == [[1.0, 1.0, 2.0, 2.0]] * 2
    assert [said["gather"] for said, _ in answers] == [[2.0, 4.0], [6.0, 8.0]]


def test_a_flag_raised_by_one_is_seen_by_all_and_the_firsts_number_is_everybodys(answers: Answers) -> None:
    assert [said["any"] for said, _ in answers] == [True, True]
    assert [said["first"] for said, _ in answers] == [7, 7]
