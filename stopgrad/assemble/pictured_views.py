"""What `stopgrad views` draws of images with captions: a row a pair, its crops of several epochs, and the caption."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from stopgrad import rng
from stopgrad.contracts import Batch
from stopgrad.data import Data
from stopgrad.eval.sheets import framed
from stopgrad.media import medium_of
from stopgrad.recipe import Recipe

SIDE = 128  # pixels of a tile


def pictured_views(recipe: Recipe, data: Data, images: int, epochs: int) -> NDArray[np.uint8]:
    """[H, W, 3], a row a sample: as the encoder sees it, then its first view of each epoch, and the others of the first
    epoch; of sounds spectrograms, of what has a caption the tokens of it last."""
    medium = medium_of(recipe.views)
    preprocess = medium.preprocess(recipe.data, recipe.views)
    chosen = np.sort(rng.permutation(len(data.train), recipe.seed, epoch=0)[:images])
    samples = data.train.take(chosen)
    maker = medium.maker(recipe.views, preprocess, recipe.seed, torch.device("cpu"), 1)
    try:
        made = [maker(Batch(samples, chosen, epoch)).crops for epoch in range(epochs)]
    finally:
        maker.close()
    tiles = [medium.clean(samples, preprocess), *(crops[0] for crops in made), *made[0][1:]]
    shown = [medium.pictures(tile, preprocess, SIDE).clamp(0, 1).mul(255).round().byte() for tile in tiles]
    columns = [tile[:, :3].expand(-1, 3, -1, -1).permute(0, 2, 3, 1).numpy() for tile in shown]  # [R, S, S, 3] each
    return np.concatenate([np.concatenate([framed(tile) for tile in row], axis=1) for row in zip(*columns)])
