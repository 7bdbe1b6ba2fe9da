"""Several processes: what SLURM says in torchrun's words, who speaks, and that one which is killed is begun again."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.faults.runs import METHODS, SETTINGS, differing
from stopgrad import cli, processes
from stopgrad.contracts import ConfigError
from stopgrad.rundir import RunDir

SETTING = ("train", "simsiam/scenes", "--set", *SETTINGS, *METHODS["simsiam"])


def test_a_step_of_slurm_is_said_in_torchrun_s_words() -> None:
    step = {
        "SLURM_PROCID": "5",
        "SLURM_STEP_NUM_TASKS": "8",
        "SLURM_LOCALID": "1",
        "SLURM_STEP_NODELIST": "gpu[003-004]",
        "SLURM_JOB_ID": "123456",
    }
    processes.announce(step)
    assert {name: step[name] for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR")} == {
        "RANK": "5",
        "WORLD_SIZE": "8",
        "LOCAL_RANK": "1",
        "MASTER_ADDR": "gpu003",
    }
    port = int(step["MASTER_PORT"])
    assert 1024 < port < 65_536
    other = {**step, "SLURM_PROCID": "6"}
    del other["RANK"], other["MASTER_PORT"]
    processes.announce(other)
    assert int(other["MASTER_PORT"]) == port


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"SLURM_PROCID": "0", "SLURM_NTASKS": "4"},  # a batch script: there is one of it, whatever srun will start
        {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"},
        {"SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "4", "RANK": "1", "WORLD_SIZE": "2"},  # torchrun inside a step
    ],
)
def test_nothing_is_said_of_one_process_or_over_torchrun(environment: dict[str, str]) -> None:
    before = dict(environment)
    processes.announce(environment)
    assert environment == before


@pytest.mark.parametrize(
    ("nodes", "first"),
    [("a", "a"), ("a,b", "a"), ("gpu[3-7]", "gpu3"), ("gpu[03,07-09],x", "gpu03"), ("a,gpu[1-2]", "a"), ("n1", "n1")],
)
def test_the_first_node_of_a_list(nodes: str, first: str) -> None:
    assert processes.first_of(nodes) == first


def test_the_first_process_to_fail_says_why_and_a_restart_ends_as_it_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(processes.VERDICT, str(tmp_path / "exit"))
    for first in (True, False):
        assert cli.run(["train", "nothing/there"], debug=False) == 2
        assert ("is no method" in capsys.readouterr().err) == first
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert cli.run(["recipes"], debug=False) == 2
    assert capsys.readouterr() == ("", "")
    (tmp_path / "exit").unlink()
    for code in processes.BY_SIGNAL:  # torchrun's own signal to those that are left: they are begun again
        assert processes.leave(code)
    assert processes.already_over() == 0
    assert processes.agreed(Path("runs/a")) == processes.agreed(Path("runs/a-2")) == Path("runs/a")
    monkeypatch.delenv(processes.VERDICT)
    assert processes.agreed(Path("runs/a-2")) == Path("runs/a-2")
    assert not processes.is_restarted()  # by a torchrun of the user's: whose the folder is nobody knows
    assert cli.run(["recipes"], debug=False) == 0


@pytest.mark.parametrize("count", [0, -1, 5000])
def test_a_number_of_processes_that_can_not_be(count: int) -> None:
    with pytest.raises(ConfigError, match=rf"--processes must be from 1 to 1024, got {count}"):
        processes.launch(["recipes"], count)


def test_processes_that_somebody_else_has_started_are_not_started_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert cli.run(["train", "simsiam", "--processes", "2"], debug=False) == 2
    assert "torchrun or SLURM has started 4 already; leave it out" in capsys.readouterr().err


def command(out: Path, name: str, *words: str) -> subprocess.Popen[str]:
    line = [sys.executable, "-m", "stopgrad", *SETTING[:2], "--out", str(out), *words, *SETTING[2:]]
    line += ["--name", name] if name else []
    environment = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE")}
    return subprocess.Popen(line, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def workers_of(parent: int) -> list[int]:
    """Processes below it that are ours."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal() and (folder / "stat").exists():
            words = (folder / "cmdline").read_bytes().split(b"\0")
            ours = int((folder / "stat").read_text().rpartition(")")[2].split()[1]) == parent
            if ours and b"stopgrad" in words and b"train" in words:
                found.append(int(folder.name))
    return found


@pytest.mark.slow  # a restart under load has hung once in five: see docs/reliability.md
@pytest.mark.skipif(not Path("/proc").exists(), reason="looks for the processes in /proc")
def test_a_killed_process_restarts_all_from_the_last_state_to_the_same_bits(tmp_path: Path) -> None:
    whole = command(tmp_path, "whole", "--processes", "2")
    said, _ = whole.communicate(timeout=300)
    assert whole.returncode == 0, said
    assert said.count("Verdict:") == 1  # of two processes one speaks
    (tmp_path / "own").mkdir()
    killed = command(tmp_path / "own", "", "--processes=2")  # the run names itself: once, for its restarts as well
    log = RunDir(tmp_path / "own" / "simsiam-scenes-v1").log
    while killed.poll() is None and not (log.exists() and len(log.read_text().splitlines()) > 3):
        time.sleep(0.02)
    os.kill(workers_of(killed.pid)[-1], signal.SIGKILL)
    said, _ = killed.communicate(timeout=300)
    assert killed.returncode == 0, said
    assert "resumed at step" in said
    assert "defect" not in said
    assert [path.name for path in (tmp_path / "own").iterdir()] == ["simsiam-scenes-v1"]
    assert differing(tmp_path / "own" / "simsiam-scenes-v1", tmp_path / "whole") == []
    assert RunDir(tmp_path / "own" / "simsiam-scenes-v1").state()["state"] == "finished"
