"""Views: what an image is turned into before a method sees it.

`config` and `presets` say the law, `params` draws from it, `cpu` (8 bits, 1 or 3 channels) with `wide` (all others),
`gpu` and `exact` apply what was drawn, `maker` does both for a batch, and `preprocess` is the transform without chance.
`sensors` is about several pictures of one scene, as channels of one image.

Letters in shapes: B batch, C channels, H W pixels of a source, S side of a crop in pixels.

Settings import without torch; what needs it is imported when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stopgrad.lazy import later
from stopgrad.views.config import CropConfig, ViewsConfig
from stopgrad.views.presets import PRESETS

if TYPE_CHECKING:
    from stopgrad.views.maker import ViewMaker
    from stopgrad.views.params import Params, draw
    from stopgrad.views.preprocess import preprocess_batch, preprocess_of

__all__ = [
    "PRESETS",
    "CropConfig",
    "Params",
    "ViewMaker",
    "ViewsConfig",
    "draw",
    "preprocess_batch",
    "preprocess_of",
]

__getattr__ = later(
    __name__,
    {
        "Params": "params",
        "draw": "params",
        "ViewMaker": "maker",
        "preprocess_batch": "preprocess",
        "preprocess_of": "preprocess",
    },
)
