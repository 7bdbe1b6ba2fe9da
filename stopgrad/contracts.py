"""All that crosses folders: what is handed from one room to the next, and the errors a user can meet.

Nothing here imports torch, so that the command line can parse, complain and print help without it.

Letters used in shapes all over the package: B batch, C channels, H W S pixels (height, width, side), D features,
K keys or neighbours, N images, V views.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor


LARGEST_IMAGE, MOST_CHANNELS = 4096, 64  # a side in pixels; what a view or an encoder may have


# --- what is handed on ------------------------------------------------------------------------------------------------


class Images(Protocol):
    """A split as the loader, the views and the evaluations read it: decoded images of any size, and perhaps labels."""

    labels: NDArray[np.int64] | None  # [N], class of each image; None where nobody said

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> NDArray[Any]:  # [H, W, C], uint8 or uint16
        ...

    def name(self, index: int) -> str:
        """What the source calls an image, escaped: path below the folder, archive member, or `set:test:17`."""
        ...

    def take(self, index: NDArray[np.int64]) -> Sequence[NDArray[Any]]:
        """The images at `index` [B], in that order; one stacked array [B, H, W, C] where all sizes are equal."""
        ...


@dataclass(frozen=True, slots=True)
class Batch:
    """What the loader hands to the views: samples as they are stored, and which ones they are. Never labels."""

    samples: Sequence[NDArray[Any]]  # B arrays; images [H, W, C], uint8 or uint16, may differ in size
    index: NDArray[np.int64]  # [B], position of each sample in its split
    epoch: int


@dataclass(frozen=True, slots=True)
class Views:
    """Everything one batch was turned into: one tensor a view, large crops first."""

    crops: tuple[Tensor, ...]  # each [B, ...]: image [B, C, S, S], waveform [B, T], token ids [B, T]
    index: Tensor  # [B], int64, position of each sample in its split

    def to(self, device: Any, non_blocking: bool = False) -> Views:
        return Views(
            tuple(crop.to(device, non_blocking=non_blocking) for crop in self.crops),
            self.index.to(device, non_blocking=non_blocking),
        )


class Maker(Protocol):
    """Turns one batch after another into views; drawn from the run's seed, the epoch and each sample's index alone."""

    def __call__(self, batch: Batch) -> Views: ...

    def close(self) -> None:
        """Ends its threads, where it has any."""
        ...


@dataclass(frozen=True, slots=True)
class Clock:
    """Where the run stands. `step` counts optimiser steps that were tried, from 0."""

    step: int
    total_steps: int
    steps_per_epoch: int
    seed: int = 0

    @property
    def epoch(self) -> int:
        return self.step // self.steps_per_epoch

    @property
    def progress(self) -> float:
        """0 at the first step, 1 after the last."""
        return self.step / max(1, self.total_steps)


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What a method's settings have to fit, and what its builder may use."""

    crops: tuple[int, ...]  # sides of the views, pixels, large ones first
    batch_size: int  # images an optimiser step, over all processes
    accumulate: int  # micro-batches a step
    backbone: str  # its name in the recipe
    seed: int = 0
    images: int = 0  # that are trained on: how many rows a bank has; 0 while nobody has looked
    epochs: int = 0  # that are trained for; 0 where nobody said
    split: str = "none"  # backbone.split: what it makes of a crop, if not one view
    kind: str = "image"  # of samples, views.kind
    text: tuple[int, int] | None = None  # kinds of token and tokens of a caption; None without, or while unknown


@dataclass(frozen=True, slots=True)
class Output:
    """What a method returns for one batch."""

    loss: Tensor  # scalar
    embedding: Tensor  # [V * B, D], detached: what the monitor reads; moderate width, views one after the other
    logs: Mapping[str, Tensor] = field(default_factory=dict)  # scalars to write beside the loss


@dataclass(frozen=True, slots=True)
class Result:
    """One row of results.json. Scores are percentages, 0 to 100."""

    name: str
    value: float | str | None
    n: int  # images the value was computed from
    split: str  # which split reports it
    seed: int
    protocol: str  # version and settings, enough to compute it again

    def as_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocess:
    """What turns an image into the backbone's input when nothing is random: the test transform, kept with the weights.

    The shorter side is brought to image_size / crop_fraction (antialiased), the centre square of image_size is cut,
    pixels are scaled to [0, 1] (8 bits by 255, 16 bits by 65535), then (x - mean) / std a channel.
    """

    kind: ClassVar[str] = "image"  # of samples; media.KINDS has them all

    image_size: int  # pixels
    channels: int = 3
    crop_fraction: float = 1.0
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    depth: Literal[8, 16] = 8  # bits of the pixels it was trained on: what its images should be decoded to
    sensors: tuple[str, ...] = ()  # whose channels follow each other in a sample (views.sensors); (): one picture

    def as_settings(self) -> tuple[str, ...]:
        """What a recipe must say to read images this way, as a.b=c; the size is left to whoever asks."""
        sensors = (f"data.sensors={json.dumps(self.sensors)}",) if self.sensors else ()
        return (
            *sensors,
            f"data.channels={self.channels}",
            f"data.depth={self.depth}",
            f"views.mean={list(self.mean)}",
            f"views.std={list(self.std)}",
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain values. Eight bits of one picture go without saying: files from before stay byte for byte equal."""
        usual = (("depth", 8), ("sensors", ()))
        return {name: value for name, value in dataclasses.asdict(self).items() if (name, value) not in usual}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocess:
        """Raises ConfigError, KeyError or TypeError for values that are none: they may be a stranger's."""
        lists = {name: tuple(values.get(name, ())) for name in ("mean", "std", "sensors")}
        found = cls(**{**values, **lists})
        if not all(isinstance(name, str) for name in found.sensors):
            raise ConfigError(f"preprocess: sensors must be names, got {found.sensors!r:.160}")
        if found.depth not in (8, 16):
            raise ConfigError(f"preprocess: depth must be 8 or 16 bits, got {found.depth!r}")
        for name, most in (("image_size", LARGEST_IMAGE), ("channels", MOST_CHANNELS)):
            value = getattr(found, name)
            if type(value) is not int or not 1 <= value <= most:
                raise ConfigError(f"preprocess: {name} must be 1 to {most}, got {value!r}")
        if not _is_number(found.crop_fraction) or not 0.01 <= found.crop_fraction <= 1:
            raise ConfigError(f"preprocess: crop_fraction must be 0.01 to 1, got {found.crop_fraction!r}")
        for name, given in (("mean", found.mean), ("std", found.std)):
            if len(given) != found.channels or not all(map(_is_number, given)):
                raise ConfigError(f"preprocess: {name} must be {found.channels} finite numbers, got {given!r}")
        if min(found.std) <= 0:
            raise ConfigError(f"preprocess: std must be above 0, got {found.std!r}")
        return found


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e30


# --- errors a user can meet -------------------------------------------------------------------------------------------


class StopgradError(Exception):
    """One sentence that says where, what was found, what is needed and what to type. Carries the exit code."""

    exit_code = 1


class ConfigError(StopgradError):
    """A setting, option or name that can't be used."""

    exit_code = 2


class DataError(StopgradError):
    """The data is there but can't be used."""

    exit_code = 65


class MissingInputError(StopgradError):
    """A file, folder or set that was named is not there."""

    exit_code = 66


class CheckpointError(StopgradError):
    """A checkpoint or encoder that is damaged, foreign or does not fit this run."""

    exit_code = 65


class OutOfMemoryError(StopgradError):
    """A step that memory does not hold, now and here: elsewhere, or later, it may."""

    exit_code = 71


class TrainingStoppedError(StopgradError):
    """The run ended itself: the loss was not finite, or it collapsed and was told to stop then."""

    exit_code = 65


class LockedError(StopgradError):
    """Another process holds this run folder."""

    exit_code = 73


class StorageError(StopgradError):
    """Reading or writing failed below us: disk full, permission, quota."""

    exit_code = 74


class InterruptedRunError(StopgradError):
    """A signal ended the run after its state was saved."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def did_you_mean(found: str, allowed: Iterable[str]) -> str:
    """`; did you mean 'x'?` where a name of `allowed` is near, else `; allowed: a, b, c`."""
    names = sorted(allowed)
    near = difflib.get_close_matches(found, names, n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else f"; allowed: {', '.join(names)}"
