"""What a scene is made of: every number of scene i of seed s, drawn from a counter, in plain arithmetic.

Why apart from the renderer: parameters are the ground truth, and they are the same to the bit on every machine. They
are sums, products and comparisons of multiples of 2**-32 in float64; sines and roots come later, with the pixels.

The class has a column of the counter to itself, so it is independent of every other factor.

How the ranges were chosen: for crops, colours and brightness of an image are much easier to match than its shape, and
a run of minutes that can match them learns nothing else (measured: with vivid solids on plain grounds SimSiam's kNN
stayed at its initial value). So solids are pale, grounds run through all hues within every image, and what varies
widely is what crops or a pooled net do not mind but raw pixels do: place, roll, light.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stopgrad import rng

VERSION = "scenes-v1"
TRAIN, TEST = 10_000, 2_000  # images
TRAIN_SEED, TEST_SEED = 0, 1  # seeds of the two splits: no scene of one is in the other

# The label; solids.py has the solid of each.
CLASSES = ("ball", "cube", "ring", "cross", "star", "urchin", "spindle", "frame", "cluster", "grid")
TEXTURES = ("plain", "striped", "checked", "spotted", "marbled")
CLUTTER = 3  # at most so many things behind the solid
CLUTTER_KINDS = ("none", "disc", "box", "bar")
WAVES = 3  # low waves that make the background uneven

_COLUMNS = 28 + 4 * WAVES + 7 * CLUTTER


@dataclass(frozen=True, slots=True)
class SceneParams:
    """B scenes. Lengths are in half frames: the frame is [-1, 1] x [-1, 1], x to the right, y up, z to the camera."""

    label: NDArray[np.int64]  # [B], position in CLASSES
    centre: NDArray[np.float64]  # [B, 2], x and y of the solid's centre
    radius: NDArray[np.float64]  # [B], of the sphere the solid stays inside
    rotation: NDArray[np.float64]  # [B, 3], yaw, pitch, roll in degrees, applied in this order about y, x, z
    colour: NDArray[np.float64]  # [B, 2, 3], hue, saturation, value in [0, 1]: of the solid, and of its texture
    texture: NDArray[np.int64]  # [B], position in TEXTURES
    pattern: NDArray[np.float64]  # [B, 5], frequency (radians a radius), angle (degrees), three phases (turns)
    light: NDArray[np.float64]  # [B, 5], azimuth and elevation (degrees), ambient, specular share, shininess
    background: NDArray[np.float64]  # [B, 2, 3], hue (turns, above 1 at the far end), saturation, value at both ends
    gradient: NDArray[np.float64]  # [B], direction from the first end to the second, degrees
    waves: NDArray[np.float64]  # [B, WAVES, 4], turns a frame in x and in y, phase (turns), amplitude
    clutter: NDArray[np.int64]  # [B, CLUTTER], position in CLUTTER_KINDS, the farthest first
    clutter_shape: NDArray[np.float64]  # [B, CLUTTER, 4], x, y, size, angle (degrees)
    clutter_colour: NDArray[np.float64]  # [B, CLUTTER, 3], hue, saturation, value

    def __len__(self) -> int:
        return len(self.label)

    def take(self, which: NDArray[np.int64] | slice) -> SceneParams:
        """The scenes at the positions `which` of this batch."""
        return SceneParams(*(getattr(self, field.name)[which] for field in dataclasses.fields(self)))

    def factors(self) -> NDArray[np.float64]:
        """[B, F]: every number but the label, which none of them tells."""
        rest = [getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "label"]
        return np.concatenate([values.reshape(len(self), -1).astype(np.float64) for values in rest], axis=1)


class _Draws:
    """Columns of the counter, each used once, in the order of the calls: an edit in the middle makes another set."""

    def __init__(self, seed: int, index: NDArray[np.int64]) -> None:
        self._columns: Iterator[NDArray[np.float64]] = iter(rng.uniform(rng.SCENES, seed, 0, index, _COLUMNS).T)

    def between(self, low: float, high: float) -> NDArray[np.float64]:
        return low + (high - low) * next(self._columns)  # [B]

    def each(self, *ranges: tuple[float, float]) -> NDArray[np.float64]:
        return np.stack([self.between(low, high) for low, high in ranges], axis=1)  # [B, len(ranges)]

    def one_of(self, n: int) -> NDArray[np.int64]:
        return np.floor(next(self._columns) * n).astype(np.int64)  # [B]


def draw(seed: int, index: NDArray[np.int64]) -> SceneParams:
    """Scenes `index` [B] of `seed`; scene i is the same alone and in any batch."""
    d = _Draws(seed, np.asarray(index, dtype=np.int64))
    label = d.one_of(len(CLASSES))
    radius = d.between(0.55, 0.85)
    centre = d.each((-1, 1), (-1, 1)) * (1.25 - radius[:, None])  # a tip may leave the frame
    rotation = d.each((-35, 35), (10, 40), (-180, 180))
    hue, saturation, value = d.between(0, 1), d.between(0.0, 0.12), d.between(0.75, 1.0)
    colour = np.stack([hue, saturation, value], axis=1)
    second = np.stack([(hue + d.between(-0.1, 0.1)) % 1.0, saturation, value * d.between(0.7, 0.95)], axis=1)
    texture = d.one_of(len(TEXTURES))
    pattern = d.each((5, 11), (0, 180), (0, 1), (0, 1), (0, 1))
    light = d.each((0, 360), (25, 70), (0.1, 0.5), (0, 0.4), (8, 30))
    hue, saturation, value = d.between(0, 1), d.between(0.3, 0.4), d.between(0.25, 0.35)
    near = np.stack([hue, saturation, value], axis=1)
    far = np.stack([hue + 2.5, saturation, value + d.between(-0.1, 0.1)], axis=1)
    gradient = d.between(0, 360)
    waves = np.stack([d.each((-1.5, 1.5), (-1.5, 1.5), (0, 1), (0.02, 0.06)) for _ in range(WAVES)], axis=1)
    clutter = np.stack([d.one_of(len(CLUTTER_KINDS)) for _ in range(CLUTTER)], axis=1)
    shape = np.stack([d.each((-1, 1), (-1, 1), (0.15, 0.4), (0, 180)) for _ in range(CLUTTER)], axis=1)
    shades = [d.each((-0.1, 0.1), (-0.15, 0.15)) for _ in range(CLUTTER)]
    clutter_colour = np.stack(
        [np.stack([(hue + s[:, 0]) % 1.0, saturation, np.clip(value + s[:, 1], 0, 1)], axis=1) for s in shades], axis=1
    )
    return SceneParams(
        label=label,
        centre=centre,
        radius=radius,
        rotation=rotation,
        colour=np.stack([colour, second], axis=1),
        texture=texture,
        pattern=pattern,
        light=light,
        background=np.stack([near, far], axis=1),
        gradient=gradient,
        waves=waves,
        clutter=clutter,
        clutter_shape=shape,
        clutter_colour=clutter_colour,
    )
