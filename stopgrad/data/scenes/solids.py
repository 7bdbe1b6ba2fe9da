"""The ten solids as signed distances: how far a point is from the surface, negative inside.

Each fits the unit sphere and is posed so that a camera on +z sees what tells it from the others. Silhouettes cover
about equal areas (1.4 to 2.3 squared radii), so that the amount of solid in the frame tells little. Most have a local
form that repeats all over them (spikes, discs, bars, balls, holes): two crops of an image share that even where they
share no outline, which is what a method that compares crops can learn from. Formulas after Inigo
Quilez, "Distance functions" (iquilezles.org/articles/distfunctions); where a formula is not exact it is below the
distance, which only costs steps.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Solid = Callable[[Array, Array, Array], Array]  # x, y, z, each [P] -> distance [P]


def _extruded(flat: Array, z: Array, half: float) -> Array:
    """The prism of half depth `half` over a flat shape whose distance in the plane is `flat`."""
    depth = np.abs(z) - half
    return np.minimum(np.maximum(flat, depth), 0) + np.hypot(np.maximum(flat, 0), np.maximum(depth, 0))


def _box(x: Array, y: Array, z: Array, half: tuple[float, float, float]) -> Array:
    a, b, c = np.abs(x) - half[0], np.abs(y) - half[1], np.abs(z) - half[2]
    outside = np.sqrt(np.maximum(a, 0) ** 2 + np.maximum(b, 0) ** 2 + np.maximum(c, 0) ** 2)
    distance: Array = outside + np.minimum(np.maximum(a, np.maximum(b, c)), 0)
    return distance


def ball(x: Array, y: Array, z: Array) -> Array:
    distance: Array = np.sqrt(x * x + y * y + z * z) - 0.74
    return distance


def cube(x: Array, y: Array, z: Array) -> Array:
    return _box(x, y, z, (0.55, 0.55, 0.55))


def ring(x: Array, y: Array, z: Array) -> Array:
    return np.hypot(np.hypot(x, y) - 0.68, z) - 0.28


def cross(x: Array, y: Array, z: Array) -> Array:
    """Three bars through one point."""
    a, b, c = np.abs(x), np.abs(y), np.abs(z)
    bars = [np.maximum(u - 0.92, np.maximum(v, w) - 0.22) for u, v, w in ((a, b, c), (b, c, a), (c, a, b))]
    return np.minimum(bars[0], np.minimum(bars[1], bars[2]))


def star(x: Array, y: Array, z: Array) -> Array:
    """Five points: the plane folded onto one tenth of itself, then one edge."""
    a, b = np.abs(x), y
    for cosine, sine in ((0.809016994375, -0.587785252292), (-0.809016994375, -0.587785252292)):
        fold = 2 * np.maximum(cosine * a + sine * b, 0)
        a, b = a - fold * cosine, b - fold * sine
    a, b = np.abs(a), b - 0.97
    edge_x, edge_y = 0.45 * 0.587785252292, 0.45 * 0.809016994375 - 1.0
    along = np.clip((a * edge_x + b * edge_y) / (edge_x**2 + edge_y**2), 0, 0.97)
    flat = np.hypot(a - edge_x * along, b - edge_y * along) * np.sign(b * edge_x - a * edge_y)
    return _extruded(flat, z, 0.25)


def urchin(x: Array, y: Array, z: Array) -> Array:
    """A ball with 14 spikes, along the axes and the diagonals of a cube."""
    a, b, c = np.abs(x), np.abs(y), np.abs(z)
    square = a * a + b * b + c * c
    nearest: Array = np.sqrt(square) - 0.5
    for height in (np.maximum(a, np.maximum(b, c)), (a + b + c) / np.sqrt(3)):
        across = np.sqrt(np.maximum(square - height * height, 0))
        nearest = np.minimum(nearest, (across - 0.3 * (0.97 - height)) * 0.957826)
    return nearest


def spindle(x: Array, y: Array, z: Array) -> Array:
    """Four discs on an axle."""
    wall = np.hypot(x, z)
    level = y - 0.42 * np.clip(np.rint(y / 0.42 - 0.5) + 0.5, -1.5, 1.5)
    return np.minimum(_extruded(wall - 0.64, level, 0.11), _extruded(wall - 0.25, y, 0.7))


def frame(x: Array, y: Array, z: Array) -> Array:
    """The twelve edges of a cube."""
    outer = [np.abs(v) - 0.56 for v in (x, y, z)]
    inner = [np.abs(v + 0.11) - 0.11 for v in outer]
    nearest = np.full_like(x, np.inf)
    for axis in range(3):
        a, b, c = (outer[i] if i == axis else inner[i] for i in range(3))
        outside = np.sqrt(np.maximum(a, 0) ** 2 + np.maximum(b, 0) ** 2 + np.maximum(c, 0) ** 2)
        nearest = np.minimum(nearest, outside + np.minimum(np.maximum(a, np.maximum(b, c)), 0))
    return nearest


def cluster(x: Array, y: Array, z: Array) -> Array:
    """Eight balls at the corners of a cube and one between them."""
    a, b, c = np.abs(x) - 0.37, np.abs(y) - 0.37, np.abs(z) - 0.37
    return np.minimum(np.sqrt(a * a + b * b + c * c) - 0.34, np.sqrt(x * x + y * y + z * z) - 0.42)


def grid(x: Array, y: Array, z: Array) -> Array:
    """A plate with nine square holes."""
    a, b = (v - 0.44 * np.clip(np.rint(v / 0.44), -1, 1) for v in (x, y))
    return np.maximum(_box(x, y, z, (0.68, 0.68, 0.14)), 0.15 - np.maximum(np.abs(a), np.abs(b)))


# One for each name of params.CLASSES.
SOLIDS: dict[str, Solid] = {
    "ball": ball,
    "cube": cube,
    "ring": ring,
    "cross": cross,
    "star": star,
    "urchin": urchin,
    "spindle": spindle,
    "frame": frame,
    "cluster": cluster,
    "grid": grid,
}
