"""A model small enough for loops in Python, and a run of an optimiser on it."""

from __future__ import annotations

import torch
from torch import nn

from stopgrad.contracts import Clock
from stopgrad.optim.config import OptimConfig
from stopgrad.optim.groups import build_optimiser, clip, set_rates

BATCH, STEPS, PER_EPOCH = 256, 10, 5  # at this batch a peak rate is base_lr


class Parts(nn.Module):
    """A part that is scheduled, one that is to keep its rate, one that is frozen; matrices and 1-D parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
        self.predictor = nn.Linear(4, 2)
        self.frozen = nn.Linear(2, 2).requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.frozen(torch.tanh(self.predictor(torch.tanh(self.backbone(x)))))


def parts(seed: int = 0, dtype: torch.dtype = torch.float32) -> Parts:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Parts().to(dtype)


def clock(step: int, total: int = STEPS) -> Clock:
    return Clock(step, total, PER_EPOCH)


def backward(model: Parts, step: int) -> None:
    """Gradients of step `step`; of the same size from the first to the last."""
    weight = model.predictor.weight
    x = torch.randn(8, 3, generator=torch.Generator().manual_seed(step), dtype=weight.dtype)
    model.zero_grad(set_to_none=True)
    (model(x) - 1).square().mean().backward()


def take(model: Parts, optimiser: torch.optim.Optimizer, config: OptimConfig, first: int, last: int) -> None:
    """Steps as the loop takes them: rates, gradients, clipping, the optimiser."""
    for step in range(first, last):
        set_rates(optimiser, config, BATCH, clock(step))
        backward(model, step)
        clip(model.parameters(), config)
        optimiser.step()


def trained(config: OptimConfig, constant: tuple[str, ...] = ()) -> dict[str, torch.Tensor]:
    """The weights after a whole run."""
    model = parts()
    take(model, build_optimiser(model, config, BATCH, constant), config, 0, STEPS)
    return model.state_dict()
