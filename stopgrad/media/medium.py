"""What has to be known of a kind of samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from numpy.typing import NDArray
from torch import Tensor

from stopgrad.contracts import Maker
from stopgrad.data.sources import Data, Progress

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Raw:
    """The baseline without a network: what samples say for themselves."""

    name: str  # its rows are baseline_NAME_*
    told: str  # what it is, where it is said to be computed
    protocol: str
    encode: Callable[[Tensor], Tensor]  # what an encoder takes, [B, ...] -> [B, D], float32, on the CPU
    pixels: tuple[int, int, int] | None = None  # [C, S, S] where the features are pixels


class Medium(Protocol):
    """One kind of samples. `data`, `views` and `preprocess` are settings of that kind (`media.KINDS`).

    Letters in shapes: B samples, S pixels a side.
    """

    def open(self, data: Any, views: Any, progress: Progress | None = None) -> Data:
        """The source, decoded where it was not before. Raises what `data.sources.open_data` raises."""
        ...

    def settled(self, data: Any, views: Any, opened: Data, say: Say) -> Any:
        """`views` with what they leave to be found in the training samples written out; say: told of it."""
        ...

    def preprocess(self, data: Any, views: Any) -> Any:
        """The transform without chance that belongs to `views`."""
        ...

    def maker(self, views: Any, preprocess: Any, seed: int, device: torch.device, threads: int) -> Maker:
        """Who makes the views of a run. Close it after use."""
        ...

    def clean(self, samples: Sequence[NDArray[Any]], preprocess: Any, threads: int = 1) -> Tensor:
        """B samples as they are stored -> what an encoder takes, [B, ...], nothing random."""
        ...

    def raw(self, preprocess: Any) -> Raw:
        """The baseline without a network."""
        ...

    def pictures(self, clean: Tensor, preprocess: Any, side: int) -> Tensor:
        """What `clean` gave (or a view), to be looked at: [B, C, side, side], values of 0 to 1."""
        ...

    def input(self, preprocess: Any) -> tuple[int, int]:
        """(channels, size) that a backbone is built for."""
        ...

    def refitted(self, views: Any, preprocess: Any) -> Any:
        """`views` as another encoder, with a preprocessing of its own, wants them."""
        ...

    def check_fit(self, views: Any, preprocess: Any) -> None:
        """Raises ConfigError where an encoder was trained with other statistics than these views are made with."""
        ...

    def in_words(self, preprocess: Any) -> str:
        """The transform without chance, for a protocol."""
        ...
