"""How large samples are, for the preflight: lines to print and facts for machines."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stopgrad.contracts import Images
from stopgrad.data.pack import PackedImages
from stopgrad.data.sources import Data

Lines = list[tuple[str, str]]  # (name, value)


def shapes(data: Data) -> NDArray[np.int64]:
    """[N, 2] of images, [N, 1] of sounds: of the samples of both splits, as they are stored."""
    splits = [data.train] if data.test is data.train else [data.train, data.test]
    return np.concatenate([shapes_of(split) for split in splits])


def shapes_of(split: Images) -> NDArray[np.int64]:
    if isinstance(split, PackedImages):
        return split.pack.sizes[split.rows]
    return np.array([split[i].shape[:2] for i in range(len(split))], np.int64).reshape(len(split), -1)


def three(values: NDArray[Any], form: str = "{:.0f}") -> str:
    """Least, median, most."""
    return " / ".join(form.format(value) for value in numbers(values))


def numbers(values: NDArray[Any]) -> list[float]:
    return [round(float(value), 4) for value in (values.min(), np.median(values), values.max())]
