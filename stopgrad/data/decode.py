"""Bytes of one file -> one upright uint8 image of the wanted channels, or the reason why not.

The header is checked before anything is decoded: a 49 KB PNG can ask for 1.2 GB. JPEG goes through simplejpeg (twice as
fast as Pillow, scales large photographs while decoding, and reports corrupt data where Pillow fills up with gray);
everything else, and JPEG where simplejpeg is not installed, through Pillow.

What decoders get silently wrong is done here: EXIF orientation is applied, 16 bits are scaled by their type and not
clipped, float pixels by the minimum and maximum of the file, transparency is laid on white. A JPEG that lacks only its
end marker is whole and is kept; one that lacks pixels is not.
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from stopgrad.data.folder import FORMAT_OF, sniff

try:
    import simplejpeg
except ModuleNotFoundError:  # the wheel is not on every machine
    simplejpeg = None

Pixels = NDArray[np.uint8]

# What is told once per source, with the number of images: key -> sentence after the count.
NOTES = {
    "alpha": "had transparency, laid on white",
    "animated": "had several frames or pages, of which the first is used",
    "cmyk": "were CMYK, converted to RGB without a colour profile",
    "extension": "have an extension of another format; read by content",
    "float": "had float or 32-bit pixels, scaled by the minimum and maximum of each file",
    "one colour": "are of one colour",
    "repaired": "lacked the end of the file but no pixel, kept",
    "scaled 16-bit": "had 16 bits, scaled to 8",
}


class BadImageError(Exception):
    """An image that can't be used; the message is the reason for bad_files.csv."""


@dataclass(frozen=True, slots=True)
class DecodeSettings:
    """What every image is brought to."""

    channels: Literal[1, 3]
    max_side: int  # pixels
    min_side: int  # pixels
    max_megapixels: float


@dataclass(frozen=True, slots=True)
class Decoded:
    pixels: Pixels  # [H, W, C]
    notes: tuple[str, ...]  # keys of NOTES


def decoder_name() -> str:
    """Which JPEG decoder fills a store: they differ by a level here and there."""
    return "pillow" if simplejpeg is None else "simplejpeg"


def decode(data: bytes, settings: DecodeSettings, extension: bytes = b"") -> Decoded:
    """The whole of a file -> its image. Raises BadImageError with the reason; never anything else for bad bytes."""
    kind = sniff(data)
    if kind is None:
        raise BadImageError(what_else(data))
    notes = ["extension"] if FORMAT_OF.get(extension, kind) != kind else []
    try:
        pixels = _decode(data, kind, settings, notes)
    except BadImageError:
        raise
    except MemoryError:
        raise BadImageError("too large for the memory of this machine") from None
    except Exception as error:  # decoders raise whatever the bytes lead them into: struct.error, KeyError, OSError, ...
        raise BadImageError(_reason(error, kind)) from error
    pixels = _bounded(pixels, settings)
    if (pixels == pixels[0, 0]).all():
        notes.append("one colour")
    return Decoded(pixels, tuple(notes))


def what_else(data: bytes) -> str:
    """Why bytes without the signature of an image are none, as far as they tell."""
    if not data:
        return "empty file"
    head = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    looks = (
        ("HTML", head.startswith((b"<!doctype html", b"<html", b"<head"))),
        ("XML or SVG", head.startswith((b"<?xml", b"<svg"))),
        ("Git LFS pointer", head.startswith(b"version https://git-lfs")),
        ("HEIC or AVIF", data[4:8] == b"ftyp"),
        ("JPEG 2000", data[4:8] == b"jP  "),
        ("PDF", head.startswith(b"%pdf")),
        ("zip archive", head.startswith(b"pk\x03\x04")),
        ("zeros only", not data.strip(b"\0")),
        ("text", b"\0" not in data[:512] and all(byte > 31 or byte in b"\t\r\n" for byte in data[:512])),
    )
    found = next((name for name, fits in looks if fits), "")
    return f"not an image (looks like {found})" if found else "not an image (no known signature)"


def _reason(error: Exception, kind: str) -> str:
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return "too many pixels"
    if isinstance(error, UnidentifiedImageError):
        return f"corrupt {kind} header"
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    return f"truncated {kind} ({text})" if "truncated" in text.lower() else f"corrupt {kind} ({text})"


def _decode(data: bytes, kind: str, settings: DecodeSettings, notes: list[str]) -> Pixels:
    image = _open(data, kind, settings)
    _check_size(*image.size, settings)
    if kind == "JPEG":
        return _decode_jpeg(data, image, settings, notes)
    if getattr(image, "is_animated", False):
        notes.append("animated")
    image.load()
    return _turned(_to_channels(image, settings.channels, notes), _orientation(image))


def _open(data: bytes, kind: str, settings: DecodeSettings) -> Image.Image:
    """The header alone. Pillow has a limit of its own, above or below ours, and only says it in words."""
    try:
        return Image.open(io.BytesIO(data), formats=[kind])
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as bomb:
        pixels = int((re.search(r"(\d+) pixels", str(bomb)) or ["", "0"])[1])
        raise BadImageError(_too_many(pixels, settings)) from None


def _too_many(pixels: int, settings: DecodeSettings) -> str:
    return f"{pixels / 1e6:.0f} Mpx > limit {settings.max_megapixels:g} Mpx (data.max_megapixels)"


def _check_size(width: int, height: int, settings: DecodeSettings) -> None:
    if width * height > settings.max_megapixels * 1e6:
        raise BadImageError(_too_many(width * height, settings))
    if min(width, height) < settings.min_side:
        raise BadImageError(f"{width}x{height} pixels: shorter side below {settings.min_side} (data.min_side)")
    short = _target(width, height, settings.max_side)
    if min(short) < settings.min_side:
        raise BadImageError(
            f"{width}x{height} pixels: {short[0]}x{short[1]} once within {settings.max_side} (data.max_side), shorter "
            f"side below {settings.min_side} (data.min_side)"
        )


def _target(width: int, height: int, max_side: int) -> tuple[int, int]:
    """Width and height with the longer side within max_side."""
    scale = max_side / max(width, height)
    return (width, height) if scale >= 1 else (max(1, round(width * scale)), max(1, round(height * scale)))


def _bounded(pixels: Pixels, settings: DecodeSettings) -> Pixels:
    height, width, channels = pixels.shape
    target = _target(width, height, settings.max_side)
    if target != (width, height):
        pixels = np.asarray(cv2.resize(np.ascontiguousarray(pixels), target, interpolation=cv2.INTER_AREA), np.uint8)
    return np.ascontiguousarray(pixels.reshape(target[1], target[0], channels))


# --- JPEG -------------------------------------------------------------------------------------------------------------


def _decode_jpeg(data: bytes, image: Image.Image, settings: DecodeSettings, notes: list[str]) -> Pixels:
    if simplejpeg is not None and image.mode in ("L", "RGB"):
        pixels = _fast_jpeg(data, image.size, settings, notes)
        if pixels is not None:
            return _turned(pixels, _orientation(image))
    if image.mode == "CMYK":
        notes.append("cmyk")
    large = max(image.size) > 2 * settings.max_side
    wanted = _target(*image.size, settings.max_side)
    try:
        if large:
            image.draft(image.mode, wanted)
        image.load()
    except OSError as error:
        if "truncated" not in str(error):
            raise
        image = _whole_jpeg(data, notes)
    return _turned(_to_channels(image, settings.channels, notes), _orientation(image))


def _fast_jpeg(data: bytes, size: tuple[int, int], settings: DecodeSettings, notes: list[str]) -> Pixels | None:
    """simplejpeg's image, None for what it does not support; BadImageError for what is truncated or corrupt."""
    large = max(size) > 2 * settings.max_side
    width, height = _target(*size, settings.max_side) if large else (0, 0)
    options = {"colorspace": "GRAY" if settings.channels == 1 else "RGB", "min_width": width, "min_height": height}
    try:
        return np.asarray(simplejpeg.decode_jpeg(data, **options), np.uint8)
    except ValueError as error:
        message = str(error)
    if "premature end" in message.lower():
        try:
            pixels = simplejpeg.decode_jpeg(_with_end(data), **options)
        except ValueError:
            raise BadImageError(_truncated(data)) from None
        notes.append("repaired")
        return np.asarray(pixels, np.uint8)
    if "corrupt" in message.lower():
        raise BadImageError(f"corrupt JPEG ({message.removeprefix('Corrupt JPEG data: ')})")
    return None  # a warning about markers, or a colour space it lacks: Pillow has the last word


def _with_end(data: bytes, filling: bytes = b"") -> bytes:
    return data.removesuffix(b"\xff") + filling + b"\xff\xd9"


def _whole_jpeg(data: bytes, notes: list[str]) -> Image.Image:
    """The image of a JPEG without its end marker, by Pillow. BadImageError where pixels are missing too."""
    image, complete = _two_endings(data)
    if complete < 1:
        raise BadImageError(_truncated(data))
    notes.append("repaired")
    return image


def _two_endings(data: bytes) -> tuple[Image.Image, float]:
    """The JPEG closed, and the share of its rows that are really there.

    Pillow fills what is missing with gray and says nothing. Where pixels are missing, bytes put before the end marker
    become pixels and change the picture; where none is, they are skipped.
    """
    filled = bytes(1 + i * 151 % 254 for i in range(1 << 16))  # any bytes that hold no marker
    images = []
    for ending in (_with_end(data), _with_end(data, filled)):
        image = Image.open(io.BytesIO(ending), formats=["JPEG"])
        image.load()
        images.append(image)
    same = (np.asarray(images[0]) == np.asarray(images[1])).reshape(images[0].height, -1).all(axis=1)
    return images[0], 1.0 if same.all() else float(np.argmin(same)) / len(same)


def _truncated(data: bytes) -> str:
    try:
        _, complete = _two_endings(data)
    except (OSError, SyntaxError):
        return "truncated JPEG (nothing after the header)"
    return f"truncated JPEG (about {100 * complete:.0f}% of its rows are there)"


# --- what a file says besides its pixels ------------------------------------------------------------------------------


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 to 8; 1 where it says nothing or nonsense."""
    try:
        value = image.getexif().get(0x0112, 1)
    except Exception:  # a broken EXIF block is no reason to lose an image; its parser raises nearly anything
        return 1
    return value if value in range(1, 9) else 1


def _turned(pixels: Pixels, orientation: int) -> Pixels:
    """[H, W, C] upright, by the eight EXIF orientations."""
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    rows, columns = (slice(None, None, step) for step in _FLIPS[orientation])
    return pixels[rows, columns]


_FLIPS = {1: (1, 1), 2: (1, -1), 3: (-1, -1), 4: (-1, 1), 5: (1, 1), 6: (1, -1), 7: (-1, -1), 8: (-1, 1)}


def _to_channels(image: Image.Image, channels: int, notes: list[str]) -> Pixels:
    """Any mode of Pillow's -> [H, W, C] uint8."""
    mode = "RGB" if channels == 3 else "L"
    if image.mode.startswith("I;16"):
        notes.append("scaled 16-bit")
        image = Image.fromarray(_scaled(np.asarray(image), 65535))
    elif image.mode in ("I", "F"):
        image = Image.fromarray(_wide_to_bytes(image, notes))
    elif image.has_transparency_data:
        image = _on_white(image.convert("RGBA"), notes)
    pixels = np.asarray(image.convert(mode), np.uint8)
    return pixels.reshape(image.height, image.width, channels)


def _wide_to_bytes(image: Image.Image, notes: list[str]) -> Pixels:
    values = np.asarray(image)
    if image.format == "PNG":  # 16 bits in a 32-bit mode
        notes.append("scaled 16-bit")
        return _scaled(values, 65535)
    notes.append("float")
    numbers = values.astype(np.float64)
    finite = np.isfinite(numbers)
    if not finite.any():
        raise BadImageError("no finite pixel")
    low, high = numbers[finite].min(), numbers[finite].max()
    return _scaled(np.where(finite, numbers, low) - low, (high - low) or 1.0)


def _scaled(values: NDArray[Any], white: float) -> Pixels:
    return np.clip(np.rint(values.astype(np.float64) * (255 / white)), 0, 255).astype(np.uint8)


def _on_white(image: Image.Image, notes: list[str]) -> Image.Image:
    if image.getchannel("A").getextrema() != (255, 255):
        notes.append("alpha")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")
