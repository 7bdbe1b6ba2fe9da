"""What has to be known of a kind of samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
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
    # What kNN compares: (features of the bank [N, D]) -> (shift, scale), [D] each; None: standardised by the bank.
    scale: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None


class Medium(Protocol):
    """One kind of samples. `data`, `views` and `preprocess` are settings of that kind (`media.KINDS`).

    Letters in shapes: B samples, S pixels a side.
    """

    one: str  # a sample in words, "an image"; several; a file that holds one
    many: str
    such_as: str

    def open(self, data: Any, views: Any, progress: Progress | None = None) -> Data:
        """The source, decoded where it was not before. Raises what `data.sources.open_data` raises."""
        ...

    def sizes(self, opened: Data, data: Any, views: Any) -> tuple[list[tuple[str, str]], dict[str, Any]]:
        """How large the samples are: (name, value) to print, and facts for machines."""
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

    def decode(self, file: bytes, extension: bytes, data: Any, preprocess: Any) -> NDArray[Any]:
        """The sample of one file, as `open` stores it for an encoder. Raises BadImageError or UnreadableError."""
        ...

    def stand_ins(self, count: int, preprocess: Any) -> tuple[Sequence[NDArray[Any]], str]:
        """Samples for who has none, and what they are in words."""
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

    def wanted(self, data: Any, preprocess: Any) -> Any:
        """`data` with what an encoder of this preprocessing wants its samples decoded to."""
        ...

    def refitted(self, views: Any, preprocess: Any) -> Any:
        """`views` as another encoder, with a preprocessing of its own, wants them."""
        ...

    def check_fit(self, views: Any, preprocess: Any) -> None:
        """Raises ConfigError where an encoder was trained with other statistics than these views are made with."""
        ...

    def said(self, sample: NDArray[Any]) -> str:
        """What a sample says, as it is stored: the text of a text, "" of what is none."""
        ...

    def heard(self, sample: NDArray[Any], preprocess: Any) -> tuple[NDArray[np.int16], int] | None:
        """What a sample sounds like, mono: (waveform [T], samples a second); None of what is silent."""
        ...

    def in_words(self, preprocess: Any) -> str:
        """The transform without chance, for a protocol."""
        ...
