"""What the tests of the methods that choose among the images of a batch share: `tiny` at width 8, four images."""

import torch
from torch import Tensor, nn

from stopgrad.contracts import Clock, Known, Views
from stopgrad.nn.backbones import build_backbone
from stopgrad.nn.config import BackboneConfig
from stopgrad.siamese.family import Vectors

B = 4
TWO = (16, 16)


def clock(step: int) -> Clock:
    return Clock(step, 10, 5)


def known(crops: tuple[int, ...] = TWO) -> Known:
    return Known(crops=crops, batch_size=B, accumulate=1, backbone="tiny", images=16)


def backbone() -> nn.Module:
    """The same each time, as is what a builder draws after it."""
    torch.manual_seed(0)
    made = build_backbone(BackboneConfig(width=8), 3, 16, seed=0)
    for module in made.modules():  # the zero scale would hide what stands before it
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return made


def batch(step: int, crops: tuple[int, ...] = TWO) -> Views:
    generator = torch.Generator().manual_seed(step)
    tensors: list[Tensor] = [torch.randn(B, 3, side, side, generator=generator, dtype=torch.float64) for side in crops]
    return Views(tuple(tensors), torch.arange(B))


def vectors(seed: int = 0, n: int = 5, views: int = 2) -> Vectors:
    generator = torch.Generator().manual_seed(seed)
    return {v: torch.randn(n, 6, generator=generator, dtype=torch.float64) for v in range(views)}
