"""From a name or a folder to two splits, ready to read: settings, the table of sources, and what a user is told.

A source is decoded once into a packed store (`pack`), after that opened from it. A folder's store depends on the place
of the folder, the name, size and time of each of its files, and the settings that shape pixels; its fingerprint on the
content of the files alone, so a folder that was moved or copied continues its runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from stopgrad.contracts import ConfigError, Images
from stopgrad.data import scenes
from stopgrad.data.folder import BadFile
from stopgrad.data.pack import PackedImages, PackWriter, digest, in_order, open_or_build

Progress = Callable[[int, int], None]  # images done, of how many


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig:
    """Which images, and how they are brought to one form."""

    source: str = "scenes-v1"  # a name in SOURCES, or a folder
    channels: Literal[1, 3] = 3  # what every image is brought to
    limit: int = (
        0  # training images to use (0: all), chosen by content; scenes: the first ones, and limit // 5 of the test
    )
    max_side: int = 512  # pixels; a longer side is area-resized to this before it is stored
    min_side: int = 8  # pixels; an image with a shorter side below this is bad
    max_bad_fraction: float = 0.05  # of all image files; a run stops above it
    max_megapixels: float = 50.0  # larger images are bad, known from their header before anything is decoded

    def __post_init__(self) -> None:
        if not self.source:
            raise ConfigError("data.source: empty; needed is a folder of images, or 'scenes' for the embedded ones")
        if self.channels not in (1, 3):
            raise ConfigError(f"data.channels: must be 1 or 3, got {self.channels}; photographs have 3")
        if self.limit < 0:
            raise ConfigError(f"data.limit: must be 0 (all images) or more, got {self.limit}")
        if self.min_side < 1:
            raise ConfigError(f"data.min_side: must be 1 pixel or more, got {self.min_side}; the default is 8")
        if self.max_side < max(32, self.min_side):
            raise ConfigError(
                f"data.max_side: must be {max(32, self.min_side)} pixels or more, got {self.max_side}; "
                "the default is 512"
            )
        if not 0 <= self.max_bad_fraction <= 1:
            raise ConfigError(
                f"data.max_bad_fraction: must be a fraction from 0 to 1, got {self.max_bad_fraction}; "
                "the default is 0.05"
            )
        if not 0 < self.max_megapixels < math.inf:
            raise ConfigError(
                f"data.max_megapixels: must be a number above 0, got {self.max_megapixels}; the default is 50"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Data:
    """A source that is open: two splits to read, and what is to be told about them."""

    name: str
    synthetic: bool
    classes: tuple[str, ...]  # () without labels; then train.labels and test.labels are None
    train: Images
    test: Images
    fingerprint: str  # over the content of the images, their order, split and labels; in checkpoints and results
    bad: tuple[BadFile, ...]  # images that were skipped
    ignored: int  # files that are no images
    notes: tuple[str, ...]  # sentences for the user, most important first
    split_rule: str  # who decided which images are for the test, e.g. "80/20 by content hash"


def open_data(config: DataConfig, image_size: int, *, progress: Progress | None = None) -> Data:
    """Opens the source, after decoding it into the cache where that was not done before.

    image_size: pixels of a side of the crops a run takes, which scenes are rendered at.  progress: called with (done,
    total) images while the store is built. Raises ConfigError, MissingInputError (no such folder, no image in it),
    DataError (too many bad images, classes that do not fit; a BadFilesError carries `.bad`), StorageError (cache).
    """
    known = SOURCES.get(config.source)
    if known is not None:
        return known(config, image_size, progress)
    from stopgrad.data.from_folder import open_folder  # brings OpenCV and Pillow, which scenes do without

    return open_folder(config, image_size, progress)


def open_scenes(config: DataConfig, image_size: int, progress: Progress | None) -> Data:
    """The embedded scenes at the size of the run (32 to 256 pixels), rendered once. They are synthetic."""
    size = min(max(image_size, 32), 256)
    train = min(config.limit or scenes.TRAIN, scenes.TRAIN)
    test = min(max(1, config.limit // 5), scenes.TEST) if config.limit else scenes.TEST
    counts = ((scenes.TRAIN_SEED, train), (scenes.TEST_SEED, test))

    def fill(writer: PackWriter) -> None:
        labels = []
        for seed, count in counts:
            for rgb, label in in_order(partial(_rendered, seed, size), count, 32):
                writer.add(rgb if config.channels == 3 else _gray(rgb), len(writer))
                labels.append(label)
                if progress is not None:
                    progress(len(writer), train + test)
        split = np.repeat(np.array([0, 1], np.uint8), [train, test])
        writer.finish(np.array(labels, np.int64), split, {})

    # Two scenes stand for the renderer: should it change, the cache of the old one is not taken for its pictures.
    probe = scenes.render_rgb(scenes.TRAIN_SEED, np.arange(2, dtype=np.int64), size)[0].tobytes()
    name = f"{scenes.VERSION}-{size}px-{config.channels}c-{train}-{test}"
    pack, notes = open_or_build(f"{name}-{digest(probe)[:8]}", config.channels, fill)
    few = config.limit > scenes.TRAIN
    return Data(
        name=scenes.VERSION,
        synthetic=True,
        classes=tuple(scenes.CLASSES),
        train=PackedImages(pack, np.flatnonzero(pack.split == 0), labelled=True),
        test=PackedImages(pack, np.flatnonzero(pack.split == 1), labelled=True),
        fingerprint=digest(name.encode()),
        bad=(),
        ignored=0,
        notes=(*notes, *([f"data.limit={config.limit:,}, but there are {scenes.TRAIN:,} scenes"] if few else [])),
        split_rule="rendered from two seeds",
    )


def _rendered(seed: int, size: int, index: NDArray[np.int64]) -> list[tuple[NDArray[np.uint8], int]]:
    rgb, labels = scenes.render_rgb(seed, index, size)
    return [(image, int(label)) for image, label in zip(rgb, labels)]


def _gray(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """[H, W, 3] -> [H, W, 1], luma of ITU-R 601 as JPEG has it."""
    luma: NDArray[np.float64] = rgb @ np.array([0.299, 0.587, 0.114])
    return np.rint(luma).astype(np.uint8)[:, :, None]


SOURCES: dict[str, Callable[[DataConfig, int, Progress | None], Data]] = {
    "scenes": open_scenes,
    "scenes-v1": open_scenes,
}
