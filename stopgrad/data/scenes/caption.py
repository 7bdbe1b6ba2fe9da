"""One English sentence a scene, from its parameters: size, colour, texture, class, place, clutter, light."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stopgrad.data.scenes.params import CLASSES, TEXTURES, SceneParams

# Upper end of each hue's range, in turns, and its name.
_HUES = (
    (0.03, "red"),
    (0.11, "orange"),
    (0.19, "yellow"),
    (0.44, "green"),
    (0.53, "cyan"),
    (0.71, "blue"),
    (0.82, "purple"),
    (0.95, "pink"),
    (1.0, "red"),
)
_GREY = 0.03  # saturation below which a colour is grey


def colour_name(hsv: NDArray[np.float64]) -> str:
    """hsv: [3], hue in turns, saturation and value in [0, 1]. Solids are pale, so that is not said of each."""
    hue, saturation, value = (float(v) for v in hsv)
    if saturation < _GREY:
        return "black" if value < 0.2 else "grey" if value < 0.88 else "white"
    return next(name for end, name in _HUES if hue % 1.0 <= end)


def captions(params: SceneParams) -> list[str]:
    """One sentence for each of the B scenes."""
    return [_caption(params, i) for i in range(len(params))]


def _caption(params: SceneParams, i: int) -> str:
    size = "small" if params.radius[i] < 0.65 else "large" if params.radius[i] > 0.75 else "medium-sized"
    texture = TEXTURES[params.texture[i]]
    colour, solid = colour_name(params.colour[i, 0]), CLASSES[params.label[i]]
    things = ("nothing", "one thing", "two things", "three things")[int(np.count_nonzero(params.clutter[i]))]
    place = _place(*params.centre[i])
    return f"a {size} {colour} {texture} {solid} {place}, before {things}, lit from the {_side(params.light[i, 0])}"


def _place(x: float, y: float) -> str:
    across = "left" if x < -0.15 else "right" if x > 0.15 else ""
    up = "top" if y > 0.15 else "bottom" if y < -0.15 else ""
    return f"at the {up} {across}".replace("  ", " ").rstrip() if across or up else "in the middle"


def _side(azimuth: float) -> str:
    names = ("right", "upper right", "top", "upper left", "left", "lower left", "bottom", "lower right")
    return names[int((azimuth + 22.5) // 45) % 8]
