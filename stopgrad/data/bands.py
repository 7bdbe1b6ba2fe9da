"""What every image is brought to, and how an array of bands gets there: number of channels, bits, limits.

A file of N bands is used where N channels are wanted; one band becomes three equal ones and three become their luma
where those are wanted. Anything else is a bad file: nobody can say which bands of thirteen are meant.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[Any]  # [H, W, C]; uint8, or uint16 at depth 16
LUMA = (0.299, 0.587, 0.114)  # ITU-R 601, as JPEG and Pillow have it
BYTES_A_PIXEL = 16  # that a file may hold or unpack to: four channels of 32 bits


class BadImageError(Exception):
    """An image that can't be used; the message is the reason for bad_files.csv."""


@dataclass(frozen=True, slots=True)
class DecodeSettings:
    """What every image is brought to. As text it is part of the name of a store."""

    channels: int  # 1 to 64
    max_side: int  # pixels
    min_side: int  # pixels
    max_megapixels: float
    depth: Literal[8, 16] = 8  # bits of a stored pixel

    def __str__(self) -> str:
        wide = "" if self.depth == 8 else f", depth={self.depth}"  # stores and checkpoints from before it stay valid
        return (
            f"DecodeSettings(channels={self.channels}, max_side={self.max_side}, min_side={self.min_side}, "
            f"max_megapixels={self.max_megapixels}{wide})"
        )

    @property
    def white(self) -> int:
        """The largest value of a stored pixel."""
        return 255 if self.depth == 8 else 65535

    @property
    def dtype(self) -> type[np.uint8] | type[np.uint16]:
        return np.uint8 if self.depth == 8 else np.uint16


# --- limits, known from the header ------------------------------------------------------------------------------------


def too_many(pixels: int, settings: DecodeSettings) -> str:
    return f"{pixels / 1e6:.0f} Mpx > limit {settings.max_megapixels:g} Mpx (data.max_megapixels)"


def check_size(width: int, height: int, settings: DecodeSettings) -> None:
    """BadImageError for too many pixels, or too few a side."""
    if width * height > settings.max_megapixels * 1e6:
        raise BadImageError(too_many(width * height, settings))
    if min(width, height) < settings.min_side:
        raise BadImageError(f"{width}x{height} pixels: shorter side below {settings.min_side} (data.min_side)")
    short = target(width, height, settings.max_side)
    if min(short) < settings.min_side:
        raise BadImageError(
            f"{width}x{height} pixels: {short[0]}x{short[1]} once within {settings.max_side} (data.max_side), shorter "
            f"side below {settings.min_side} (data.min_side)"
        )


def check_bytes(count: int, settings: DecodeSettings) -> None:
    """BadImageError where an array would need more memory than any image of the allowed size."""
    limit = settings.max_megapixels * 1e6 * BYTES_A_PIXEL
    if count > limit:
        raise BadImageError(
            f"unpacks to {count / 1e6:,.0f} MB, more than the {limit / 1e6:,.0f} MB of an image of "
            f"{settings.max_megapixels:g} Mpx (data.max_megapixels)"
        )


def wrong_bands(found: int, wanted: int, what: str = "") -> BadImageError:
    """The reason a file of `found` bands is bad where `wanted` are needed."""
    fix = f"; type --set data.channels={found}" if 1 <= found <= 64 and found != wanted else ""
    return BadImageError(f"has {found} {'band' if found == 1 else 'bands'}{what}, data.channels={wanted}{fix}")


def target(width: int, height: int, max_side: int) -> tuple[int, int]:
    """Width and height with the longer side within max_side."""
    scale = max_side / max(width, height)
    return (width, height) if scale >= 1 else (max(1, round(width * scale)), max(1, round(height * scale)))


def bounded(pixels: Pixels, settings: DecodeSettings) -> Pixels:
    """The same image with its longer side within max_side, contiguous."""
    height, width, channels = pixels.shape
    size = target(width, height, settings.max_side)
    if size != (width, height):
        # OpenCV's area filter takes four channels at most
        parts = [np.ascontiguousarray(pixels[:, :, start : start + 4]) for start in range(0, channels, 4)]
        small = [cv2.resize(part, size, interpolation=cv2.INTER_AREA) for part in parts]
        pixels = np.concatenate([part.reshape(size[1], size[0], -1) for part in small], axis=2)
    return np.ascontiguousarray(pixels.reshape(size[1], size[0], channels))


# --- values -----------------------------------------------------------------------------------------------------------


def fit(bands: NDArray[Any], settings: DecodeSettings, notes: list[str]) -> Pixels:
    """[H, W, B] of any number type -> [H, W, C] of the wanted depth.

    uint8 and uint16 are scaled by their type, all other types by the minimum and maximum of the file.
    """
    values = to_depth(bands, settings, notes)
    found, wanted = values.shape[2], settings.channels
    if found == wanted:
        return values
    if (found, wanted) == (1, 3):
        return np.repeat(values, 3, axis=2)
    if (found, wanted) == (3, 1):
        gray: NDArray[np.float64] = values @ np.array(LUMA)
        return np.rint(gray).astype(values.dtype)[:, :, None]
    raise wrong_bands(found, wanted)


def to_depth(values: NDArray[Any], settings: DecodeSettings, notes: list[str]) -> Pixels:
    """Numbers of any type as the wanted one, same shape."""
    if values.dtype == np.bool_:
        values = values.astype(np.uint8) * np.uint8(255)
    if values.dtype == np.uint8:
        if settings.depth == 8:
            return values
        notes.append("scaled 8-bit")
        return values.astype(np.uint16) * np.uint16(257)
    if values.dtype == np.uint16:
        if settings.depth == 16:
            return values
        notes.append("scaled 16-bit")
        return scaled(values, 65535, settings)
    notes.append("float")
    return by_range(values, settings)


def by_range(values: NDArray[Any], settings: DecodeSettings) -> Pixels:
    """Black is the smallest finite value of the file, white the largest; what is not finite is black."""
    numbers = values.astype(np.float64)
    finite = np.isfinite(numbers)
    if not finite.any():
        raise BadImageError("no finite pixel")
    low, high = float(numbers[finite].min()), float(numbers[finite].max())
    if not math.isfinite(high - low):
        raise BadImageError(f"values from {low:g} to {high:g}: too far apart to be scaled")
    return scaled(np.where(finite, numbers, low) - low, (high - low) or 1.0, settings)


def scaled(values: NDArray[Any], white: float, settings: DecodeSettings) -> Pixels:
    """0 to `white` -> 0 to the largest value of the depth."""
    top = settings.white
    return np.clip(np.rint(values.astype(np.float64) * (top / white)), 0, top).astype(settings.dtype)
