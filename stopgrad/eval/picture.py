"""A picture of a query and its neighbours, as PNG."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

CELL, GAP, MARGIN, TEXT = 144, 12, 16, 12  # pixels
COLUMNS = 5
LINES = 2  # of text under a picture
INK, FAINT, PAPER, EMPTY = (30, 30, 30), (110, 110, 110), (255, 255, 255), (236, 236, 236)


def draw_neighbours(query: NDArray[Any], found: Sequence[NDArray[Any]], captions: Sequence[tuple[str, str]]) -> bytes:
    """query and each of `found`: [H, W, C], any channels and depth.  captions: two lines each, escaped text."""
    font = ImageFont.load_default(TEXT)
    columns = min(COLUMNS, max(1, len(found)))
    rows = -(-len(found) // columns)
    step = CELL + LINES * (TEXT + 4) + GAP
    left = MARGIN + CELL + 2 * GAP  # of the neighbours; the query stands before them
    size = (left + columns * (CELL + GAP) - GAP + MARGIN, 2 * MARGIN + max(1, rows) * step - GAP)
    page = Image.new("RGB", size, PAPER)
    pen = ImageDraw.Draw(page)
    places = [(left + i % columns * (CELL + GAP), MARGIN + i // columns * step) for i in range(len(found))]
    for (x, y), pixels, lines in zip([(MARGIN, MARGIN), *places], [query, *found], [("query", ""), *captions]):
        cell = Image.new("RGB", (CELL, CELL), EMPTY)
        picture = _fitted(pixels)
        cell.paste(picture, ((CELL - picture.width) // 2, (CELL - picture.height) // 2))
        page.paste(cell, (x, y))
        for number, line in enumerate(lines):
            ink = FAINT if number else INK
            pen.text((x, y + CELL + 3 + number * (TEXT + 4)), _cut(line, font), ink, font)
    out = io.BytesIO()
    page.save(out, "PNG")
    return out.getvalue()


def _fitted(pixels: NDArray[Any]) -> Image.Image:
    """Inside a square of CELL; what is no 8-bit photograph is stretched so that it can be seen, 3 bands at most."""
    shown = pixels[:, :, :3] if pixels.shape[2] >= 3 else pixels[:, :, :1].repeat(3, axis=2)
    if pixels.dtype != np.uint8 or pixels.shape[2] not in (1, 3):
        low, high = np.percentile(shown, (1, 99))
        shown = ((shown.astype(np.float32) - low) / max(float(high - low), 1.0)).clip(0, 1) * 255
    picture = Image.fromarray(np.ascontiguousarray(shown.astype(np.uint8)))
    scale = CELL / max(picture.size)
    wanted = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.resize(wanted, Image.Resampling.NEAREST if scale >= 2 else Image.Resampling.BICUBIC)


def _cut(words: str, font: Any) -> str:
    """The end of a name tells more than its beginning: what does not fit is cut from the front."""
    if font.getlength(words) <= CELL:
        return words
    while words and font.getlength("..." + words) > CELL:
        words = words[1:]
    return "..." + words
