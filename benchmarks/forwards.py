"""One step two ways: a forward for each view, or both views in one forward whose batch norms keep a statistic a view.

Both give the same loss (checked to 1e-5 in float32); the question is which is faster, and the trainer does the faster.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.pairs import ROUNDS, Pair, compare
from stopgrad.assemble.build import bf16_is_fast, build_method, pick_device
from stopgrad.contracts import Clock, Views
from stopgrad.losses.cosine import negative_cosine
from stopgrad.recipes import recipe_named

STEPS = 3  # of a call


class SplitBatchNorm(nn.Module):
    """A batch norm that is given both views and sees them one after the other."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        first, second = x.chunk(2)
        return torch.cat([self.norm(first), self.norm(second)])


def split(module: nn.Module) -> nn.Module:
    """Every batch norm inside, replaced."""
    for name, child in module.named_children():
        norm = isinstance(child, nn.BatchNorm1d | nn.BatchNorm2d)
        setattr(module, name, SplitBatchNorm(child) if norm else split(child))
    return module


def together(method: nn.Module, views: Views) -> Tensor:
    """SimSiam's loss with one forward of the two views."""
    parts = dict(method.named_children())
    z = parts["projector"](parts["backbone"](torch.cat(views.crops)))
    p = parts["predictor"](z)
    (p0, p1), (z0, z1) = p.chunk(2), z.detach().chunk(2)
    return (negative_cosine(p0, z1) + negative_cosine(p1, z0)) / 2


def step(preset: str, batch: int, rounds: int = ROUNDS) -> Pair:
    device = pick_device()
    recipe = recipe_named(preset)
    bf16 = bf16_is_fast(device)
    methods = [build_method(recipe, 0).to(device).to(memory_format=torch.channels_last) for _ in range(2)]
    split(methods[1])
    noise = torch.Generator().manual_seed(0)
    crops = tuple(
        torch.randn(batch, 3, 32, 32, generator=noise).to(device).to(memory_format=torch.channels_last)
        for _ in range(2)
    )
    views, clock = Views(crops, torch.arange(batch)), Clock(0, 1, 1)
    losses: list[Callable[[], Tensor]] = [lambda: methods[0](views, clock).loss, lambda: together(methods[1], views)]
    apart = [float(loss()) for loss in losses]
    if abs(apart[0] - apart[1]) > 1e-5:
        raise SystemExit(f"bench: one forward gives a loss of {apart[1]}, two give {apart[0]}")
    optimisers = [torch.optim.SGD(method.parameters(), lr=1e-3, momentum=0.9) for method in methods]

    def run(which: int) -> Callable[[], None]:
        def go() -> None:
            for _ in range(STEPS):
                optimisers[which].zero_grad()
                with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
                    loss = losses[which]()
                loss.backward()
                optimisers[which].step()
            if device.type == "cuda":
                torch.cuda.synchronize()

        return go

    name = f"a step of {recipe.backbone.name}, 32 px, batch {batch}: a forward a view"
    other = "one forward, split statistics"
    return compare(name, "images/s", STEPS * batch, run(0), run(1), other, rounds=rounds)


MEASURES: dict[str, Callable[[], list[Pair]]] = {
    "tiny": lambda: [step("simsiam/scenes", 64)],
    "resnet18": lambda: [step("simsiam/cifar10", 256)],
}
