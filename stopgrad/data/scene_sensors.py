"""The embedded scenes as several sensors see them: colour, depth, normals, segmentation, and the edges between things.

Depth is 0 at the camera's plane and the largest value of a pixel at the backdrop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stopgrad.contracts import ConfigError
from stopgrad.data import scenes
from stopgrad.data.scenes.params import CLUTTER
from stopgrad.data.scenes.renderer import BACKDROP
from stopgrad.views.sensors import Sensor

THINGS = 2 + CLUTTER  # the background, the solid, and what is behind it
KNOWN = {"segmentation": f"classes={THINGS}"}

Values = NDArray[np.floating[Any]]  # [B, S, S, C] of 0 to 1


def _edges(done: scenes.Rendered) -> Values:
    """1 where the next pixel to the right or below is of another thing."""
    seen = done.segmentation
    found = np.zeros(seen.shape, np.float32)
    found[:, :, :-1] = seen[:, :, :-1] != seen[:, :, 1:]
    found[:, :-1] = np.maximum(found[:, :-1], seen[:, :-1] != seen[:, 1:])
    return found[..., None]


SENSORS: dict[str, Callable[[scenes.Rendered], Values]] = {
    "rgb": lambda done: done.rgb / np.float32(255),
    "depth": lambda done: done.depth[..., None] / np.float32(BACKDROP),
    "normals": lambda done: (done.normals + 1) / 2,
    "segmentation": lambda done: np.eye(THINGS, dtype=np.float32)[done.segmentation],
    "edges": _edges,
}
_WHAT = {"rgb": "rgb", "depth": "gray", "normals": "normals", "segmentation": f"classes={THINGS}", "edges": "gray"}


def check_sensors(sensors: Sequence[Sensor]) -> None:
    """Raises ConfigError for one that the scenes do not have, or have otherwise."""
    for sensor in sensors:
        has = _WHAT.get(sensor.name)
        said = sensor.what + (f"={sensor.channels}" if sensor.what in ("classes", "bands") else "")
        if has != said:
            found = f"{sensor.name} is {has}, not {said}" if has else f"there is no {sensor.name}"
            raise ConfigError(f"data.sensors: of the scenes {found}; they have {', '.join(SENSORS)}")


def render_sensors(
    seed: int, size: int, sensors: Sequence[Sensor], depth: int, index: NDArray[np.int64]
) -> list[tuple[NDArray[Any], int]]:
    """Scenes `index` of `seed`: [S, S, C], uint8 or uint16 by `depth`, with the label of each."""
    done = scenes.render(scenes.draw(seed, index), size)
    values = np.concatenate([SENSORS[sensor.name](done) for sensor in sensors], axis=3)
    white, dtype = (255, np.uint8) if depth == 8 else (65535, np.uint16)
    pixels = np.rint(values.clip(0, 1) * white).astype(dtype)
    return [(np.ascontiguousarray(image), int(label)) for image, label in zip(pixels, done.label)]
