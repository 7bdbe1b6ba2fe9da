"""The files of a scene, one a sensor, decoded into one image of their channels (`views.sensors`).

Each is decoded with its own channels, all to one depth. They need one shape: where it is another size of the same
shape, as of a depth camera beside a photograph, a sensor is brought to the size of the first one, label maps by nearest
neighbour; a sensor of another shape makes the scene a bad file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from stopgrad.data.bands import BadImageError, DecodeSettings
from stopgrad.data.beside import Beside, unframed
from stopgrad.data.decode import NOTES, decode
from stopgrad.data.from_listing import Reader, image_reader, open_read
from stopgrad.data.label_maps import nearest, occurring, one_hot, read_map
from stopgrad.data.listing import Listing
from stopgrad.data.sources import Data, DataConfig, Progress
from stopgrad.views.sensors import Sensor

RESIZED = "another size"
ALIKE = 0.02  # that the ratios of width to height of two sensors of one shape may differ by, of either


@dataclass(frozen=True, slots=True)
class SensorSettings:
    """What every scene is brought to. As text it is part of the name of a store."""

    sensors: tuple[Sensor, ...]
    decode: DecodeSettings  # its channels are those of all of them

    def __str__(self) -> str:
        return f"SensorSettings({', '.join(map(str, self.sensors))}; {self.decode})"


def open_beside(listing: Listing, config: DataConfig, progress: Progress | None) -> Data:
    """A source whose folders are sensors. Raises what `sources.open_data` raises."""
    sensors = config.scene_sensors()
    settings = DecodeSettings(
        config.channels, config.max_side, config.min_side, config.max_megapixels, depth=config.depth
    )
    scenes = Beside(listing, [sensor.name for sensor in sensors])
    reader = sensor_reader(SensorSettings(sensors, settings))
    data = open_read(scenes, reader, config.limit, config.max_bad_fraction, progress)
    if not config.labels:
        return data
    return replace(data, occurring=occurring(listing, config.labels, data, settings, progress))


def sensor_reader(settings: SensorSettings) -> Reader:
    """Scenes as `Beside` gives them: rows [H, W, C]."""
    plain = image_reader(settings.decode)
    return replace(
        plain,
        settings=settings,
        largest=plain.largest * len(settings.sensors),
        notes={**NOTES, RESIZED: "had sensors of another size than the first, brought to it"},
        decode=partial(_decoded, settings),
    )


def _decoded(settings: SensorSettings, data: bytes, _: bytes) -> tuple[NDArray[Any], tuple[str, ...]]:
    parts: list[NDArray[Any]] = []
    told: list[set[str]] = []
    for sensor, (content, extension) in zip(settings.sensors, unframed(data), strict=True):
        try:
            part, said = _one(sensor, content, extension, settings.decode, parts[0].shape[:2] if parts else None)
        except BadImageError as error:
            raise BadImageError(f"{sensor.name}: {_without_setting(str(error))}") from error
        parts.append(part)
        told.append(set(said))
    notes = set.union(*told)
    if not all("one colour" in found for found in told):  # an empty edge map beside a photograph says nothing
        notes.discard("one colour")
    return np.ascontiguousarray(np.concatenate(parts, axis=2)), tuple(sorted(notes))


def _one(
    sensor: Sensor, content: bytes, extension: bytes, settings: DecodeSettings, size: tuple[int, int] | None
) -> tuple[NDArray[Any], Sequence[str]]:
    """[H, W, C] of one sensor, at `size` (height, width) where the first has said it, and notes."""
    if sensor.what == "classes":
        values = read_map(content, settings)
        resized = _fits(values.shape, size)
        if resized:
            assert size is not None
            values = nearest(values, (size[1], size[0]))
        return one_hot(values, sensor.channels, settings), [RESIZED] * resized
    found = decode(content, replace(settings, channels=sensor.channels), extension)
    if not _fits(found.pixels.shape[:2], size):
        return found.pixels, found.notes
    assert size is not None
    return _resized(found.pixels, size), [*found.notes, RESIZED]


def _fits(found: tuple[int, ...], wanted: tuple[int, int] | None) -> bool:
    """Whether it has to be resized. Raises BadImageError where it is of another shape."""
    if wanted is None or found == wanted:
        return False
    if abs(found[1] * wanted[0] / (found[0] * wanted[1]) - 1) > ALIKE:
        raise BadImageError(
            f"{found[1]}x{found[0]} pixels, of another shape than the first sensor's {wanted[1]}x{wanted[0]}"
        )
    return True


def _resized(pixels: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """[h, w, C] at (height, width); OpenCV takes four channels at most."""
    height, width = size
    how = cv2.INTER_AREA if pixels.shape[0] > height else cv2.INTER_LINEAR
    starts = range(0, pixels.shape[2], 4)
    parts = [
        cv2.resize(np.ascontiguousarray(pixels[:, :, start : start + 4]), (width, height), interpolation=how)
        for start in starts
    ]
    return np.concatenate([part.reshape(height, width, -1) for part in parts], axis=2)


def _without_setting(message: str) -> str:
    """Channels of a sensor are said by data.sensors, not by data.channels."""
    said, _, _ = message.partition(", data.channels=")
    return said if said == message else f"{said}, which data.sensors does not say of it"
