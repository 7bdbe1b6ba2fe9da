"""Views of images with captions: a crop [B, C, S, S] and the caption's token ids [B, L].

The crop is drawn within a square at a random place of the image, as large as its shorter side: the random square crop
of the resized image, CLIP's only augmentation. Everything depends on (seed, epoch, index of the pair) alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from stopgrad import rng
from stopgrad.contracts import Batch, DataError, Views
from stopgrad.views.captioned_config import CaptionedPreprocess, CaptionedViewsConfig
from stopgrad.views.maker import ViewMaker
from stopgrad.views.text import TextViewMaker

_SQUARE = 1 << 21  # stands for a view's number: the place of the square has draws of its own

Pairs = Sequence[tuple[NDArray[Any], NDArray[Any]]]  # images [H, W, C] with captions, UTF-8 [L] uint8


class CaptionedViewMaker:
    """Views of one batch after another. Holds no state but its threads; `close` ends them.

    seed: of the run.  threads: of the crops, at least 1.
    """

    def __init__(
        self,
        config: CaptionedViewsConfig,
        preprocess: CaptionedPreprocess,
        seed: int,
        device: torch.device,
        threads: int,
    ) -> None:
        self.images = ViewMaker(config.image(), preprocess.image.channels, seed, device, threads)
        self.texts = TextViewMaker(config.text, preprocess.text, seed, device, threads)
        self.seed = seed

    def __call__(self, batch: Batch) -> Views:
        """A crop, float32, and token ids, int64, on the device. Raises DataError for samples that are no pairs."""
        images, captions = apart(batch.samples)
        squares = squared(images, self.seed, batch.epoch, batch.index)
        crops = self.images(Batch(squares, batch.index, batch.epoch))
        ids = self.texts(Batch(captions, batch.index, batch.epoch))
        return Views((*crops.crops, *ids.crops), crops.index)

    def close(self) -> None:
        """Ends the threads; the maker can't be called any more where it had some."""
        self.images.close()
        self.texts.close()


def apart(samples: Sequence[Any]) -> tuple[list[NDArray[Any]], list[NDArray[Any]]]:
    """B pairs -> B images, B captions. Raises DataError that names the first sample that is no pair."""
    for place, sample in enumerate(samples):
        if not isinstance(sample, tuple) or len(sample) != 2:
            raise DataError(
                f"views: sample {place} of the batch is no image with a caption but {type(sample).__name__}; open them "
                "with views.kind=captioned"
            )
    return [image for image, _ in samples], [caption for _, caption in samples]


def squared(images: Sequence[NDArray[Any]], seed: int, epoch: int, index: NDArray[np.int64]) -> list[NDArray[Any]]:
    """The largest square at a random place of each image [H, W, C], not copied; a square image as it is."""
    u = rng.uniform(rng.VIEWS, seed, epoch, index, 2, _SQUARE)  # [B, 2]
    out = []
    for image, place in zip(images, u):
        side = min(image.shape[:2])
        top, left = (int(share * (length - side + 1)) for share, length in zip(place, image.shape[:2]))
        out.append(image[top : top + side, left : left + side])
    return out
