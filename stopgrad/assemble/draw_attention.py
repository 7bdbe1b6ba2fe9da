"""`stopgrad attention`: a picture of where an encoder looks, a row an image, a column a head."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from stopgrad import rng
from stopgrad.assemble.api import load
from stopgrad.assemble.draw_views import SUFFIXES, as_picture
from stopgrad.assemble.use import kept_as, open_for
from stopgrad.contracts import ConfigError
from stopgrad.eval.sheets import framed
from stopgrad.media import medium_of
from stopgrad.nn.attention import class_attention, vit_of
from stopgrad.training.progress import Progress

SIDE, MOST = 96, 64  # pixels of a tile; rows
DARK, BRIGHT = (20, 24, 40), (255, 214, 92)  # no attention, and the most of a map


def draw_attention(
    encoder: str | Path,
    data: str | Path,
    output: str | Path,
    *,
    images: int = 8,
    seed: int = 0,
    progress: Progress | None = None,
) -> tuple[Path, int, int]:
    """Draws `images` of the data's test images, or training images where there are none, beside a map a head.

    Each map is drawn from nothing to its own largest value. Returns (the picture's path, rows, heads). Raises
    ConfigError, and what opening the encoder and the data raises.
    """
    output = Path(output)
    if output.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"--output {output}: a picture is drawn as one of {', '.join(SUFFIXES)}; write attention.png")
    if not 1 <= images <= MOST:
        raise ConfigError(f"--images must be from 1 to {MOST}, got {images}")
    loaded = load(encoder)
    vit_of(loaded.backbone)
    opened = open_for(loaded, data, progress, kept_as(encoder))
    split = opened.test if len(opened.test) else opened.train
    chosen = np.sort(rng.permutation(len(split), seed, epoch=0)[:images])
    medium = medium_of(loaded.preprocess)
    x = medium.clean(split.take(chosen), loaded.preprocess)
    maps = class_attention(loaded.backbone.eval(), x)
    tiles = medium.pictures(x, loaded.preprocess, SIDE).clamp(0, 1)[:, :3].expand(-1, 3, -1, -1)
    pictures = tiles.mul(255).round().byte().permute(0, 2, 3, 1).numpy()  # [N, S, S, 3]
    rows = [[picture, *coloured(each)] for picture, each in zip(pictures, maps)]
    sheet = np.concatenate([np.concatenate([framed(tile) for tile in row], axis=1) for row in rows])
    return as_picture(sheet, output), len(rows), maps.shape[1]


def coloured(maps: Tensor) -> list[NDArray[np.uint8]]:
    """[heads, rows, columns] -> a tile [S, S, 3] a head, patches as they are, no smoother than they were computed."""
    share = maps / maps.flatten(1).amax(dim=1).clamp_min(1e-12)[:, None, None]
    large = F.interpolate(share.unsqueeze(0), size=(SIDE, SIDE), mode="nearest")[0].unsqueeze(-1)
    dark, bright = (torch.tensor(colour, dtype=torch.float32) for colour in (DARK, BRIGHT))
    return list((dark + large * (bright - dark)).round().byte().numpy())
