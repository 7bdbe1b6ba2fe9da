"""TIFF files of any number of bands, which Pillow does not read: Pillow and libtiff unpack, numpy puts together.

Bands stand in one picture, pixel by pixel or plane by plane, or in one picture each, page by page. Strips and tiles,
every compression without loss that libtiff knows, predictors 1 and 2, 8 to 64 bits, integers and floats.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from stopgrad.data.bands import BadImageError, DecodeSettings, check_bytes, check_size, wrong_bands

PAGES = 64  # as many bands as an image may have
_NONE, _DEFLATE = (1,), (8, 32946)
_BY_LIBTIFF = (5, 32773, 34925, 50000)  # LZW, PackBits, LZMA, Zstandard
_KINDS = {1: "u", 2: "i", 3: "f"}


@dataclass(frozen=True, slots=True)
class Page:
    """One picture of a file, as its header describes it."""

    width: int
    height: int
    samples: int  # bands a pixel
    dtype: np.dtype[Any] | None  # of a number, in the order of the file; None: of no type known here
    photometric: int
    alpha: bool  # the last band is transparency
    orientation: int  # as EXIF has it, 1 to 8
    compression: int
    predictor: int
    planar: bool  # plane by plane
    chunk: tuple[int, int]  # width and height of a strip or tile
    offsets: tuple[int, ...]
    counts: tuple[int, ...]

    @property
    def plain(self) -> bool:
        """Whether its numbers are bands: no palette, no mask, no colour space that has to be converted."""
        return self.dtype is not None and self.photometric in (0, 1, 2, 32803, 34892)


def pages(data: bytes) -> Iterator[Page]:
    """The pictures of a TIFF, at most PAGES + 1. Raises what broken headers lead to."""
    big = b"+" in data[2:4]
    order = "<" if data[:2] == b"II" else ">"
    at = struct.unpack_from(order + ("Q" if big else "L"), data, 8 if big else 4)[0]
    seen: set[int] = set()
    while at and at not in seen and len(seen) <= PAGES:
        seen.add(at)
        # Pillow misses a BigTIFF in big-endian order: what it is and its order are said apart
        head = TiffImagePlugin.ImageFileDirectory_v2(b"II+\0" + bytes(12) if big else b"II*\0" + bytes(4), data[:2])
        file = io.BytesIO(data)
        file.seek(at)
        head.load(file)
        yield _page(head, order)
        at = head.next


def _page(head: TiffImagePlugin.ImageFileDirectory_v2, order: str) -> Page:
    def several(tag: int) -> tuple[int, ...]:
        value = head.get(tag, ())
        return tuple(map(int, value)) if isinstance(value, tuple | list) else (int(value),)

    def one(tag: int, default: int = 0) -> int:
        return (*several(tag), default)[0]

    width, height, samples = one(256), one(257), one(277, 1)
    bits, kinds = set(several(258) or (1,)), set(several(339) or (1,))
    known = len(bits) == len(kinds) == 1 and bits <= {8, 16, 32, 64} and kinds <= _KINDS.keys()
    kind = _KINDS[min(kinds)] if known else ""
    tiled = 322 in head
    return Page(
        width=width,
        height=height,
        samples=samples,
        dtype=None if not known or (kind == "f" and bits == {8}) else np.dtype(f"{order}{kind}{min(bits) // 8}"),
        photometric=one(262, 1),
        alpha=bool(set(several(338)) & {1, 2}),
        orientation=one(274, 1) if one(274, 1) in range(1, 9) else 1,
        compression=one(259, 1),
        predictor=one(317, 1),
        planar=one(284, 1) == 2,
        chunk=(one(322), one(323)) if tiled else (width, min(one(278, height) or height, height)),
        offsets=several(324 if tiled else 273),
        counts=several(325 if tiled else 279),
    )


def read_bands(data: bytes, found: list[Page], settings: DecodeSettings) -> NDArray[Any]:
    """[H, W, B], numbers as they are, of a file whose first picture is plain. Raises BadImageError."""
    first, wanted = found[0], settings.channels
    check_size(first.width, first.height, settings)
    if first.samples == 1 and len(found) == wanted and wanted not in (1, 3):
        if any(page != _like(first, page) for page in found):
            raise BadImageError(f"has {len(found)} pages that differ in size or type; bands need the same")
        check_bytes(wanted * first.width * first.height * _type(first).itemsize, settings)
        return np.concatenate([_read(data, page, settings) for page in found], axis=2)
    if first.samples != wanted and not {first.samples, wanted} <= {1, 3}:
        paged = f" and {len(found)} pages" if len(found) > 1 else ""
        raise wrong_bands(first.samples, wanted, paged)
    check_bytes(first.samples * first.width * first.height * _type(first).itemsize, settings)
    return _read(data, first, settings)


def _like(first: Page, page: Page) -> Page | None:
    same = (first.width, first.height, 1, first.dtype) == (page.width, page.height, page.samples, page.dtype)
    return page if same else None


def _type(page: Page) -> np.dtype[Any]:
    assert page.dtype is not None  # `plain` was asked
    return page.dtype


def _read(data: bytes, page: Page, settings: DecodeSettings) -> NDArray[Any]:
    """One picture: [H, W, samples], in the byte order of this machine."""
    dtype = _type(page)
    across, down = page.chunk
    if across < 1 or down < 1:
        raise BadImageError("corrupt TIFF (strips or tiles without a size)")
    check_bytes(across * down * page.samples * dtype.itemsize, settings)
    if page.predictor not in (1, 2) or (page.predictor == 2 and dtype.kind == "f"):
        raise BadImageError(f"TIFF with predictor {page.predictor}, which is not read; save it without one")
    columns, rows = -(-page.width // across), -(-page.height // down)
    planes, samples = (page.samples, 1) if page.planar else (1, page.samples)
    if len(page.offsets) != columns * rows * planes or len(page.counts) != len(page.offsets):
        raise BadImageError(f"corrupt TIFF ({len(page.offsets)} strips or tiles of {columns * rows * planes})")
    out = np.empty((page.height, page.width, page.samples), dtype.newbyteorder("="))
    tiled = across != page.width or columns > 1
    for place, (offset, count) in enumerate(zip(page.offsets, page.counts, strict=True)):
        plane, within = divmod(place, columns * rows)
        top, left = within // columns * down, within % columns * across
        height = down if tiled else min(down, page.height - top)
        piece = _unpacked(data[offset : offset + count], page.compression, height, across * samples * dtype.itemsize)
        values = np.frombuffer(piece, dtype).astype(out.dtype).reshape(height, across, samples)
        if page.predictor == 2:  # each number is the difference from the pixel to its left, and wraps
            values = np.cumsum(values, axis=1, dtype=out.dtype)
        band = slice(plane, plane + 1) if page.planar else slice(None)
        part = out[top : top + down, left : left + across, band]
        part[:] = values[: part.shape[0], : part.shape[1]]
    return out


def _unpacked(packed: bytes, compression: int, height: int, width: int) -> bytes:
    """One strip or tile: `height` rows of `width` bytes."""
    needed = height * width
    if compression in _NONE:
        piece = packed
    elif compression in _DEFLATE:
        try:
            piece = zlib.decompressobj().decompress(packed, needed)
        except zlib.error as error:
            raise BadImageError(f"corrupt TIFF ({error})") from None
    elif compression in _BY_LIBTIFF:
        piece = _by_libtiff(packed, compression, height, width)
    else:
        raise BadImageError(f"TIFF of compression {compression}, which is not read for bands; save it with deflate")
    if len(piece) < needed:
        raise BadImageError("truncated TIFF (strips or tiles end early)")
    return piece[:needed]


def _by_libtiff(packed: bytes, compression: int, height: int, width: int) -> bytes:
    """The bytes as a gray picture of one strip, which Pillow hands to libtiff."""
    tags = {256: width, 257: height, 258: 8, 259: compression, 262: 1, 273: 8, 277: 1, 278: height, 279: len(packed)}
    entries = b"".join(struct.pack("<HHLL", tag, 4, 1, value) for tag, value in tags.items())
    body = packed + b"\0" * (len(packed) % 2)
    file = struct.pack("<2sHL", b"II", 42, 8 + len(body)) + body + struct.pack("<H", len(tags)) + entries + bytes(4)
    image = Image.open(io.BytesIO(file), formats=["TIFF"])
    image.load()
    return image.tobytes()
