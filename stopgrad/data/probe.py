"""A cheap look at a source and at the machine, before anything is decoded or torch is imported.

How many images, and from the headers of some of them: sizes, channels, depth. What is chosen from it, and why, is
`recipes.folder`'s.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import subprocess
import warnings
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stopgrad.contracts import MissingInputError
from stopgrad.data.layout import TRAIN, UNUSED
from stopgrad.data.listing import Listing
from stopgrad.data.sources import SCENES, DataConfig, list_source, open_data
from stopgrad.processes import cores

HEADERS = 256  # files whose header is read, spread evenly over the source
DECODED = 32  # of those, files that are decoded small to see whether colour files hold gray pictures
HEAD_BYTES, WHOLE_BYTES = 1 << 17, 1 << 24  # of a file: for its header, and for all of it
_GRAY_LEVELS = 3  # levels of 255 that red, green and blue of a gray picture may differ in: JPEG rounds them
_SMALL = 96  # pixels; a longer side is brought to this for that


@dataclass(frozen=True, kw_only=True, slots=True)
class Probe:
    """What is known of a source from its list of files and some headers."""

    images: int  # image files
    train: int  # about how many of them are for training
    sizes: NDArray[np.int64]  # [S, 2], height and width of those looked at
    channels: int  # 1 where all that were looked at are gray, else 3, or the number of bands of most
    deep: float  # share of those looked at with more than 8 bits a channel
    unreadable: int = 0  # of those looked at, files without a header that can be read

    @property
    def looked_at(self) -> int:
        return len(self.sizes)

    @property
    def short(self) -> int:
        """The median shorter side, pixels."""
        return int(np.median(self.sizes.min(axis=1)))

    @property
    def long(self) -> int:
        """The median longer side, pixels."""
        return int(np.median(self.sizes.max(axis=1)))


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """What a run can use."""

    cores: int
    memory: int  # bytes
    gpu: str = ""  # its name, "" without one
    gpu_memory: int = 0  # bytes


def this_machine() -> Machine:
    """Cores this process may use, memory within its container's limit, and the first NVIDIA GPU it may see."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with contextlib.suppress(OSError, ValueError):  # cgroup v2; "max" where there is no limit
        memory = min(memory, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    gpu, gpu_memory = _gpu()
    return Machine(cores=cores(), memory=memory, gpu=gpu, gpu_memory=gpu_memory)


def _gpu() -> tuple[str, int]:
    """Name and bytes of memory. Asked of the driver's tool, since asking torch costs seconds of import."""
    tool = shutil.which("nvidia-smi")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if tool is None or visible in ("", "-1"):
        return "", 0
    ask = [tool, "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    with contextlib.suppress(OSError, subprocess.SubprocessError, ValueError, IndexError):
        said = subprocess.run(ask, capture_output=True, text=True, timeout=20, check=True).stdout
        name, _, megabytes = said.splitlines()[0].rpartition(",")
        return name.strip(), int(megabytes) * 1024 * 1024
    return "", 0


# --- a source ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Looked:
    """One image: its size, channels, and whether it is deeper than 8 bits; gray: None where it was not decoded."""

    height: int
    width: int
    channels: int
    deep: bool
    gray: bool | None = None


def probe(source: str, config: DataConfig) -> Probe:
    """A look at `source` without decoding it: its number of images, and sizes, channels and depth of some.

    A set that is known by name is downloaded where it is not there yet. Raises what `open_data` raises for
    a source that is not there, MissingInputError where none of the files looked at is an image.
    """
    config = replace(config, source=source)
    if source in SCENES:
        data = open_data(config, 32)
        sizes = np.array([data.train[0].shape[:2]], np.int64)
        channels = config.channels if config.sensors else 3
        images, train = len(data.train) + len(data.test), len(data.train)
        return Probe(images=images, train=train, sizes=sizes, channels=channels, deep=0.0)
    with contextlib.closing(list_source(source)) as listing:
        return _of_sensors(listing, config) if config.sensors else _of_listing(listing, config)


def _of_sensors(listing: Listing, config: DataConfig) -> Probe:
    """Number and sizes of the first sensor's, channels of all, the depth of the deepest."""
    from stopgrad.data.beside import Beside

    sensors = config.scene_sensors()
    whole = Beside(listing, [sensor.name for sensor in sensors])
    found = [_of_listing(Beside(listing, [sensor.name]), config) for sensor in sensors]
    deep = max(seen.deep for seen, sensor in zip(found, sensors) if sensor.what != "classes" or len(sensors) == 1)
    share = len(whole.scenes) / max(1, found[0].images)
    images, train = (round(share * count) for count in (found[0].images, found[0].train))
    return replace(found[0], images=images, train=train, channels=config.channels, deep=deep)


def _of_listing(listing: Listing, config: DataConfig) -> Probe:
    from stopgrad.data.listing import sample  # brings OpenCV and Pillow

    count, heads = sample(listing, HEADERS, HEAD_BYTES)
    looked = [_look(head) for _, _, head in heads]
    whole = [head for _, size, head in heads if size <= len(head)]
    if len(whole) < min(DECODED, len(heads)):  # large files: what their headers do not say needs all of some
        whole = [head for _, _, head in sample(listing, DECODED, WHOLE_BYTES)[1]]
        looked = looked if any(looked) else [_look(head) for head in whole]
    split = listing.layout(np.arange(count)).split if count else np.empty(0, np.uint8)
    found = [one for one in looked if one is not None]
    if not found:
        raise MissingInputError(f"data.source: none of the {len(heads)} files looked at is an image that can be read")
    grays = [one.gray for one in found]
    if all(one.channels in (1, 3) for one in found):
        every = max(1, len(whole) // DECODED)
        grays += [one.gray for head in whole[::every] if (one := _look(head, decoded=True)) is not None]
    used = int((split != UNUSED).sum())
    train = int((split == TRAIN).sum())
    train = train if train < used else round(0.8 * used)  # no test part: a fifth becomes it
    return _summary(used, min(train, config.limit or train), found, grays, len(looked) - len(found))


def _summary(images: int, train: int, looked: list[_Looked], grays: list[bool | None], unreadable: int) -> Probe:
    most = Counter(one.channels for one in looked).most_common(1)[0][0]
    if most in (1, 3):
        known = [gray for gray in grays if gray is not None]
        # a colour file may hold a gray picture; with one colourful picture among them all are kept in colour
        most = 1 if known and all(known) else 3
    return Probe(
        images=images,
        train=train,
        sizes=np.array([(one.height, one.width) for one in looked], np.int64).reshape(-1, 2),
        channels=most,
        deep=sum(one.deep for one in looked) / len(looked),
        unreadable=unreadable,
    )


def _is_gray(pixels: NDArray[Any]) -> bool:
    levels = pixels.astype(np.int32)
    return int(np.ptp(levels, axis=2).max()) <= _GRAY_LEVELS


def _look(data: bytes, decoded: bool = False) -> _Looked | None:
    """One file by its first bytes; None where they do not tell, which the preflight reports and this steps over."""
    from stopgrad.data.bands import BadImageError
    from stopgrad.data.folder import sniff

    kind = sniff(data)
    try:
        if kind == "NPY":
            return _look_npy(data)
        if kind == "TIFF":
            return _look_tiff(data)
        return _look_picture(data, decoded)
    except (BadImageError, OSError):
        return None
    except Exception:  # decoders raise whatever the bytes lead them into
        return None


def _look_picture(data: bytes, decoded: bool) -> _Looked:
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(io.BytesIO(data)) as image:
            width, height = image.size
            one = image.mode in ("1", "L", "LA", "I", "F") or image.mode.startswith("I;16")
            deep = image.mode.startswith("I") or (image.format == "PNG" and data[24] == 16)  # colour is shown as 8
    gray = True if one else _decoded_gray(data) if decoded else None
    return _Looked(height, width, 1 if one else 3, deep, gray)


def _look_npy(data: bytes) -> _Looked:
    from stopgrad.data.npy import read_header

    shape, dtype, _, _ = read_header(data)
    height, width, bands = (*shape, 1)[:3]
    if len(shape) == 3 and shape[0] < shape[2]:  # bands are fewer than pixels of a side
        bands, height, width = shape
    return _Looked(height, width, bands, dtype.itemsize > 1, None if bands == 3 else bands == 1)


def _look_tiff(data: bytes) -> _Looked | None:
    from stopgrad.data import tiff

    pages = list(tiff.pages(data))
    first = pages[0]
    bands = first.samples if first.samples > 1 else len({id(page) for page in pages})
    if bands in (2, 4) and first.alpha:  # transparency is laid on white
        bands -= 1
    deep = first.dtype is not None and first.dtype.itemsize > 1
    return _Looked(first.height, first.width, bands, deep, None if bands == 3 else bands == 1)


def _decoded_gray(data: bytes) -> bool | None:
    from stopgrad.data.bands import BadImageError, DecodeSettings
    from stopgrad.data.decode import decode

    try:
        return _is_gray(decode(data, DecodeSettings(3, _SMALL, 1, 50.0)).pixels)
    except BadImageError:
        return None
