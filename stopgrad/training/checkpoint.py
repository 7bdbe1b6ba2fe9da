"""One state object, saved between steps: all that a resumed run needs to give the bits of one never interrupted.

The order of images and every view follow from (seed, step), so there is no loader state. Files hold tensors and plain
Python alone and load with weights_only=True, so a checkpoint can't run code.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from stopgrad import dist
from stopgrad.contracts import CheckpointError
from stopgrad.rundir import RunDir

FORMAT = 2  # 1 named settings of a method's parts by the part, which one more setting changed


@dataclass(frozen=True, slots=True)
class Identity:
    """What has to be the same when a run goes on, by name; and what is meant where an older state does not name it."""

    now: Mapping[str, Any]
    defaults: Mapping[str, Any] = field(default_factory=dict)


def pack(
    method: nn.Module,
    optimiser: torch.optim.Optimizer,
    step: int,
    log_length: int,
    identity: Identity,
    since: Mapping[str, float],
) -> bytes:
    """The state before step `step`.  since: what the loop remembers from one log line to the next."""
    state = {
        "format": FORMAT,
        "step": step,
        "log_length": log_length,
        "since": dict(since),
        "identity": dict(identity.now),
        "method": method.state_dict(),
        "optimiser": optimiser.state_dict(),
        "rng": torch.get_rng_state(),  # for backbones with dropout or stochastic depth
        "cuda_rng": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "torch": str(torch.__version__),
    }
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def load_newest(run: RunDir, say: Callable[[str], None]) -> dict[str, Any] | None:
    """The newest undamaged state, on the CPU; None where there is no checkpoint yet. Raises CheckpointError."""
    found = run.newest_checkpoint(say)
    if found is None:
        return None
    path, data = found
    try:
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # a stranger's bytes: what the reader stumbles over has no type to rely on
        why = " ".join(str(error).split()).partition(". ")[0]
        raise CheckpointError(f"{path}: refused, not a checkpoint of tensors and plain values ({why})") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        version = state.get("format") if isinstance(state, dict) else None
        raise CheckpointError(f"{path} has format {version}, this version reads {FORMAT}; use the version that made it")
    return state


def check_identity(saved: Mapping[str, Any], identity: Identity, run: RunDir) -> None:
    """Refuse to go on where the bits could not be the same; name each thing that changed, old and new.

    A setting that came after the run was begun counts as its default, which is what the run was without it.
    """
    before = {name: saved.get(name, identity.defaults.get(name)) for name in identity.now}
    changed = [
        f"{name} was {before[name]!r}, is {value!r}" for name, value in identity.now.items() if before[name] != value
    ]
    if changed:
        raise CheckpointError(
            f"{run.path} can't be resumed: {'; '.join(changed)}. "
            "Put it back as it was, or start anew with another --name"
        )


def put_back(state: Mapping[str, Any], method: nn.Module, optimiser: torch.optim.Optimizer, run: RunDir) -> None:
    """What is learnt and remembered, as it was."""
    try:
        method.load_state_dict(state["method"])
        optimiser.load_state_dict(state["optimiser"])
    except (RuntimeError, ValueError, KeyError) as error:
        raise CheckpointError(f"{run.checkpoints} holds another model: {str(error).splitlines()[0]}") from error


def restore(state: Mapping[str, Any], method: nn.Module, optimiser: torch.optim.Optimizer, run: RunDir) -> int:
    """Put the state back, cut the log to it, and return the step to go on with."""
    put_back(state, method, optimiser, run)
    if dist.rank() == 0:  # the others go on with the numbers of their own seed
        torch.set_rng_state(state["rng"])
        if state["cuda_rng"] and torch.cuda.is_available():
            torch.cuda.set_rng_state_all(state["cuda_rng"])
    run.cut_log(int(state["log_length"]))
    return int(state["step"])
