"""A split in memory, a data set of coloured noise, and a backbone of one convolution."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from stopgrad.data import Data

SIDE = 8


class Split:
    """Images held in memory."""

    def __init__(self, images: NDArray[np.uint8], labels: NDArray[np.int64] | None) -> None:
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> NDArray[Any]:
        return self.images[index]

    def name(self, index: int) -> str:
        return f"fake {index}"

    def take(self, index: NDArray[np.int64]) -> Sequence[NDArray[Any]]:
        return self.images[index]


def split(n: int, seed: int, labelled: bool = True) -> Split:
    """n images of 3 classes, class by class; a class is a colour under noise."""
    random = np.random.default_rng(seed)
    labels = np.sort(np.arange(n) % 3).astype(np.int64)
    colour = np.array([[200, 60, 60], [60, 200, 60], [60, 60, 200]])[labels]
    images = colour[:, None, None, :] + random.integers(-50, 50, (n, SIDE, SIDE, 3))
    return Split(images.clip(0, 255).astype(np.uint8), labels if labelled else None)


def data(train: int = 60, test: int = 30, labelled: bool = True, synthetic: bool = False) -> Data:
    return Data(
        name="colours",
        synthetic=synthetic,
        classes=("red", "green", "blue") if labelled else (),
        train=split(train, 0, labelled),
        test=split(test, 1, labelled),
        fingerprint="0123456789abcdef",
        bad=(),
        ignored=0,
        notes=(),
        split_rule="as made",
    )


class Net(nn.Module):
    """Convolution, batch norm, dropout, mean over the picture: [B, 3, S, S] -> [B, dim]."""

    def __init__(self, seed: int = 0, dim: int = 16) -> None:
        super().__init__()
        self.dim = dim
        self.conv = nn.Conv2d(3, dim, 3, padding=1)
        self.norm = nn.BatchNorm2d(dim)
        self.dropout = nn.Dropout(0.5)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in self.conv.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)

    def forward(self, x: Tensor) -> Tensor:
        hidden: Tensor = self.dropout(self.norm(self.conv(x)).relu()).mean(dim=(2, 3))
        return hidden
