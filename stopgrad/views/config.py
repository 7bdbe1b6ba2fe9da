"""Settings of the views: the law of one crop, and which crops an image is turned into. No torch here.

Defaults of `CropConfig` are MoCo v2's augmentation, which SimSiam uses (AUG-MOCO2 of methods-siamese.md, 0.3;
facebookresearch/simsiam main_simsiam.py). Defaults of `ViewsConfig` are SimSiam's on CIFAR: two such crops without blur
(arXiv:2011.10566, appendix D).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from stopgrad.contracts import ConfigError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
SMALLEST, LARGEST = 8, 4096  # pixels: sides a crop may have
MOST_CHANNELS = 64

_PROBABILITIES = ("hflip", "vflip", "quarter_turns", "rotation", "jitter", "grayscale", "blur", "solarize")


@dataclass(frozen=True, kw_only=True, slots=True)
class CropConfig:
    """The law of one view. Probabilities are 0 to 1; operations come in the order of the fields.

    Horizontal flips commute with everything after them, so presets that flip last (MoCo v2, MoCo v3) have the same law.
    """

    size: int = 0  # side, pixels; 0: views.image_size
    scale: tuple[float, float] = (0.2, 1.0)  # share of the image's area
    ratio: tuple[float, float] = (3 / 4, 4 / 3)  # width / height
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"  # antialiased, as Pillow's and torchvision's
    hflip: float = 0.5
    vflip: float = 0.0
    quarter_turns: float = 0.0  # probability of a turn by 90, 180 or 270 degrees
    rotation: float = 0.0  # probability of a turn by an angle from +-rotation_degrees; corners become black
    rotation_degrees: float = 15.0
    jitter: float = 0.8  # probability of the next four, in random order
    brightness: float = 0.4  # factor from 1 +- this, multiplicative (BYOL's JAX code adds instead)
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.1  # turns of the colour circle, at most 0.5; in HSV
    grayscale: float = 0.2
    blur: float = 0.5
    # Pixels of the crop, whatever its size: SwAV and DINO blur 96-pixel crops with the sigma of the 224-pixel ones.
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    solarize: float = 0.0
    solarize_threshold: float = 0.5  # values from here up are inverted; pixels are 0 to 1

    def __post_init__(self) -> None:
        if self.size and not SMALLEST <= self.size <= LARGEST:
            raise _wrong("size", f"0 (views.image_size) or {SMALLEST} to {LARGEST} pixels", self.size, "224")
        for name in _PROBABILITIES:
            if not 0 <= getattr(self, name) <= 1:
                raise _wrong(name, "a probability, 0 to 1", getattr(self, name), "0.5")
        for name in ("scale", "ratio", "blur_sigma"):
            low, high = getattr(self, name)
            if not (0 < low <= high < math.inf):
                raise _wrong(name, "0 < low <= high", (low, high), str(_default(name)))
        if self.scale[1] > 1:
            raise _wrong("scale", "0 < low <= high <= 1", self.scale, "(0.2, 1.0)")
        if self.interpolation not in ("bilinear", "bicubic"):
            raise _wrong("interpolation", "bilinear or bicubic", repr(self.interpolation), "bilinear")
        for name, top in (("brightness", 1.0), ("contrast", 1.0), ("saturation", 1.0), ("hue", 0.5)):
            if not 0 <= getattr(self, name) <= top:
                raise _wrong(name, f"0 to {top}", getattr(self, name), str(_default(name)))
        if not 0 <= self.rotation_degrees <= 180:
            raise _wrong("rotation_degrees", "0 to 180", self.rotation_degrees, "15")
        if not 0 <= self.solarize_threshold <= 1:
            raise _wrong("solarize_threshold", "0 to 1", self.solarize_threshold, "0.5")


def _default(name: str) -> object:
    return CropConfig.__dataclass_fields__[name].default


def _wrong(name: str, needed: str, found: object, example: str) -> ConfigError:
    return ConfigError(f"views.crops: {name} must be {needed}, got {found}; write for example {name}: {example}")


@dataclass(frozen=True, kw_only=True, slots=True)
class ViewsConfig:
    """What one image is turned into, and by what."""

    kind: Literal["image"] = "image"  # of samples; media.KINDS has them all
    image_size: int = 32  # side of a crop that names no size of its own, and of the test transform; pixels
    crops: tuple[CropConfig, ...] = (CropConfig(blur=0.0), CropConfig(blur=0.0))  # large ones first
    executor: Literal["auto", "cpu", "gpu", "exact"] = "auto"  # auto: gpu where the device is cuda, else cpu
    # One value a channel; three are averaged for 1-channel images; (): measured on the training images.
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    def __post_init__(self) -> None:
        if not SMALLEST <= self.image_size <= LARGEST:
            raise ConfigError(
                f"views.image_size must be {SMALLEST} to {LARGEST} pixels, got {self.image_size}; CIFAR has 32"
            )
        if not self.crops:
            raise ConfigError("views.crops is empty: name at least one crop; SimSiam has two")
        sizes = [self.side(crop) for crop in self.crops]
        if sizes != sorted(sizes, reverse=True):
            raise ConfigError(f"views.crops: sizes are {sizes}, large crops must come first; put them in that order")
        if self.executor not in ("auto", "cpu", "gpu", "exact"):
            raise ConfigError(f"views.executor must be auto, cpu, gpu or exact, got {self.executor!r}; use auto")
        if len(self.mean) > MOST_CHANNELS or len(self.mean) != len(self.std):
            raise ConfigError(
                f"views.mean and views.std need one value a channel (1 to {MOST_CHANNELS} each, or none: measured), "
                f"got {len(self.mean)} and {len(self.std)}; ImageNet's are {IMAGENET_MEAN} and {IMAGENET_STD}"
            )
        if not all(0 < value < math.inf for value in self.std):
            raise ConfigError(f"views.std must be above 0, got {self.std}; ImageNet's are {IMAGENET_STD}")
        if not all(map(math.isfinite, self.mean)):
            raise ConfigError(f"views.mean must be finite, got {self.mean}; ImageNet's are {IMAGENET_MEAN}")

    @property
    def sides(self) -> tuple[int, ...]:
        """Pixels a side of every crop."""
        return tuple(map(self.side, self.crops))

    def watched(self) -> ViewsConfig:
        """What a run is watched with: two views of each image."""
        return replace(self, crops=(self.crops * 2)[:2])

    def side(self, crop: CropConfig) -> int:
        """Pixels a side of `crop`."""
        return crop.size or self.image_size

    def statistics(self, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and std, one value a channel. Raises ConfigError where the settings have another number of values."""
        if len(self.mean) == channels:
            return self.mean, self.std
        measure = "type --set views.mean=[] --set views.std=[] to have them measured on the training images"
        if not self.mean:
            raise ConfigError(f"views.mean and views.std are to be measured, and were not: they need {channels} values")
        if channels == 1 and len(self.mean) == 3:
            return (sum(self.mean) / 3,), (sum(self.std) / 3,)
        whose = "ImageNet's " if (self.mean, self.std) == (IMAGENET_MEAN, IMAGENET_STD) else ""
        raise ConfigError(
            f"views.mean and views.std have {whose}{len(self.mean)} {'value' if len(self.mean) == 1 else 'values'}, "
            f"the images {channels} channels; {measure}"
        )
