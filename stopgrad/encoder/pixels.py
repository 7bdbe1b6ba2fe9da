"""The encoder as a function of pixel values: what an exported file computes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from stopgrad.contracts import Preprocess
from stopgrad.encoder.file import Encoder
from stopgrad.views.preprocess import centre


class FromPixels(nn.Module):
    """Pixel values [B, C, S, S], float32, 0 to 255 (0 to 65535 at 16 bits) -> features [B, dim], float32."""

    mean: Tensor
    std: Tensor

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        preprocess = encoder.preprocess
        assert isinstance(preprocess, Preprocess)
        self.backbone = encoder.backbone
        self.largest = largest(encoder)
        self.register_buffer("mean", torch.tensor(preprocess.mean).reshape(-1, 1, 1))  # [C, 1, 1]
        self.register_buffer("std", torch.tensor(preprocess.std).reshape(-1, 1, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        out: Tensor = self.backbone((pixels / self.largest - self.mean) / self.std)
        return out


def largest(encoder: Encoder) -> int:
    """The value of a white pixel."""
    return int(2**encoder.depth - 1)


def as_pixels(samples: Sequence[NDArray[Any]], preprocess: Preprocess) -> NDArray[np.float32]:
    """B images [H, W, C] of any size -> [B, C, S, S]: resized and cut as `preprocess` says, not yet normalised."""
    cut = np.stack([centre(sample, preprocess) for sample in samples])  # [B, S, S, C]
    return np.ascontiguousarray(cut.transpose(0, 3, 1, 2), dtype=np.float32)
