"""Several sensors of one scene as channels of one image: how they are written, what each holds, what it looks like.

A sensor is written NAME or NAME:WHAT, as in `rgb`, `depth`, `labels40:classes=41`. What a name that is known holds goes
without saying. Channels of a label map are one for each class, 1 where it is; those of normals are x to the right, y up
and z, from -1 to 1 as 0 to the largest value of a pixel. No torch here.
"""

from __future__ import annotations

import colorsys
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stopgrad.contracts import ConfigError, Preprocess
from stopgrad.views.config import MOST_CHANNELS, CropConfig

What = Literal["rgb", "gray", "normals", "classes", "bands"]

MOST = 16  # sensors of a scene
WIDTHS: dict[str, int] = {"rgb": 3, "gray": 1, "normals": 3}  # those of a number of channels of their own
# What folders are called, in small letters and without a number behind: what they hold, "" where only the user knows.
KNOWN: dict[str, str] = {
    **dict.fromkeys(("rgb", "image", "images", "img", "imgs", "color", "colour", "photo", "photos"), "rgb"),
    **dict.fromkeys(("depth", "depths", "disparity", "edge", "edges", "gray", "grey"), "gray"),
    **dict.fromkeys(("thermal", "infrared", "ir", "nir"), "gray"),
    "normals": "normals",
    **dict.fromkeys(("mask", "masks", "label", "labels", "segmentation", "segmentations", "segment", "segments"), ""),
    **dict.fromkeys(("annotation", "annotations", "groundtruth", "ground_truth", "gt", "jpegimages"), ""),
    **dict.fromkeys(("segmentationclass", "segmentationobject"), ""),
}
_CHANGED = ("jitter", "grayscale", "solarize")  # of a crop: operations that mean brightness and colour


@dataclass(frozen=True, slots=True)
class Sensor:
    """One of them. As text it is what `read_sensors` takes."""

    name: str  # of its folder
    what: What
    channels: int

    def __str__(self) -> str:
        if KNOWN.get(stem(self.name)) == self.what:
            return self.name
        return f"{self.name}:{self.what}" + (f"={self.channels}" if self.what in ("classes", "bands") else "")


def stem(name: str) -> str:
    """`labels` of `Labels_40`."""
    return name.lower().rstrip("0123456789").rstrip("_- ")


def read_sensor(text: str, known: Mapping[str, str] | None = None) -> Sensor:
    """known: what names hold that only this source knows. Raises ConfigError."""
    name, colon, what = text.partition(":")
    example = f"{name}:classes=41 for a label map, {name}:gray, {name}:rgb, {name}:normals or {name}:bands=4"
    if not name or name in (".", "..") or "/" in name or "\0" in name or len(text) > 100:
        raise ConfigError(
            f"data.sensors: {text!r} is no name of a folder; write for example rgb, or labels40:classes=41"
        )
    if not colon:
        what = (known or {}).get(name) or KNOWN.get(stem(name), "")
        if not what:
            raise ConfigError(f"data.sensors: what {name} holds is not known by its name; write {example}")
    if what in ("rgb", "gray", "normals"):
        return Sensor(name, what, WIDTHS[what])  # type: ignore[arg-type]  # mypy takes no Literal from a comparison
    kind, _, number = what.partition("=")
    if kind not in ("classes", "bands") or not re.fullmatch(r"[1-9][0-9]{0,3}", number):
        raise ConfigError(f"data.sensors: {text!r} says nothing that is known of {name}; write {example}")
    return Sensor(name, kind, int(number))  # type: ignore[arg-type]


def read_sensors(texts: Sequence[str], known: Mapping[str, str] | None = None) -> tuple[Sensor, ...]:
    """Those of data.sensors, in order; see `read_sensor`."""
    found = tuple(read_sensor(text, known) for text in texts)
    names = [sensor.name for sensor in found]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ConfigError(f"data.sensors: {twice[0]} is named {names.count(twice[0])} times; name it once")
    channels = sum(sensor.channels for sensor in found)
    if len(found) > MOST or channels > MOST_CHANNELS:
        raise ConfigError(
            f"data.sensors: at most {MOST} sensors of {MOST_CHANNELS} channels together, got {len(found)} of "
            f"{channels} ({', '.join(f'{sensor.name} {sensor.channels}' for sensor in found)}); leave one out"
        )
    return found


def read_labels(text: str) -> tuple[str, int]:
    """The folder that data.labels names, and the label that is none (-1: all are labels). Raises ConfigError."""
    name, colon, option = text.partition(":")
    number = option.removeprefix("ignore=")
    if not name or "/" in name or (colon and (not number.isdecimal() or option == number)):
        raise ConfigError(
            f"data.labels: {text!r} is no folder of label maps; write labels40, or labels40:ignore=0 where 0 is none"
        )
    return name, int(number) if colon else -1


def sensors_of(preprocess: Any) -> tuple[Sensor, ...]:
    """What an encoder's samples are made of; () for ordinary images, and for samples of other kinds.

    Raises ConfigError where they have not the channels it says: a file may be a stranger's.
    """
    found = read_sensors(getattr(preprocess, "sensors", ()))
    if found and sum(sensor.channels for sensor in found) != preprocess.channels:
        raise ConfigError(
            f"preprocess: {preprocess.channels} channels, but its sensors ({', '.join(map(str, found))}) have "
            f"{sum(sensor.channels for sensor in found)}"
        )
    return found


def widths(preprocess: Any) -> tuple[int, ...]:
    """Channels of each of `sensors_of`, for a backbone that is built for them."""
    return tuple(sensor.channels for sensor in sensors_of(preprocess))


def slices(sensors: Sequence[Sensor]) -> list[slice]:
    """Which channels each has."""
    ends = np.cumsum([sensor.channels for sensor in sensors]).tolist()
    return [slice(end - sensor.channels, end) for sensor, end in zip(sensors, ends)]


def described(sensors: Sequence[Sensor]) -> tuple[str, ...]:
    """What an encoder's file says of them. One ordinary picture goes without saying: any folder of such will do."""
    if len(sensors) == 1 and sensors[0].what in ("rgb", "gray", "bands"):
        return ()
    return tuple(map(str, sensors))


def part_of(preprocess: Preprocess, name: str) -> tuple[Preprocess, slice]:
    """What one sensor's channels are read by, and which these are. `name` is one of its sensors'."""
    sensors = sensors_of(preprocess)
    sensor, part = next(pair for pair in zip(sensors, slices(sensors)) if pair[0].name == name)
    own = replace(
        preprocess,
        channels=sensor.channels,
        mean=preprocess.mean[part],
        std=preprocess.std[part],
        sensors=described([sensor]),
    )
    return own, part


def view_names(split: str, sensors: Sequence[Sensor]) -> dict[str, tuple[int, ...]]:
    """{name: its places} of the views that a split backbone (backbone.split) sees, in the order of their features. A
    photograph that is split into L and ab is both of them."""
    names = [sensor.name for sensor in sensors] if split != "none" else []
    if not split.endswith("lab"):
        return {name: (i,) for i, name in enumerate(names)}
    found: dict[str, tuple[int, ...]] = {"L": (0,), "ab": (1,)}
    return found | dict.fromkeys(names[:1], (0, 1)) | {name: (i,) for i, name in enumerate(names[1:], 2)}


def normals_at(sensors: Sequence[Sensor]) -> tuple[int, ...]:
    """The channels where normals begin."""
    return tuple(part.start for sensor, part in zip(sensors, slices(sensors)) if sensor.what == "normals")


# --- views ------------------------------------------------------------------------------------------------------------


def only_colour(sensors: Sequence[Sensor]) -> bool:
    """Whether brightness and colour may be changed: of photographs, not of depths, labels and normals."""
    return all(sensor.what == "rgb" for sensor in sensors) and len(sensors) <= 1


def geometric(crop: CropConfig) -> CropConfig:
    """The crop without what changes brightness or colour."""
    return replace(crop, jitter=0.0, grayscale=0.0, solarize=0.0)


def check_crops(sensors: Sequence[Sensor], crops: Sequence[CropConfig]) -> None:
    """Raises ConfigError where a crop would change depths, labels or normals as if they were colours."""
    if only_colour(sensors):
        return
    for name in _CHANGED:
        if found := [getattr(crop, name) for crop in crops if getattr(crop, name)]:
            zeros = " ".join(f"--set 'views.crops.*.{one}=0'" for one in _CHANGED)
            raise ConfigError(
                f"views.crops: {name}={found[0]:g} would change {', '.join(sensor.name for sensor in sensors)} as if "
                f"they were photographs; type {zeros}"
            )


def turns_of(hflip: ArrayLike, vflip: ArrayLike, turns: ArrayLike, angle: ArrayLike) -> NDArray[np.float64]:
    """[..., 2, 2]: what becomes of (x to the right, y up) where a picture is flipped, and then turned by quarters and
    by degrees, counter-clockwise. Each of shape [...]."""
    x, y = np.where(hflip, -1.0, 1.0), np.where(vflip, -1.0, 1.0)
    degrees = 90.0 * np.asarray(turns) + np.asarray(angle)
    cosine, sine = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    rows = [np.stack([cosine * x, -sine * y], axis=-1), np.stack([sine * x, cosine * y], axis=-1)]
    return np.stack(rows, axis=-2)


def turned(x: Any, y: Any, matrix: Any) -> tuple[Any, Any]:
    """Normals' x and y, coded as 0 to 1, turned by `matrix`, whose four entries are numbers or broadcast."""
    (a, b), (c, d) = matrix
    x, y = x - 0.5, y - 0.5
    return a * x + b * y + 0.5, c * x + d * y + 0.5


# --- to be looked at --------------------------------------------------------------------------------------------------


def as_picture(sensor: Sensor, values: NDArray[np.float32]) -> NDArray[np.float32]:
    """[..., C] of 0 to 1 -> [..., 1 or 3]: a colour a class, of bands the first three, or one."""
    if sensor.what == "classes":
        return np.asarray(values @ palette(sensor.channels), np.float32)
    return values if values.shape[-1] < 3 else values[..., :3]


def palette(classes: int) -> NDArray[np.float32]:
    """[N, 3], far from each other for neighbouring numbers; the first is dark, as it often is the background."""
    golden = (math.sqrt(5) - 1) / 2
    colours = [colorsys.hsv_to_rgb(i * golden % 1, 0.65, 0.95 if i % 2 else 0.7) for i in range(classes)]
    return np.array([(0.2, 0.2, 0.2), *colours[1:]][:classes], np.float32)
