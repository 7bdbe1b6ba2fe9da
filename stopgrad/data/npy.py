"""`.npy` files as images: the header is read and checked by hand, then the bytes behind it are looked at in place.

Nothing is unpickled: only plain numbers are taken. [H, W] is one band. Of three axes the bands are the last where that
has the wanted length, else the first: [H, W, C] comes before [C, H, W]. Where 1 or 3 channels are wanted and neither
axis has as many, an axis of 3 or 1 is taken, the last before the first.
"""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stopgrad.data.bands import BadImageError, DecodeSettings, check_bytes, check_size, wrong_bands

_READERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def read_header(head: bytes) -> tuple[tuple[int, ...], np.dtype[Any], bool, int]:
    """(shape, dtype, whether columns come first, where the numbers begin) from the first bytes of a file.

    Raises BadImageError where they are no header of plain numbers.
    """
    file = io.BytesIO(head)
    try:
        version = np.lib.format.read_magic(file)
        # Version 3 differs from 2 by field names in UTF-8, which no plain array has.
        shape, by_column, dtype = _READERS[version](file)
    except KeyError:
        raise BadImageError(f"NPY of version {version[0]}.{version[1]}; needed is 1.0 or 2.0") from None
    except Exception as error:  # it is a Python literal: what a broken one raises is open
        raise BadImageError("corrupt NPY header") from error
    if dtype.hasobject:
        raise BadImageError("NPY of Python objects, which are never opened; needed are numbers")
    if dtype.fields is not None or dtype.subdtype is not None or dtype.kind not in "buif" or dtype.itemsize > 8:
        raise BadImageError(f"NPY of {dtype.name[:40]}; needed are uint8, uint16, or other real numbers up to 64 bits")
    if len(shape) not in (2, 3) or min(shape) < 1:
        raise BadImageError(f"NPY of shape {_shown(shape)}; needed is [H, W], [H, W, C] or [C, H, W]")
    return tuple(map(int, shape)), dtype, by_column, file.tell()


def bands_axis(shape: tuple[int, ...], wanted: int) -> int | None:
    """Which of three axes holds the bands: 2 or 0; None where neither can."""
    for count in (wanted, *((3, 1) if wanted in (1, 3) else ())):
        for axis in (2, 0):
            if shape[axis] == count:
                return axis
    return None


def read_npy(data: bytes, settings: DecodeSettings) -> NDArray[Any]:
    """The array of a file as [H, W, B], numbers as they are. Raises BadImageError."""
    shape, dtype, by_column, begin = read_header(data)
    if len(shape) == 3:
        axis = bands_axis(shape, settings.channels)
        if axis is None:
            raise wrong_bands(min(shape[0], shape[2]), settings.channels, f" (shape {_shown(shape)})")
    else:
        axis = 2
    height, width = shape[1:] if len(shape) == 3 and axis == 0 else shape[:2]
    check_size(width, height, settings)
    count = math.prod(shape)
    check_bytes(count * dtype.itemsize, settings)
    if len(data) - begin < count * dtype.itemsize:
        share = 100 * (len(data) - begin) / (count * dtype.itemsize)
        raise BadImageError(f"truncated NPY ({share:.0f}% of its numbers are there)")
    values: NDArray[Any] = np.frombuffer(data, dtype, count, begin).reshape(shape, order="F" if by_column else "C")
    values = values.astype(dtype.newbyteorder("="), copy=False)
    if values.ndim == 2:
        return values[:, :, None]
    return values.transpose(1, 2, 0) if axis == 0 else values


def _shown(shape: tuple[int, ...]) -> str:
    return "[" + ", ".join(str(side)[:20] for side in shape[:5]) + (", ...]" if len(shape) > 5 else "]")
