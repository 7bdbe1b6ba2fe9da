"""A text as a small picture, by Pillow's own font: dark on white, cut where it is full."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

SIZE, LEADING, MARGIN = 10, 11, 2  # pixels


def text_picture(text: str, side: int) -> NDArray[np.uint8]:
    """[side, side], gray. Characters that the font lacks are drawn as boxes."""
    font = ImageFont.load_default(SIZE)
    page = Image.new("L", (side, side), 255)
    pen = ImageDraw.Draw(page)
    for number, line in enumerate(wrapped(text, font, side - 2 * MARGIN, (side - 2 * MARGIN) // LEADING)):
        pen.text((MARGIN, MARGIN + number * LEADING), line, 30, font)
    return np.asarray(page, np.uint8)


def wrapped(text: str, font: Any, width: float, lines: int) -> list[str]:
    """At most so many lines, broken between words, and inside one that is wider than a line."""
    out = [""]
    for word in text.split():
        longer = f"{out[-1]} {word}".strip()
        if font.getlength(longer) <= width:
            out[-1] = longer
            continue
        if out[-1]:
            out.append("")
        for letter in word:
            if out[-1] and font.getlength(out[-1] + letter) > width:
                out.append("")
            out[-1] += letter
        if len(out) > lines:
            break
    return out[: max(1, lines)]
