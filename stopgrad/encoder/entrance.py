"""What goes into an exported file, by the kind of its samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from stopgrad.contracts import Preprocess
from stopgrad.encoder.file import Encoder
from stopgrad.encoder.pixels import FromPixels, as_pixels, largest
from stopgrad.media import AnyPreprocess, medium_of
from stopgrad.views.audio_config import AudioPreprocess
from stopgrad.views.sensors import sensors_of
from stopgrad.views.text_config import TextPreprocess


@dataclass(frozen=True, slots=True)
class Entrance:
    """The input of an exported model."""

    name: str  # of the input in a graph
    shape: tuple[int, ...]  # of one sample
    about: str  # type, shape and values, for whoever runs the file
    comment: str  # the same as a comment behind the lines that load it
    model: nn.Module  # [B, *shape] -> features [B, dim], float32
    called: str  # what samples are called
    dtype: torch.dtype = torch.float32

    def example(self) -> torch.Tensor:
        """Two samples of nothing, to trace a model with."""
        return torch.zeros(2, *self.shape, dtype=self.dtype)


def entrance(encoder: Encoder) -> Entrance:
    """How the exported `encoder` is entered."""
    preprocess = encoder.preprocess
    if isinstance(preprocess, Preprocess):
        channels, side = preprocess.channels, preprocess.image_size
        short = max(side, round(side / preprocess.crop_fraction))
        cut = f"shorter side to {short} px (antialiased bilinear), centre {side} px"
        if sensors := sensors_of(preprocess):
            cut += f"; channels: {', '.join(f'{sensor} {sensor.channels}' for sensor in sensors)}"
        return Entrance(
            name="pixels",
            shape=(channels, side, side),
            about=f"pixels: float32 [batch, {channels}, {side}, {side}], pixel values 0 to {largest(encoder)}; "
            "mean and std are applied in the graph, resize and crop are not"
            + (f"; channels: {', '.join(preprocess.sensors)}" if preprocess.sensors else ""),
            comment=f"# pixels: float32 [B, {channels}, {side}, {side}], values 0 to {largest(encoder)}; {cut}",
            model=FromPixels(encoder),
            called="images",
        )
    if isinstance(preprocess, TextPreprocess):
        length, kinds = preprocess.length, medium_of(preprocess).input(preprocess)[0]
        what = f"ids of the tokenizer that stands in the file's description, 0 to {kinds - 1}, 0 fills up to the right"
        return Entrance(
            name="tokens",
            shape=(length,),
            about=f"tokens: int64 [batch, {length}], {what}",
            comment=f"# tokens: int64 [B, {length}], {what}",
            model=encoder.backbone,
            called="texts",
            dtype=torch.int64,
        )
    assert isinstance(preprocess, AudioPreprocess)
    window, rate = preprocess.window, f"{preprocess.sample_rate} Hz"
    return Entrance(
        name="waveform",
        shape=(window,),
        about=f"waveform: float32 [batch, {window}], mono at {rate}, full scale 1; the middle of a sound",
        comment=f"# waveform: float32 [B, {window}], mono at {rate}, full scale 1; the middle of each sound",
        model=encoder.backbone,
        called="sounds",
    )


def as_input(samples: Sequence[NDArray[Any]], preprocess: AnyPreprocess) -> NDArray[Any]:
    """B samples as they are stored -> what goes into an exported model."""
    if isinstance(preprocess, Preprocess):
        return as_pixels(samples, preprocess)
    return np.asarray(medium_of(preprocess).clean(samples, preprocess).numpy())
