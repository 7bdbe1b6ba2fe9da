"""Settings of the views of images with captions, and the transform without chance that belongs to them. No torch here.

Defaults are CLIP's (arXiv:2103.00020, section 2.3): a random square of the resized image and nothing else done to it,
and the caption as it is, 76 tokens long and one more for the end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from stopgrad.contracts import ConfigError, Preprocess
from stopgrad.views.config import CropConfig, ViewsConfig
from stopgrad.views.text_config import TextPreprocess, TextViewsConfig

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)  # openai/CLIP clip/clip.py
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
# The whole of the square that is cut; a caption may say what is left and what is right, and which colour it is.
CLIP_CROP = CropConfig(
    scale=(1.0, 1.0), ratio=(1.0, 1.0), interpolation="bicubic", hflip=0.0, jitter=0.0, grayscale=0.0, blur=0.0
)


def plain_text() -> TextViewsConfig:
    """The caption as it is."""
    return TextViewsConfig(length=77, views=1, synonyms=0.0, deletion=0.0, swap=0.0, dropout=0.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class CaptionedViewsConfig:
    """What an image and its caption are turned into: a crop and the ids of its tokens."""

    kind: Literal["captioned"] = "captioned"  # of samples; media.KINDS has them all
    image_size: int = 224  # side of the crop, unless it names its own, and of the test transform; pixels
    crops: tuple[CropConfig, ...] = (CLIP_CROP,)  # one: the law of the crop within a square at a random place
    executor: Literal["auto", "cpu", "gpu", "exact"] = "auto"  # of the crop
    mean: tuple[float, ...] = CLIP_MEAN  # as of images: (): measured on the training images
    std: tuple[float, ...] = CLIP_STD
    text: TextViewsConfig = field(default_factory=plain_text)  # its probabilities are those of the view, too

    def __post_init__(self) -> None:
        if self.kind != "captioned":
            raise ConfigError(f"views.kind: must be captioned here, got {self.kind!r}")
        if len(self.crops) != 1:
            raise ConfigError(
                f"views.crops: an image with a caption has 1 crop, the caption is the other view; got "
                f"{len(self.crops)}; keep the first"
            )
        if self.text.views != 1:
            raise ConfigError(f"views.text.views must be 1 beside an image, got {self.text.views}; remove it")
        self.image()

    def image(self) -> ViewsConfig:
        """Of the image alone."""
        return ViewsConfig(
            image_size=self.image_size, crops=self.crops, executor=self.executor, mean=self.mean, std=self.std
        )

    @property
    def sides(self) -> tuple[int, ...]:
        """Pixels a side of the crop, twice: to be looked at, the caption is drawn on as many."""
        return self.image().sides * 2

    def watched(self) -> CaptionedViewsConfig:
        """What a run is watched with: the image and its caption, as it is trained."""
        return self

    def side(self, crop: CropConfig) -> int:
        """Pixels a side of `crop`."""
        return crop.size or self.image_size

    def statistics(self, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """As `ViewsConfig.statistics`."""
        return self.image().statistics(channels)


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionedPreprocess:
    """What turns an image and a caption into the inputs of two towers when nothing is random.

    Each tower's file has the one that is its own.
    """

    kind: ClassVar[str] = "captioned"

    image: Preprocess
    text: TextPreprocess

    @property
    def depth(self) -> int:
        """Bits of a pixel."""
        return self.image.depth

    @property
    def image_size(self) -> int:
        """Pixels a side of the image tower's input."""
        return self.image.image_size

    @property
    def channels(self) -> int:
        """Of the image tower's input."""
        return self.image.channels

    def as_settings(self) -> tuple[str, ...]:
        """What a recipe must say to read pairs this way, as a.b=c."""
        mean, std = list(self.image.mean), list(self.image.std)
        return (f"views.mean={mean}", f"views.std={std}", f"views.text.length={self.text.length}")

    def as_dict(self) -> dict[str, Any]:
        """Plain values, with the kind."""
        return {"kind": self.kind, "image": self.image.as_dict(), "text": self.text.as_dict()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> CaptionedPreprocess:
        """Raises ConfigError: no file of ours has it, and no encoder reads both."""
        raise ConfigError("preprocess: images with captions are read by two encoders, and each has its own")
