"""Two gloo processes with half a batch each give the gradients of one process with all of it."""

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.distributed.two_processes import CASES


@pytest.fixture(scope="module")
def answers() -> list[dict[str, Any]]:
    """What each of the two processes printed; one group serves all tests."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = Path(__file__).with_name("two_processes.py")
    command = [sys.executable, "-W", "ignore", str(script)]
    processes = [
        subprocess.Popen([*command, str(rank), str(port)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
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
    return printed


@pytest.mark.parametrize("case", CASES)
def test_loss_gradients_and_statistics_equal_those_of_one_process(answers: list[dict[str, Any]], case: str) -> None:
    loss, grads, stats = answers[0][case]["one"]
    for rank in range(2):
        two_loss, two_grads, two_stats = answers[rank][case]["two"]
        assert two_loss == pytest.approx(loss, rel=1e-9)
        assert len(two_grads) == len(grads) > 10
        for ours, theirs in zip(two_grads + two_stats, grads + stats):
            a, b = torch.tensor(ours, dtype=torch.float64), torch.tensor(theirs, dtype=torch.float64)
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-10)


def test_gather_is_in_rank_order_and_its_backward_sums_over_processes(answers: list[dict[str, Any]]) -> None:
    assert [answer["gathered"] for answer in answers] == [[1.0, 1.0, 2.0, 2.0]] * 2
    assert [answer["gather"] for answer in answers] == [[2.0, 4.0], [6.0, 8.0]]


def test_a_flag_raised_by_one_is_seen_by_all_and_the_firsts_number_is_everybodys(answers: list[dict[str, Any]]) -> None:
    assert [answer["any"] for answer in answers] == [True, True]
    assert [answer["first"] for answer in answers] == [7, 7]
