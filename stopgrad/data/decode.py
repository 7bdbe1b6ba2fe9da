"""Bytes of one file -> one upright image of the wanted channels and depth, or the reason why not.

The header is checked before anything is decoded: a 49 KB PNG can ask for 1.2 GB. JPEG goes through simplejpeg (twice as
fast as Pillow, scales large photographs while decoding, and reports corrupt data where Pillow fills up with gray);
`.npy` through `npy`, TIFFs of many bands through `tiff`, everything else, and JPEG where simplejpeg is not installed,
through Pillow.

What decoders get silently wrong is done here: EXIF orientation is applied, 16 bits are scaled by their type and not
clipped, float pixels by the minimum and maximum of the file, transparency is laid on white where 1 or 3 channels are
wanted. A JPEG that lacks only its end marker is whole and is kept; one that lacks pixels is not.
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from itertools import islice

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from stopgrad.data import tiff
from stopgrad.data.bands import (
    BadImageError,
    DecodeSettings,
    Pixels,
    bounded,
    by_range,
    check_size,
    fit,
    scaled,
    target,
    to_depth,
    too_many,
    wrong_bands,
)
from stopgrad.data.folder import FORMAT_OF, sniff
from stopgrad.data.npy import read_npy

try:
    import simplejpeg
except ModuleNotFoundError:  # the wheel is not on every machine
    simplejpeg = None

__all__ = ["NOTES", "BadImageError", "DecodeSettings", "Decoded", "decode", "decoder_name", "what_else"]

# What is told once per source, with the number of images: key -> sentence after the count.
NOTES = {
    "alpha": "had transparency, laid on white",
    "animated": "had several frames or pages, of which the first is used",
    "cmyk": "were CMYK, converted to RGB without a colour profile",
    "extension": "have an extension of another format; read by content",
    "float": "had float, signed or 32-bit pixels, scaled by the minimum and maximum of each file",
    "one colour": "are of one colour",
    "repaired": "lacked the end of the file but no pixel, kept",
    "scaled 16-bit": "had 16 bits, scaled to 8; --set data.depth=16 keeps them",
    "scaled 8-bit": "had 8 bits, scaled to 16",
}


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
    pixels = bounded(pixels, settings)
    if (pixels[0] == pixels[0, 0]).all() and (pixels == pixels[0, 0]).all():  # a row first: most images end there
        notes.append("one colour")
    return Decoded(pixels, tuple(notes))


def what_else(data: bytes) -> str:
    """Why bytes without the signature of an image are none, as far as they tell."""
    if not data:
        return "empty file"
    found = looks_like(data)
    return f"not an image (looks like {found})" if found else "not an image (no known signature)"


def looks_like(data: bytes) -> str:
    """What bytes that are not of the wanted kind seem to be, "" where they do not tell."""
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
    return next((name for name, fits in looks if fits), "")


def _reason(error: Exception, kind: str) -> str:
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return "too many pixels"
    if isinstance(error, UnidentifiedImageError):
        return f"corrupt {kind} header"
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    return f"truncated {kind} ({text})" if "truncated" in text.lower() else f"corrupt {kind} ({text})"


def _decode(data: bytes, kind: str, settings: DecodeSettings, notes: list[str]) -> Pixels:
    if kind == "NPY":
        return fit(read_npy(data, settings), settings, notes)
    if kind == "TIFF":
        many = _tiff_bands(data, settings, notes)
        if many is not None:
            return many
    image = _open(data, kind, settings)
    check_size(*image.size, settings)
    if kind == "JPEG":
        if settings.channels not in (1, 3):
            raise _no_bands(image, settings.channels)
        return to_depth(_decode_jpeg(data, image, settings, notes), settings, notes)
    if getattr(image, "is_animated", False):
        notes.append("animated")
    image.load()
    return _turned(_to_channels(image, data, settings, notes), _orientation(image))


def _open(data: bytes, kind: str, settings: DecodeSettings) -> Image.Image:
    """The header alone. Pillow has a limit of its own, above or below ours, and only says it in words."""
    try:
        return Image.open(io.BytesIO(data), formats=[kind])
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as bomb:
        pixels = int((re.search(r"(\d+) pixels", str(bomb)) or ["", "0"])[1])
        raise BadImageError(too_many(pixels, settings)) from None


def _tiff_bands(data: bytes, settings: DecodeSettings, notes: list[str]) -> Pixels | None:
    """The image of a TIFF that Pillow can't read or only at 8 bits; None for one that is Pillow's."""
    found = list(islice(tiff.pages(data), 1 if settings.channels in (1, 3) else None))
    if not found or not found[0].plain:
        return None
    first = found[0]
    assert first.dtype is not None
    shallow = first.dtype.itemsize == 1
    picture = first.samples == 1 or (first.samples == 3 and shallow and first.photometric == 2) or first.alpha
    picture |= first.samples == 4 and first.photometric == 2
    deep = settings.depth == 16 and not shallow and first.samples == 1
    if settings.channels in (1, 3) and picture and not deep:
        return None
    bands = tiff.read_bands(data, found, settings)
    if first.photometric == 0 and bands.dtype.kind == "u":  # white is zero
        bands = np.iinfo(bands.dtype).max - bands
    if len(found) > 1 and first.samples > 1:
        notes.append("animated")
    return _turned(fit(bands, settings, notes), first.orientation)


# --- JPEG -------------------------------------------------------------------------------------------------------------


def _decode_jpeg(data: bytes, image: Image.Image, settings: DecodeSettings, notes: list[str]) -> Pixels:
    if simplejpeg is not None and image.mode in ("L", "RGB"):
        pixels = _fast_jpeg(data, image.size, settings, notes)
        if pixels is not None:
            return _turned(pixels, _orientation(image))
    if image.mode == "CMYK":
        notes.append("cmyk")
    large = max(image.size) > 2 * settings.max_side
    wanted = target(*image.size, settings.max_side)
    try:
        if large:
            image.draft(image.mode, wanted)
        image.load()
    except OSError as error:
        if "truncated" not in str(error):
            raise
        image = _whole_jpeg(data, notes)
    return _turned(_eight_bits(image, settings.channels, notes), _orientation(image))


def _fast_jpeg(data: bytes, size: tuple[int, int], settings: DecodeSettings, notes: list[str]) -> Pixels | None:
    """simplejpeg's image, None for what it does not support; BadImageError for what is truncated or corrupt."""
    large = max(size) > 2 * settings.max_side
    width, height = target(*size, settings.max_side) if large else (0, 0)
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


def _to_channels(image: Image.Image, data: bytes, settings: DecodeSettings, notes: list[str]) -> Pixels:
    """Any mode of Pillow's -> [H, W, C] of the wanted depth."""
    channels = settings.channels
    deep = _sixteen_bits(image, data) if settings.depth == 16 or channels not in (1, 3) else None
    if channels not in (1, 3):  # transparency is a band like the others here: there is no white to lay it on
        if len(image.getbands()) != channels or image.mode not in ("LA", "RGBA"):
            raise _no_bands(image, channels)
        return to_depth(np.asarray(image) if deep is None else deep, settings, notes)
    if deep is not None:
        return fit(_flat(deep, notes), settings, notes)
    if settings.depth == 16 and image.mode.startswith("I;16"):
        return fit(np.asarray(image).astype(np.uint16)[:, :, None], settings, notes)
    if settings.depth == 16 and image.mode in ("I", "F"):
        return fit(_wide(image, settings, notes)[:, :, None], settings, notes)
    return to_depth(_eight_bits(image, channels, notes), settings, notes)


def _no_bands(image: Image.Image, wanted: int) -> BadImageError:
    """A picture where bands are wanted: gray or colour, as the file has it."""
    return wrong_bands(1 if image.mode in ("1", "L", "I", "F") or image.mode.startswith("I;") else 3, wanted)


def _eight_bits(image: Image.Image, channels: int, notes: list[str]) -> NDArray[np.uint8]:
    """Any mode of Pillow's -> [H, W, 1 or 3] uint8."""
    mode = "RGB" if channels == 3 else "L"
    if image.mode.startswith("I;16"):
        notes.append("scaled 16-bit")
        image = Image.fromarray(scaled(np.asarray(image), 65535, _BYTES))
    elif image.mode in ("I", "F"):
        image = Image.fromarray(_wide(image, _BYTES, notes))
    elif image.has_transparency_data:
        image = _on_white(image.convert("RGBA"), notes)
    pixels = np.asarray(image.convert(mode), np.uint8)
    return pixels.reshape(image.height, image.width, channels)


_BYTES = DecodeSettings(channels=1, max_side=1, min_side=1, max_megapixels=1)  # for its depth


def _wide(image: Image.Image, settings: DecodeSettings, notes: list[str]) -> Pixels:
    """Modes I and F: [H, W]."""
    values = np.asarray(image)
    if image.format == "PNG":  # 16 bits in a 32-bit mode
        if settings.depth == 8:
            notes.append("scaled 16-bit")
        return scaled(values, 65535, settings)
    notes.append("float")
    return by_range(values, settings)


def _sixteen_bits(image: Image.Image, data: bytes) -> NDArray[np.uint16] | None:
    """[H, W, 2 to 4] of a PNG with colour or transparency at 16 bits, of which Pillow keeps 8; None for all others.

    Pillow has read it whole by now: OpenCV does not say when a file ends early.
    """
    if image.format != "PNG" or data[24:25] != b"\x10" or data[25:26] not in (b"\x02", b"\x04", b"\x06"):
        return None
    bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if bgr is None or bgr.dtype != np.uint16 or bgr.ndim != 3 or bgr.shape[:2] != image.size[::-1]:
        raise BadImageError("corrupt PNG (16 bits)")
    order = {b"\x02": [2, 1, 0], b"\x04": [0, 3], b"\x06": [2, 1, 0, 3]}[data[25:26]]
    return np.asarray(bgr[:, :, order], np.uint16)


def _flat(deep: NDArray[np.uint16], notes: list[str]) -> NDArray[np.uint16]:
    """Transparency, the last of 2 or 4 bands, laid on white: [H, W, 1 or 3]."""
    if deep.shape[2] == 3:
        return deep
    share = deep[:, :, -1:] / 65535
    if (share < 1).any():
        notes.append("alpha")
    return np.rint(deep[:, :, :-1] * share + 65535 * (1 - share)).astype(np.uint16)


def _on_white(image: Image.Image, notes: list[str]) -> Image.Image:
    if image.getchannel("A").getextrema() != (255, 255):
        notes.append("alpha")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")
