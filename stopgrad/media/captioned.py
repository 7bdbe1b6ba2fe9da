"""Images with captions: a sample is (pixels [H, W, C], UTF-8 [L] uint8); a crop and token ids.

The trunk that is kept in the first place is the image's, so what is clean is the image. The caption's tower has a
preprocessing of its own, and is asked where both are: `eval.pairs`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stopgrad.contracts import Maker, Preprocess
from stopgrad.data.captioned import CAPTION, IMAGE, CaptionedDataConfig, images_of, open_captioned, texts_of
from stopgrad.data.sources import Data, Progress
from stopgrad.data.texts import TextDataConfig
from stopgrad.media.images import MEDIUM as IMAGES
from stopgrad.media.medium import Raw, Say
from stopgrad.media.sizes import Lines
from stopgrad.media.texts import MEDIUM as TEXTS
from stopgrad.views.captioned import CaptionedViewMaker, apart
from stopgrad.views.captioned_config import CaptionedPreprocess, CaptionedViewsConfig

assert (IMAGE, CAPTION) == (0, 1)  # of a sample, as `apart` gives them
_TEXTS = TextDataConfig()  # captions are opened with their images: nothing of it is read


class Captioned:
    """See `medium.Medium`."""

    one, many, such_as = "an image", "images with captions", "photo.jpg"

    def open(self, data: CaptionedDataConfig, views: CaptionedViewsConfig, progress: Progress | None = None) -> Data:
        return open_captioned(data, views.image_size, progress)

    def sizes(
        self, opened: Data, data: CaptionedDataConfig, views: CaptionedViewsConfig
    ) -> tuple[Lines, dict[str, Any]]:
        lines, facts = IMAGES.sizes(images_of(opened), data.images(), views.image())
        more, of_texts = TEXTS.sizes(texts_of(opened), _TEXTS, views.text)
        return [*lines, *more], {**facts, **of_texts}

    def settled(
        self, data: CaptionedDataConfig, views: CaptionedViewsConfig, opened: Data, say: Say
    ) -> CaptionedViewsConfig:
        image = IMAGES.settled(data.images(), views.image(), images_of(opened), say)
        text = TEXTS.settled(_TEXTS, views.text, texts_of(opened), say)
        return replace(views, mean=image.mean, std=image.std, text=text)

    def preprocess(self, data: CaptionedDataConfig, views: CaptionedViewsConfig) -> CaptionedPreprocess:
        # the shorter side is brought to the crop's, as CLIP does at every size
        image = replace(IMAGES.preprocess(data.images(), views.image()), crop_fraction=1.0)
        return CaptionedPreprocess(image=image, text=TEXTS.preprocess(_TEXTS, views.text))

    def maker(
        self,
        views: CaptionedViewsConfig,
        preprocess: CaptionedPreprocess,
        seed: int,
        device: torch.device,
        threads: int,
    ) -> Maker:
        return CaptionedViewMaker(views, preprocess, seed, device, threads)

    def clean(self, samples: Sequence[Any], preprocess: CaptionedPreprocess, threads: int = 1) -> Tensor:
        return IMAGES.clean(apart(samples)[IMAGE], preprocess.image, threads)

    def decode(
        self, file: bytes, extension: bytes, data: CaptionedDataConfig, preprocess: CaptionedPreprocess
    ) -> NDArray[Any]:
        return IMAGES.decode(file, extension, data.images(), preprocess.image)

    def stand_ins(self, count: int, preprocess: CaptionedPreprocess) -> tuple[Sequence[Any], str]:
        images, told = IMAGES.stand_ins(count, preprocess.image)
        return [(image, np.frombuffer(b"a picture", np.uint8)) for image in images], told

    def raw(self, preprocess: CaptionedPreprocess) -> Raw:
        return IMAGES.raw(preprocess.image)

    def pictures(self, clean: Tensor, preprocess: CaptionedPreprocess, side: int) -> Tensor:
        """Of crops, or of the token ids of captions: the text, drawn."""
        if clean.is_floating_point():
            return IMAGES.pictures(clean, preprocess.image, side)
        drawn = TEXTS.pictures(clean, preprocess.text, side)
        return drawn[:, :1].expand(-1, preprocess.channels, -1, -1)

    def input(self, preprocess: CaptionedPreprocess) -> tuple[int, int]:
        return IMAGES.input(preprocess.image)

    def wanted(self, data: CaptionedDataConfig, preprocess: CaptionedPreprocess | Preprocess) -> CaptionedDataConfig:
        image = preprocess.image if isinstance(preprocess, CaptionedPreprocess) else preprocess
        return replace(data, channels=image.channels, depth=image.depth)

    def refitted(self, views: CaptionedViewsConfig, preprocess: CaptionedPreprocess) -> CaptionedViewsConfig:
        image = preprocess.image
        text = TEXTS.refitted(views.text, preprocess.text)
        return replace(views, image_size=image.image_size, mean=image.mean, std=image.std, text=text)

    def check_fit(self, views: CaptionedViewsConfig, preprocess: CaptionedPreprocess) -> None:
        IMAGES.check_fit(views.image(), preprocess.image)

    def heard(self, sample: NDArray[Any], preprocess: CaptionedPreprocess) -> None:
        return None

    def in_words(self, preprocess: CaptionedPreprocess) -> str:
        return IMAGES.in_words(preprocess.image)

    def said(self, sample: Any) -> str:
        return TEXTS.said(sample[CAPTION])


MEDIUM = Captioned()
