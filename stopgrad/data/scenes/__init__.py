"""`scenes`: the embedded data set, a procedural renderer with ground truth and no files. It is synthetic; say so.

A scene is a lit, textured solid (the class is its shape) before random clutter. The same scene yields pixels, label,
mask, box, depth, normals, segmentation and an English caption, at 32 to 256 pixels.

Letters: B scenes, S pixels a side, P rays, M scenes of one class.
"""

from stopgrad.data.scenes.params import (
    CLASSES,
    TEST,
    TEST_SEED,
    TRAIN,
    TRAIN_SEED,
    VERSION,
    SceneParams,
    draw,
)
from stopgrad.data.scenes.renderer import Rendered, render, render_rgb

__all__ = [
    "CLASSES",
    "TEST",
    "TEST_SEED",
    "TRAIN",
    "TRAIN_SEED",
    "VERSION",
    "Rendered",
    "SceneParams",
    "draw",
    "render",
    "render_rgb",
]
