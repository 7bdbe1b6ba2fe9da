"""How many processes share a run, and which of them this is: as torchrun or SLURM says in the environment. No torch.

`launch` is torchrun on one machine, with restarts: `stopgrad train ... --processes N`. A process that ends with an
error of its own (a wrong setting, a full disk) would only fail again: its exit code is left in a file, by which the
others and their restarts end at once. One that was killed has left none, and all begin again from the last state.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
from collections.abc import MutableMapping, Sequence
from pathlib import Path
from typing import Any

from stopgrad.contracts import ConfigError

RESTARTS = 10  # a restart may itself fail: gloo is refused where a neighbour is not up yet
VERDICT = "STOPGRAD_EXIT_FILE"  # where the first process to end with an error of its own writes its exit code
LOST = ("Connection closed by peer", "Connection reset by peer", "Connection refused", "remote process exited")
BY_SIGNAL = (75, 130, 143)  # exit codes of a run that was told to end
PORT = 20_000  # and so many above it: for the processes of a SLURM step to meet
PORTS = 20_000
MOST = 1024


def announce(environment: MutableMapping[str, str] = os.environ) -> None:
    """A SLURM step of several tasks, in torchrun's words; nothing where torchrun has spoken, or there is one."""
    tasks = environment.get("SLURM_STEP_NUM_TASKS", "1")
    if "RANK" in environment or "SLURM_PROCID" not in environment or tasks == "1":
        return
    nodes = environment.get("SLURM_STEP_NODELIST", "127.0.0.1")
    job = "".join(c for c in environment.get("SLURM_JOB_ID", "0") if c.isdigit())
    environment.update(
        RANK=environment["SLURM_PROCID"],
        WORLD_SIZE=tasks,
        LOCAL_RANK=environment.get("SLURM_LOCALID", "0"),
        MASTER_ADDR=environment.get("MASTER_ADDR", first_of(nodes)),
        MASTER_PORT=environment.get("MASTER_PORT", str(PORT + int(job or 0) % PORTS)),
    )


def first_of(nodes: str) -> str:
    """The first name in a SLURM list of nodes: `gpu[003-007,9],cpu1` -> gpu003."""
    head, bracket, rest = nodes.partition("[")
    if not bracket or "," in head:
        return nodes.split(",")[0]
    return head + rest.split("]")[0].split(",")[0].split("-")[0]


def cores() -> int:
    """Those this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def rank() -> int:
    return int(os.environ.get("RANK", "0"))


def how_many() -> int:
    """How many share a batch."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    """Whether this process writes the run's folder."""
    return rank() == 0


def is_restarted() -> bool:
    """Whether `launch` has begun this process anew because one of its neighbours was lost. Of a torchrun of the user's
    nobody knows whose the folder is that a restart finds."""
    return VERDICT in os.environ and int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


def agreed(folder: Path) -> Path:
    """What the first of our processes called the run, for all of them and for their restarts; `folder` where there is
    one process."""
    verdict = os.environ.get(VERDICT)
    if not verdict:
        return folder
    kept, own = Path(verdict).with_name("folder"), Path(verdict).with_name(f"folder-{os.getpid()}")
    own.write_text(str(folder))
    with contextlib.suppress(FileExistsError):
        os.link(own, kept)  # whole or not at all, and the first one stays
    own.unlink()
    return Path(kept.read_text())


def already_over() -> int:
    """The exit code that another of our processes, or this one before its restart, has left; 0 where none has."""
    path = Path(os.environ.get(VERDICT) or os.devnull)
    text = path.read_text() if path.is_file() else ""
    return int(text) if text.isdecimal() else 0


def leave(code: int) -> bool:
    """Tells the other processes how this one ends; whether it is the first to, and so the one that says why.

    Not after a signal: torchrun sends one to those that are left where one was killed, to begin them again.
    """
    path = os.environ.get(VERDICT)
    if not path or code in BY_SIGNAL:
        return is_first()
    if already_over():
        return False
    Path(path).write_text(str(code))
    return True


def lost_a_neighbour(error: BaseException) -> bool:
    """Whether this is what the collectives raise where another process is gone."""
    return how_many() > 1 and isinstance(error, RuntimeError) and any(word in str(error) for word in LOST)


def launch(words: Sequence[str], processes: int) -> int:
    """Runs `python -m stopgrad WORDS` so many times at once, as torchrun does, and returns the exit code of all.

    Where one is killed, all are begun again, at most RESTARTS times. Raises ConfigError for a number that can't be.
    """
    if not 1 <= processes <= MOST:
        raise ConfigError(f"--processes must be from 1 to {MOST}, got {processes}")
    import logging

    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    # torch's words for a child that failed are a page; ours have said why
    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)
    config: Any = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id="stopgrad",
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=RESTARTS,
        start_method="spawn",
        signals_to_handle="SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1",
    )
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores() // processes)))
    with tempfile.TemporaryDirectory(prefix="stopgrad-") as folder:
        os.environ[VERDICT] = str(Path(folder) / "exit")
        code = 0
        try:
            elastic_launch(config, sys.executable)("-m", "stopgrad", *words)
        except ChildFailedError as error:
            code = _code_of(error.get_first_failure()[1].exitcode)
        except SignalException as error:
            code = _code_of(-int(error.sigval))
        finally:
            left = already_over()
            del os.environ[VERDICT]
        return left or code


def _code_of(exitcode: int) -> int:
    """Of a process that was ended by a signal, 128 and its number, as a shell has it; SIGUSR1's is a run's own."""
    if exitcode == -signal.SIGUSR1:
        return BY_SIGNAL[0]
    return 128 - exitcode if exitcode < 0 else exitcode or 1
