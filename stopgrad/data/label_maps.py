"""Pictures whose pixels are numbers of classes: read as they are, never scaled, resized by nearest neighbour.

A PNG of one channel or with a palette (whose indices are the labels), of 8 or 16 bits, or a .npy of whole numbers. A
JPEG is none: its compression makes labels that nobody wrote.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import partial
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stopgrad.contracts import DataError
from stopgrad.data.bands import BadImageError, DecodeSettings, check_size, target, too_many
from stopgrad.data.beside import Beside, unframed
from stopgrad.data.decode import decoder_name, what_else
from stopgrad.data.folder import IMAGES, sniff
from stopgrad.data.from_listing import Reader, open_read
from stopgrad.data.listing import Listing
from stopgrad.data.npy import read_npy
from stopgrad.data.sources import Data, Occurring, Progress
from stopgrad.views.sensors import read_labels

NONE = 255  # means no class in many sets: a pixel of it is of none of the channels

Map = NDArray[np.int64]  # [H, W]


def read_map(data: bytes, settings: DecodeSettings) -> Map:
    """The labels of a file, its longer side within max_side; no channels are read of settings. Raises BadImageError."""
    kind = sniff(data)
    if kind is None:
        raise BadImageError(what_else(data))
    if kind not in ("PNG", "NPY", "BMP", "TIFF", "GIF"):
        raise BadImageError(f"a {kind} holds no exact labels; needed is a PNG of one channel, or .npy")
    try:
        values = _of_npy(data, settings) if kind == "NPY" else _of_picture(data, kind, settings)
    except BadImageError:
        raise
    except MemoryError:
        raise BadImageError("too large for the memory of this machine") from None
    except Exception as error:  # decoders raise whatever the bytes lead them into
        raise BadImageError(f"corrupt {kind} ({(str(error).splitlines() or ['no reason given'])[0]})") from error
    return nearest(values, target(values.shape[1], values.shape[0], settings.max_side))


def _of_npy(data: bytes, settings: DecodeSettings) -> Map:
    values = read_npy(data, settings)
    if values.dtype.kind not in "bui" or values.shape[2] != 1:
        found = f"NPY of {values.dtype}, {values.shape[2]} bands"
        raise BadImageError(f"{found}; a label map has whole numbers, one a pixel")
    return _checked(values[:, :, 0])


def _of_picture(data: bytes, kind: str, settings: DecodeSettings) -> Map:
    try:
        image = Image.open(io.BytesIO(data), formats=[kind])
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise BadImageError(too_many(int(settings.max_megapixels * 1e6) + 1, settings)) from None
    check_size(*image.size, settings)
    if image.mode not in ("1", "L", "P", "I") and not image.mode.startswith("I;16"):
        raise BadImageError(f"has colours ({image.mode}); a label map has one number a pixel")
    image.load()
    return _checked(np.asarray(image))


def _checked(values: NDArray[Any]) -> Map:
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise BadImageError(f"has labels from {low} to {high}; they must be 0 to 65535")
    return values.astype(np.int64)


def nearest(values: Map, size: tuple[int, int]) -> Map:
    """[H, W] at (width, height)."""
    if size == values.shape[::-1]:
        return values
    return np.asarray(cv2.resize(values.astype(np.float64), size, interpolation=cv2.INTER_NEAREST_EXACT)).astype(
        np.int64
    )


def one_hot(values: Map, classes: int, settings: DecodeSettings) -> NDArray[Any]:
    """[H, W] -> [H, W, classes] of the wanted depth. Raises BadImageError for a label that is no class."""
    wrong = values[(values >= classes) & (values != NONE)]
    if len(wrong):
        raise BadImageError(f"has label {wrong[0]}, classes are 0 to {classes - 1}: classes={int(wrong.max()) + 1}")
    found = values[:, :, None] == np.arange(classes)
    return np.where(found, settings.white, 0).astype(settings.dtype)


# --- which labels occur -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Settings:
    """All that decides which labels are found; as text in the name of a store."""

    max_side: int
    max_megapixels: float


def occurring(
    listing: Listing, labels: str, data: Data, settings: DecodeSettings, progress: Progress | None
) -> Occurring:
    """Which labels are in the map of each sample of `data`, whose names are those of `Beside`. Kept in a store as well.

    labels: data.labels.  Raises DataError where a sample has no map that can be read.
    """
    name, ignored = read_labels(labels)
    maps = Beside(listing, (name,), "data.labels")
    reader = Reader(
        wanted=IMAGES,
        made_by=decoder_name(),
        settings=_Settings(settings.max_side, settings.max_megapixels),
        channels=1,
        dtype=np.uint16,
        largest=int(settings.max_megapixels * 1e6 * 8),
        too_large=f"more than any map of {settings.max_megapixels:g} Mpx",
        notes={},
        dull="",
        decode=partial(_labels_in, settings),
    )
    found = open_read(maps, reader, 0, 1.0, progress)
    reasons = {item.path: item.reason for item in found.bad}
    said: dict[str, NDArray[Any]] = {}
    for images in (found.train, found.test):
        said |= {images.name(i): np.asarray(images[i]).ravel() for i in range(len(images))}
    wanted = [[images.name(i) for i in range(len(images))] for images in (data.train, data.test)]
    missing = [one for names in wanted for one in names if one not in said]
    if missing:
        why = reasons.get(missing[0], f"no {name}")
        raise DataError(
            f"data.labels: {len(missing):,} of {sum(map(len, wanted)):,} images have no map in {name} that can be read "
            f"(first: {missing[0]}: {why}); mend them, or leave data.labels out"
        )
    values = np.unique(np.concatenate([np.zeros(0, np.int64), *(said[one] for names in wanted for one in names)]))
    values = values[(values != NONE) & (values != ignored)].astype(np.int64)
    train, test = (_table([said[one] for one in names], values) for names in wanted)
    return Occurring(tuple(map(str, values.tolist())), train, test)


def _labels_in(settings: DecodeSettings, data: bytes, _: bytes) -> tuple[NDArray[Any], tuple[str, ...]]:
    ((content, _),) = unframed(data)
    found = np.unique(read_map(content, settings)).astype(np.uint16)
    return np.ascontiguousarray(found.reshape(1, -1, 1)), ()


def _table(said: list[NDArray[Any]], values: Map) -> NDArray[np.bool_]:
    """[N, L]"""
    return np.array([np.isin(values, found) for found in said], np.bool_).reshape(len(said), len(values))
