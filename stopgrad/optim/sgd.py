"""SGD over two kinds of parameters: those on the cosine, and those whose learning rate stays at its peak."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from stopgrad.contracts import Clock
from stopgrad.optim.config import OptimConfig


def build_sgd(model: nn.Module, config: OptimConfig, batch_size: int, constant: Sequence[str] = ()) -> torch.optim.SGD:
    """SGD with momentum; parameters whose name starts with a prefix of `constant` form a group that never decays.

    Weight decay is on every parameter that is trained (SimSiam, section 3), which excludes frozen ones.
    """
    trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    kept = [parameter for name, parameter in trained if name.startswith(tuple(constant))] if constant else []
    scheduled = [parameter for name, parameter in trained if not (constant and name.startswith(tuple(constant)))]
    groups = [{"params": scheduled, "scheduled": True}, {"params": kept, "scheduled": False}]
    return torch.optim.SGD(
        [group for group in groups if group["params"]],
        lr=config.peak_lr(batch_size),
        momentum=config.momentum,
        weight_decay=config.weight_decay,
    )


def set_learning_rates(optimiser: torch.optim.Optimizer, config: OptimConfig, batch_size: int, clock: Clock) -> float:
    """Learning rates of this step; returns the scheduled one.

    Linear warm-up over `warmup_epochs`, for all groups, then a cosine to 0 for scheduled ones. Updated every step where
    the reference updates every epoch.
    """
    peak = config.peak_lr(batch_size)
    warmup = round(config.warmup_epochs * clock.steps_per_epoch)
    scheduled = peak * scale(clock.step, clock.total_steps, warmup)
    for group in optimiser.param_groups:
        group["lr"] = scheduled if group["scheduled"] else peak * min(1.0, (clock.step + 1) / max(1, warmup))
    return scheduled


def scale(step: int, total: int, warmup: int) -> float:
    """(step + 1) / warmup while warming up, then half a cosine from 1 to 0 at `total`."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))
