"""A toy to work an algorithm out on: a linear trunk, a linear projector, a handful of images; all in float64."""

import torch
from torch import Tensor, nn

from stopgrad.contracts import Clock, Known, Views


class Trunk(nn.Module):
    """[B, 1, 2, 2] -> [B, 4]"""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.dim = 4

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear(x.flatten(1))
        return out


def known(crops: int = 2, batch_size: int = 6, images: int = 12, backbone: str = "tiny") -> Known:
    return Known(crops=(2,) * crops, batch_size=batch_size, accumulate=1, backbone=backbone, images=images)


def batch(step: int = 0, crops: int = 2, b: int = 6) -> Views:
    generator = torch.Generator().manual_seed(100 + step)
    made = tuple(torch.randn(b, 1, 2, 2, generator=generator, dtype=torch.float64) for _ in range(crops))
    return Views(made, torch.randperm(12, generator=generator)[:b])


def clock(step: int = 0, total: int = 10) -> Clock:
    return Clock(step, total, 5, seed=3)


def trunk() -> Trunk:
    torch.manual_seed(7)
    return Trunk()


def gradients(loss: Tensor, module: nn.Module) -> dict[str, Tensor]:
    """Of every parameter that is trained and read; name -> gradient."""
    named = [(name, parameter) for name, parameter in module.named_parameters() if parameter.requires_grad]
    found = torch.autograd.grad(loss, [parameter for _, parameter in named], allow_unused=True)
    return {name: gradient for (name, _), gradient in zip(named, found) if gradient is not None}
