"""Processes: who we are, and the collectives. On one process everything here is the identity."""

from __future__ import annotations

import os
from typing import Any

import torch
import torch.distributed as td
from torch import Tensor

from stopgrad import processes


def active() -> bool:
    return td.is_available() and td.is_initialized()


def rank() -> int:
    return td.get_rank() if active() else 0


def world() -> int:
    return td.get_world_size() if active() else 1


def local_rank() -> int:
    return int(os.environ.get("LOCAL_RANK", "0"))


def device_index() -> int:
    """Of this process's GPU among those it sees: where a scheduler shows each process its own, that is the first."""
    return 0 if torch.cuda.device_count() == 1 else local_rank()


def start(device_type: str) -> None:
    """Join the group that torchrun or SLURM announces in the environment; nothing without one."""
    processes.announce()
    if "RANK" in os.environ and "WORLD_SIZE" in os.environ and not active():
        td.init_process_group("nccl" if device_type == "cuda" else "gloo")


def stop() -> None:
    if active():
        td.destroy_process_group()


class _Gather(torch.autograd.Function):
    """Concatenate along the batch; backward gives each process the sum over processes of its own slice."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        parts = [torch.empty_like(x) for _ in range(world())]
        td.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        grad = grads[0].contiguous()
        td.all_reduce(grad)
        return grad.chunk(world())[rank()]


def gather(x: Tensor) -> Tensor:
    """[B, ...] on each process -> [world * B, ...] on all, in rank order, with gradient.

    Backward sums over processes while DDP averages the parameters' gradients: a loss that every process computes in
    full over the gathered batch is therefore right as it is, once DDP has divided by the number of processes.
    """
    return _Gather.apply(x) if world() > 1 else x


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        td.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        grad = grads[0].clone()
        td.all_reduce(grad)
        return grad


def total(x: Tensor) -> Tensor:
    """Sum over processes, with gradient."""
    return _Sum.apply(x) if world() > 1 else x


def mean(x: Tensor) -> Tensor:
    """Mean over processes, with gradient."""
    return total(x) / world()


def any_of(flag: bool) -> bool:
    """True on all processes when it is on one."""
    if world() == 1:
        return flag
    word = torch.tensor(float(flag), device=_device())
    td.all_reduce(word, op=td.ReduceOp.MAX)
    return bool(word.item())


def barrier() -> None:
    if active():
        td.barrier()


def _device() -> str:
    return f"cuda:{device_index()}" if td.get_backend() == "nccl" else "cpu"


def from_first(value: int) -> int:
    """The first process's number, on all of them."""
    if world() == 1:
        return value
    word = torch.tensor(value, device=_device())
    td.broadcast(word, src=0)
    return int(word.item())
