"""A step whose loss or gradient is no number: where it began, what it means, and whether weights are still numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from stopgrad import dist
from stopgrad.contracts import Clock, Views
from stopgrad.method import Method
from stopgrad.nn.batch_norm import untouched_statistics


def where(method: Method, parts: Sequence[Views], clock: Clock, bf16: bool) -> str:
    """In words, of a step that was just tried and not taken; its gradients are still there, its state is discarded.

    All processes call it together: a method gathers. parts: the step's micro-batches.
    """
    for name, parameter in method.named_parameters():
        if not finite(parameter):
            return f"the weights of {name} are not finite: the step before went too far, lower optim.base_lr"
    view = next((i for part in parts for i, crop in enumerate(part.crops) if not finite(crop)), None)
    if dist.any_of(view is not None):  # one process must not begin a forward that gathers while another does not
        which = f"view {view} of the batch" if view is not None else "a view of another process's batch"
        return f"{which} is not finite: pixels or views.std are at fault"
    if modules := [found for part in parts if (found := _first_module(method, part, clock, bf16))]:
        return modules[0]
    broken = [name for name, p in method.named_parameters() if p.grad is not None and not finite(p.grad)]
    if broken:  # it spreads from the loss to the first layer, so the last of them is where it began
        return f"the gradient of {broken[-1]} is not finite, the forward is: lower optim.base_lr, or warm up longer"
    return "the gradients are finite one by one and their norm is not: lower optim.base_lr, or set optim.clip_norm"


def _first_module(method: Method, views: Views, clock: Clock, bf16: bool) -> str:
    """The first layer that makes something that is not finite of what is; "" where none does. Nothing is remembered."""
    found: list[str] = []
    names = {module: name for name, module in method.named_modules()}

    def look(module: nn.Module, given: Any, out: Any) -> None:
        if not found and isinstance(out, Tensor) and not finite(out):
            found.append(names[module])

    leaves = [module for module in method.modules() if not any(module.children())]
    handles = [module.register_forward_hook(look) for module in leaves]
    try:
        autocast = torch.autocast(views.index.device.type, dtype=torch.bfloat16, enabled=bf16)
        with torch.no_grad(), untouched_statistics(method), torch.random.fork_rng(), autocast:
            loss = method(views, clock).loss
        method.discard()
    finally:
        for handle in handles:
            handle.remove()
    if found:
        precision = " in bfloat16; try loop.precision=float32, or" if bf16 else ":"
        return f"{found[0]} is the first layer whose output is not finite{precision} lower optim.base_lr"
    if not finite(loss):
        return "all layers are finite and the loss is not: lower optim.base_lr, or look at its temperature and weights"
    return ""


def finite(x: Tensor) -> bool:
    return bool(torch.isfinite(x).all())


def ruined(method: nn.Module) -> str:
    """The first parameter, or statistic of a batch norm, that is not finite; "" where all are."""
    for name, parameter in method.named_parameters():
        if not finite(parameter):
            return name
    for name, buffer in method.named_buffers():
        if name.endswith(("running_mean", "running_var")) and not finite(buffer):
            return name
    return ""
