"""The optimiser of a method: which parameters it moves, at which rates of a step, and how long a gradient may be.

A group carries, beside what its optimiser reads: `scheduled` (False: the rate keeps its peak), `rate` (its learning
rate over the schedule's) and `adapt` (False: neither decayed nor, by LARS, adapted).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from stopgrad.contracts import Clock
from stopgrad.optim import schedules
from stopgrad.optim.config import OptimConfig
from stopgrad.optim.lars import Lars


def build_optimiser(
    model: nn.Module,
    config: OptimConfig,
    batch_size: int,
    constant: Sequence[str] = (),
    undecayed: Sequence[str] = (),
    rates: Mapping[str, float] | None = None,
) -> torch.optim.Optimizer:
    """The optimiser over everything that is trained, which excludes what is frozen now.

    Parameters whose name starts with a prefix of `constant` keep their peak rate (SimSiam's predictor), those of
    `undecayed` are neither decayed nor adapted, whatever the settings say (CLIP's temperature); those of `rates` have
    so many times the others' rate.
    """
    groups = parameter_groups(model, config, constant, undecayed, rates or {})
    lr, decay = config.peak_lr(batch_size), config.weight_decay
    if config.name == "adamw":
        return torch.optim.AdamW(groups, lr=lr, betas=config.betas, weight_decay=decay)
    if config.name == "lars":
        return Lars(
            groups,
            lr=lr,
            momentum=config.momentum,
            weight_decay=decay,
            trust=config.trust,
            trust_clip=config.trust_clip,
        )
    return torch.optim.SGD(groups, lr=lr, momentum=config.momentum, weight_decay=decay)


def parameter_groups(
    model: nn.Module,
    config: OptimConfig,
    constant: Sequence[str],
    undecayed: Sequence[str] = (),
    rates: Mapping[str, float] | None = None,
) -> list[dict[str, Any]]:
    """Scheduled before constant ones, several dimensions before one; groups that nothing tells apart are one."""
    found: dict[tuple[bool, bool, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            flat = parameter.ndim <= 1
            scheduled = not name.startswith(tuple(constant))
            adapt = not (flat and config.exclude_1d) and not name.startswith(tuple(undecayed))
            rate = math.prod(times for prefix, times in (rates or {}).items() if name.startswith(prefix))
            kind = (scheduled, adapt, rate * (config.rate_1d if flat else 1.0))
            found.setdefault(kind, []).append(parameter)
    # by number of dimensions, not by rate, so that the order does not depend on a value
    order = sorted(found, key=lambda kind: (not kind[0], found[kind][0].ndim <= 1))
    return [
        {
            "params": found[kind],
            "scheduled": kind[0],
            "adapt": kind[1],
            "rate": kind[2],
            "weight_decay": config.weight_decay if kind[1] else 0.0,
        }
        for kind in order
    ]


def set_rates(optimiser: torch.optim.Optimizer, config: OptimConfig, batch_size: int, clock: Clock) -> float:
    """Learning rates and weight decay of this step; returns the scheduled learning rate.

    A constant rate is warmed up with the others, then stays.
    """
    peak = config.peak_lr(batch_size)
    scheduled = peak * schedules.share(clock, config)
    constant = peak * schedules.warm_up(clock, config)
    decay = schedules.weight_decay(clock, config)
    for group in optimiser.param_groups:
        group["lr"] = group["rate"] * (scheduled if group["scheduled"] else constant)
        group["weight_decay"] = decay if group["adapt"] else 0.0
    return scheduled


@torch.no_grad()
def clip(parameters: Iterable[Tensor], config: OptimConfig) -> Tensor:
    """Shorten gradients that are longer than `clip_norm`; returns the norm of all as they came, not waited for.

    With `clip_scope=tensor` each gradient is held to it by itself, as DINO does.
    """
    moved = [p for p in parameters if p.grad is not None]
    gradients = [p.grad for p in moved if p.grad is not None]
    if config.clip_norm and config.clip_scope == "tensor" and gradients:
        norms = torch._foreach_norm(gradients)
        kept = [(config.clip_norm / (norm + 1e-6)).clamp(max=1.0) for norm in norms]
        torch._foreach_mul_(gradients, kept)
        total: Tensor = torch.linalg.vector_norm(torch.stack([norm.to(norms[0]) for norm in norms]))
        return total
    norm = torch.nn.utils.get_total_norm(gradients)
    if config.clip_norm:
        # of a norm that is no number nothing is made: the step is not taken, and its gradients say where it began
        torch.nn.utils.clip_grads_with_norm_(moved, config.clip_norm, norm.nan_to_num(0.0, 0.0, 0.0))
    return norm
