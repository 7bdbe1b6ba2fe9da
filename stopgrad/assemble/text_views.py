"""`stopgrad views` of texts: each beside its views of some epochs, as lines for the terminal and as a picture."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from stopgrad import rng
from stopgrad.contracts import Batch
from stopgrad.data import Data
from stopgrad.media import medium_of
from stopgrad.recipe import Recipe
from stopgrad.reporting.found import printable
from stopgrad.views.text_config import TextViewsConfig
from stopgrad.views.tokens import tokens_of

SIZE, LEADING, MARGIN = 14, 20, 16  # pixels
WIDEST = 1600
LONGEST = 200  # characters of a line


def text_views(recipe: Recipe, data: Data, count: int, epochs: int) -> list[str]:
    """Lines: `count` training texts, chosen by the seed, each followed by the tokens of its views.

    recipe: with its words found.
    """
    medium, views = medium_of(recipe.views), recipe.views
    assert isinstance(views, TextViewsConfig)
    preprocess = medium.preprocess(recipe.data, views)
    tokens = tokens_of(preprocess)
    maker = medium.maker(views, preprocess, recipe.seed, torch.device("cpu"), 1)
    chosen = np.sort(rng.permutation(len(data.train), recipe.seed, epoch=0)[:count])
    samples = data.train.take(chosen)
    made = [maker(Batch(samples, chosen, epoch)).crops for epoch in range(epochs)]
    lines = [laws(views)]
    for row, sample in enumerate(samples):
        lines += ["", f"{data.train.name(int(chosen[row]))}: {_short(medium.said(sample))}"]
        for epoch, crops in enumerate(made, 1):
            for number, crop in enumerate(crops, 1):
                lines.append(f"  epoch {epoch}, view {number}: {_short(tokens.text(crop[row].tolist()))}")
    return lines


def laws(views: TextViewsConfig) -> str:
    """What is done to a text, in words."""
    done = {
        "words become synonyms": views.synonyms,
        "words left out": views.deletion,
        "words exchanged": views.swap,
        "texts in random order": views.shuffle,
        "tokens unknown": views.dropout,
    }
    said = [f"{name} {100 * share:.0f} %" for name, share in done.items() if share]
    own = [f"by {views.function}"] if views.function else []
    return ", ".join([f"{views.views} views of {views.length} tokens", *own, *said])


def _short(text: str) -> str:
    one_line = printable(" ".join(text.split()))
    return one_line if len(one_line) <= LONGEST else one_line[: LONGEST - 1] + "…"


def page(title: str, lines: list[str]) -> Image.Image:
    """The lines as a picture, by Pillow's own font, as wide as the widest up to WIDEST pixels."""
    font = ImageFont.load_default(SIZE)
    every = [title, *lines]
    width = min(WIDEST, max(480, 2 * MARGIN + int(max(font.getlength(line) for line in every)) + 1))
    made = Image.new("RGB", (width, 2 * MARGIN + LEADING * len(every)), (255, 255, 255))
    pen = ImageDraw.Draw(made)
    for number, line in enumerate(every):
        ink = (30, 30, 30) if not line.startswith(" ") else (90, 90, 90)
        pen.text((MARGIN, MARGIN + number * LEADING), line, ink, font)
    return made
