"""Optional copies of the log: TensorBoard and Weights & Biases. log.jsonl is always written and is the one we read."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from stopgrad.contracts import ConfigError
from stopgrad.rundir import RunDir
from stopgrad.training.config import LoopConfig

Write = Callable[[Mapping[str, Any]], None]


def numbers(line: Mapping[str, Any]) -> dict[str, float]:
    """The fields of a log line that can be drawn as a curve."""
    return {k: float(v) for k, v in line.items() if isinstance(v, int | float) and not isinstance(v, bool)}


@contextmanager
def writers(config: LoopConfig, run: RunDir) -> Iterator[Write]:
    """One function that passes a log line to every writer that was asked for.

    Raises ConfigError before the first step where its package is not installed.
    """
    with ExitStack() as stack:
        targets: list[Write] = []
        if config.tensorboard and run.writes:
            targets.append(stack.enter_context(_tensorboard(run)))
        if config.wandb and run.writes:
            targets.append(stack.enter_context(_wandb(run)))

        def write(line: Mapping[str, Any]) -> None:
            for target in targets:
                target(line)

        yield write


@contextmanager
def _tensorboard(run: RunDir) -> Iterator[Write]:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ConfigError("loop.tensorboard needs the package: pip install 'stopgrad[tensorboard]'") from error
    writer = SummaryWriter(str(run.path / "tensorboard"))

    def write(line: Mapping[str, Any]) -> None:
        for name, value in numbers(line).items():
            if name != "step":
                writer.add_scalar(name, value, int(line["step"]))

    try:
        yield write
    finally:
        writer.close()


@contextmanager
def _wandb(run: RunDir) -> Iterator[Write]:
    try:
        import wandb
    except ImportError as error:
        raise ConfigError("loop.wandb needs the package: pip install 'stopgrad[wandb]'") from error
    # the folder's own id, so that a resumed run goes on in the same session
    session_id = hashlib.sha256(str(run.path.absolute()).encode()).hexdigest()[:16]
    session = wandb.init(project="stopgrad", name=run.path.name, id=session_id, dir=str(run.path), resume="allow")
    try:
        yield lambda line: session.log(numbers(line), step=int(line["step"]))
    finally:
        session.finish()
