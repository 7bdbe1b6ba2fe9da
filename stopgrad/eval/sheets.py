"""Pictures of many samples on one sheet: thumbnails, and the views of some, as a report shows them."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from stopgrad import rng
from stopgrad.contracts import Batch, Images
from stopgrad.media import AnyPreprocess, AnyViews, medium_of
from stopgrad.views.sensors import as_picture, sensors_of, slices

COLUMNS = 40
SHEET_BYTES = 3_600_000  # of thumbs.jpg: base64 makes 4.8 MB of it
SHEET_SIDE, SHEET_IMAGES, SHEET_VIEWS = 96, 6, 8


@dataclass(frozen=True, slots=True)
class Stretch:
    """How values of 0 to 1 become what a screen shows: the channels taken, and what is black and what is white."""

    channels: tuple[int, ...]
    low: NDArray[np.float32]  # [3 or 1]
    high: NDArray[np.float32]
    told: str  # "" where the pixels are shown as they are

    def __call__(self, values: NDArray[Any]) -> NDArray[np.uint8]:
        """[..., C] -> [..., 3]"""
        picked = (values[..., list(self.channels)].astype(np.float32) - self.low) / (self.high - self.low)
        shown = np.rint(picked.clip(0, 1) * 255).astype(np.uint8)
        return np.repeat(shown, 3, axis=-1) if len(self.channels) == 1 else shown


def stretch_for(small: NDArray[Any], deep: bool) -> Stretch:
    """As they are for 8-bit gray and colour; else the first three channels (two: the first), 1st to 99th percentile."""
    count = small.shape[-1]
    channels = (0, 1, 2) if count >= 3 else (0,)
    if count in (1, 3) and not deep:
        return Stretch(channels, np.zeros(len(channels), np.float32), np.ones(len(channels), np.float32), "")
    values = small.reshape(-1, count)[:, list(channels)].astype(np.float32)
    low, high = np.percentile(values, (1, 99), axis=0).astype(np.float32)
    part = "channels 1 to 3 as red, green and blue" if len(channels) == 3 else "channel 1 as gray"
    told = f"pictures show {part}, stretched from the 1st to the 99th percentile of all images"
    return Stretch(channels, low, np.maximum(high, low + 1e-4), told)


def view_sheet(
    images: Images, views: AnyViews, preprocess: AnyPreprocess, stretch: Stretch, seed: int, device: torch.device
) -> tuple[list[list[NDArray[np.uint8]]], list[str], str]:
    """(tiles by row, what each column is, a note): the test transform of some images, then views as training has them.

    Two views an image are drawn twice, so that one sees how much they vary.
    """
    chosen = rng.permutation(len(images), seed, 2, rng.EVAL)[:SHEET_IMAGES]
    samples = images.take(chosen)
    medium = medium_of(preprocess)
    maker = medium.maker(views, preprocess, seed, device, 1)
    try:
        epochs = (0, 1) if len(views.sides) <= SHEET_VIEWS // 2 else (0,)
        crops = [crop for epoch in epochs for crop in maker(Batch(samples, chosen, epoch=epoch)).crops]
    finally:
        maker.close()
    columns = [f"view {1 + i % len(views.sides)}" for i in range(len(crops))][:SHEET_VIEWS]
    tiles = [medium.clean(samples, preprocess), *(crop.cpu() for crop in crops[:SHEET_VIEWS])]
    shown = [medium.pictures(tile, preprocess, SHEET_SIDE).permute(0, 2, 3, 1).numpy() for tile in tiles]
    apart = [by_sensor(seen, preprocess) for seen in shown]  # of each tile, (sensor, [R, S, S, 1 or 3])
    names = [name for name, _ in apart[0] if name]
    if names:
        stretches = [stretch_for(seen, name not in unstretched(preprocess)) for name, seen in apart[0]]
    else:
        stretches = [stretch]
    pictures = [[how(seen) for how, (_, seen) in zip(stretches, tile)] for tile in apart]  # [tile][sensor]
    rows = [
        [framed(tile[sensor][row]) for tile in pictures]
        for row in range(len(chosen))
        for sensor in range(len(stretches))
    ]
    hidden = len(crops) - len(columns)
    notes = [f"rows of an image: {', '.join(names)}"] * bool(names)
    notes += [f"{hidden} further views are not shown"] * bool(hidden)
    return rows, ["as the encoder sees it", *columns], "; ".join(notes)


def by_sensor(seen: NDArray[np.float32], preprocess: AnyPreprocess) -> list[tuple[str, NDArray[np.float32]]]:
    """[B, S, S, C] as pictures, [B, S, S, 1 to 3]: of each sensor with its name, of all others one without."""
    sensors = sensors_of(preprocess)
    if not sensors:
        return [("", seen[..., :3])]
    return [(sensor.name, as_picture(sensor, seen[..., part])) for sensor, part in zip(sensors, slices(sensors))]


def unstretched(preprocess: AnyPreprocess) -> list[str]:
    """Sensors whose values are looked at as they are: colours, normals and labels."""
    return [sensor.name for sensor in sensors_of(preprocess) if sensor.what not in ("gray", "bands")]


def framed(tile: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A gap of white around a tile."""
    return np.pad(tile, ((3, 3), (3, 3), (0, 0)), constant_values=255)


def thumbnails(pictures: NDArray[np.uint8]) -> bytes:
    """[N, S, S, 3] -> one JPEG of COLUMNS a row, below SHEET_BYTES."""
    count, side = pictures.shape[:2]
    rows = -(-count // COLUMNS)
    sheet = np.full((rows * COLUMNS, side, side, 3), 128, np.uint8)
    sheet[:count] = pictures
    whole = sheet.reshape(rows, COLUMNS, side, side, 3).swapaxes(1, 2).reshape(rows * side, COLUMNS * side, 3)
    for quality in (82, 70, 55, 40, 25, 10):
        data = jpeg(whole, quality)
        if len(data) <= SHEET_BYTES:
            break
    return data


def jpeg(pixels: NDArray[np.uint8], quality: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(out, "JPEG", quality=quality, optimize=True)
    return out.getvalue()
