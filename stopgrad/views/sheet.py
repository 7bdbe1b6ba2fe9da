"""A picture of what a method is shown: each row an image as it is stored, then pairs of its views. No torch here.

Images of one, three or any number of channels and of either depth; of more than three channels the first three are
drawn as red, green and blue, of several sensors each by itself. What is not an 8-bit photograph is stretched so that it
can be seen: the row's image and its views by the same amount, so that what the views do to brightness stays visible.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from stopgrad.contracts import Batch, Images
from stopgrad.views.sensors import Sensor, as_picture, slices

if TYPE_CHECKING:
    from stopgrad.contracts import Views

Picture = NDArray[np.uint8]  # [H, W, 3]

CELL = 128  # pixels of a side of what is drawn, at least
GAP, PAIR_GAP, MARGIN = 6, 18, 16  # pixels: inside a pair, between pairs, around it all
TEXT, SMALL_TEXT = 14, 12  # pixels
_INK, _FAINT, _PAPER, _EMPTY = (30, 30, 30), (110, 110, 110), (255, 255, 255), (236, 236, 236)


def sheet(
    images: Images,
    index: Sequence[int],
    make_views: Callable[[Batch], Views],
    mean: Sequence[float],
    std: Sequence[float],
    *,
    epochs: int = 3,
    title: str = "",
    notes: Sequence[str] = (),
    names: Sequence[str] = (),
    sensors: Sequence[Sensor] = (),
) -> Picture:
    """Draws the images at `index` and the views they get in the first `epochs` epochs, [H, W, 3].

    make_views: from a batch to normalised crops [B, C, S, S] (a ViewMaker).  mean, std: what it normalises with, one
    value a channel.  title, notes: lines above the rows.  names: a caption an image, escaped; "" for none.  sensors:
    whose channels an image has one after the other; each gets a row of its own.
    """
    position = np.asarray(index, dtype=np.int64)
    samples = [images[int(i)] for i in position]
    drawn = []  # epochs of views of [R, S, S, C]
    for epoch in range(epochs):
        crops = make_views(Batch(samples, position, epoch)).crops
        drawn.append([_pixels(crop.float().cpu().numpy(), mean, std) for crop in crops])
    rows = []
    for row, sample in enumerate(samples):
        stored = (sample / np.iinfo(sample.dtype).max).astype(np.float32)
        size, name = f"{sample.shape[1]} x {sample.shape[0]}", names[row] if row < len(names) else ""
        for number, (sensor, part) in enumerate(zip(sensors, slices(sensors)) if sensors else [(None, slice(None))]):
            seen = _seen(stored[..., part], sensor)
            low, high = _stretch(seen, sample.dtype, sensor)
            pairs = [[_shown(_seen(view[row][..., part], sensor), low, high) for view in views] for views in drawn]
            captions = (name if number == 0 else "", f"{sensor.name}, {size}" if sensor else size)
            rows.append(([_shown(seen, low, high)], pairs, captions))
    bands = samples[0].shape[2] if samples and not sensors else 3
    said = [*notes, *([f"bands 1, 2 and 3 of {bands} as red, green and blue"] if bands > 3 else [])]
    return _laid_out(rows, title, said)


def _pixels(crops: NDArray[np.float32], mean: Sequence[float], std: Sequence[float]) -> NDArray[np.float32]:
    """[R, C, S, S] normalised -> [R, S, S, C], 0 to 1."""
    shape = (1, -1, 1, 1)
    back = crops * np.array(std, np.float32).reshape(shape) + np.array(mean, np.float32).reshape(shape)
    return np.asarray(back.transpose(0, 2, 3, 1), np.float32)


def _seen(values: NDArray[np.float32], sensor: Sensor | None) -> NDArray[np.float32]:
    return values if sensor is None else as_picture(sensor, values)


def _stretch(stored: NDArray[np.float32], dtype: np.dtype[Any], sensor: Sensor | None = None) -> tuple[float, float]:
    """What is drawn black and white, of 0 to 1: everything for photographs, else most of what the image holds."""
    if (dtype == np.uint8 and stored.shape[2] in (1, 3)) if sensor is None else sensor.what not in ("gray", "bands"):
        return 0.0, 1.0
    low, high = (float(value) for value in np.percentile(stored[:, :, :3], (1, 99)))
    return (low, high) if high - low > 1e-4 else (0.0, 1.0)


def _shown(pixels: NDArray[np.float32], low: float, high: float) -> Picture:
    """[H, W, C] of 0 to 1 -> [H, W, 3] to look at."""
    visible = pixels[:, :, :3] if pixels.shape[2] >= 3 else np.repeat(pixels[:, :, :1], 3, axis=2)
    return np.asarray(np.rint(np.clip((visible - low) / (high - low), 0, 1) * 255), np.uint8)


def _fitted(picture: Picture, side: int) -> Picture:
    """Within a square of `side` pixels, on gray; small ones by whole multiples, so that their pixels can be seen."""
    height, width = picture.shape[:2]
    longer = max(height, width)
    if longer <= side // 2:
        scale, how = float(side // longer), cv2.INTER_NEAREST
    else:
        scale, how = side / longer, cv2.INTER_AREA if longer > side else cv2.INTER_CUBIC
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    resized = np.asarray(cv2.resize(picture, size, interpolation=how), np.uint8)
    cell = np.full((side, side, 3), _EMPTY, np.uint8)
    top, left = (side - size[1]) // 2, (side - size[0]) // 2
    cell[top : top + size[1], left : left + size[0]] = resized
    return cell


_Row = tuple[list[Picture], list[list[Picture]], tuple[str, str]]  # stored, pairs of views, caption's two lines


def _laid_out(rows: Sequence[_Row], title: str, notes: Sequence[str]) -> Picture:
    text, small = ImageFont.load_default(TEXT), ImageFont.load_default(SMALL_TEXT)
    groups = [1, *(len(pair) for pair in rows[0][1])] if rows else [1]
    lefts, at = [], MARGIN  # left edge of every cell, by group
    for count in groups:
        lefts.append([at + k * (CELL + GAP) for k in range(count)])
        at = lefts[-1][-1] + CELL + PAIR_GAP
    width = max(at - PAIR_GAP + MARGIN, 480)
    said = [line for note in notes for line in _wrapped(note, small, width - 2 * MARGIN)]
    line, line_small = TEXT + 7, SMALL_TEXT + 6
    head = MARGIN + (line if title else 0) + line_small * len(said) + GAP
    top = head + line_small  # under the names of the columns
    step = CELL + 2 * line_small + GAP
    page = Image.new("RGB", (width, top + step * len(rows) + MARGIN), _PAPER)
    pen = ImageDraw.Draw(page)
    if title:
        pen.text((MARGIN, MARGIN), _cut(title, text, width - 2 * MARGIN), _INK, text)
    for number, note in enumerate(said):
        pen.text((MARGIN, MARGIN + (line if title else 0) + number * line_small), note, _FAINT, small)
    columns = ["as stored", *(f"epoch {i}: its views" for i in range(1, len(groups)))]
    for name, cells in zip(columns, lefts):
        pen.text((cells[0], head), _cut(name, small, cells[-1] + CELL - cells[0]), _FAINT, small)
    for number, (stored, pairs, captions) in enumerate(rows):
        y = top + number * step
        for cells, pictures in zip(lefts, [stored, *pairs]):
            for x, picture in zip(cells, pictures):
                page.paste(Image.fromarray(_fitted(picture, CELL)), (x, y))
        for place, caption in enumerate(caption for caption in captions if caption):
            shown = _cut(caption, small, CELL + PAIR_GAP - GAP)
            pen.text((MARGIN, y + CELL + 2 + place * (SMALL_TEXT + 3)), shown, _FAINT, small)
    return np.asarray(page, np.uint8)


def _cut(words: str, font: Any, width: float) -> str:
    """The end of a name tells more than its beginning: what does not fit is cut from the front."""
    if font.getlength(words) <= width:
        return words
    while words and font.getlength("..." + words) > width:
        words = words[1:]
    return "..." + words


def _wrapped(words: str, font: Any, width: float) -> list[str]:
    lines = [""]
    for word in words.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines
