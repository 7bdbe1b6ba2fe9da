"""From a name, a folder, a list or an archive to two splits, ready to read: settings, names, what a user is told.

A source is decoded once into a packed store (`pack`), after that opened from it. A store depends on what identifies the
content (of a folder or list: the place, the name, size and time of each file; of an archive: its place, size and time;
of a set: its name and place), and the settings that shape pixels; its fingerprint on the content of the images alone,
so a folder that was moved, copied or packed into an archive continues its runs.
"""

from __future__ import annotations

import contextlib
import difflib
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from stopgrad.contracts import ConfigError, Images, MissingInputError
from stopgrad.data import scenes
from stopgrad.data.folder import IMAGES, BadFile, Kind, escape_name, expanded, index_folder, why
from stopgrad.data.listing import Files, Listing
from stopgrad.data.pack import PackedImages, PackWriter, digest, open_or_build
from stopgrad.data.scene_sensors import KNOWN as SCENES_KNOW
from stopgrad.data.scene_sensors import check_sensors, render_sensors
from stopgrad.data.workers import in_threads
from stopgrad.views.sensors import Sensor, read_labels, read_sensors

Progress = Callable[[int, int], None]  # images done, of how many


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig:
    """Which images, and how they are brought to one form."""

    source: str = "scenes-v1"  # a name in SOURCES, hf:NAME, a folder, an archive, or a list of paths
    channels: int = 3  # 1 to 64: 1 is gray, 3 is colour, others are taken from files that have as many
    depth: Literal[8, 16] = 8  # bits of a stored pixel; 16 keeps the depth of images that have it
    limit: int = (
        0  # training images to use (0: all), chosen by content; scenes: the first ones, and limit // 5 of the test
    )
    max_side: int = 512  # pixels; a longer side is area-resized to this before it is stored
    min_side: int = 8  # pixels; an image with a shorter side below this is bad
    max_bad_fraction: float = 0.05  # of all image files; a run stops above it
    max_megapixels: float = 50.0  # larger images are bad, known from their header before anything is decoded
    # Of a folder that has several pictures of each scene (`rgb/ID.png`, `depth/ID.png`, also below train/ and test/):
    # the subfolders that are read, as channels of one image in this order, NAME or NAME:WHAT (labels40:classes=41);
    # data.channels then follows from them. (): a folder of one kind of image.
    sensors: tuple[str, ...] = ()
    labels: str = ""  # the subfolder of label maps that features are probed with: NAME, or NAME:ignore=0

    def __post_init__(self) -> None:
        if not self.source:
            raise ConfigError("data.source: empty; needed is a folder of images, or 'scenes' for the embedded ones")
        if self.sensors:
            object.__setattr__(self, "channels", sum(sensor.channels for sensor in self.scene_sensors()))
        if self.labels:
            self._check_labels()
        if not 1 <= self.channels <= 64:
            raise ConfigError(f"data.channels: must be a number from 1 to 64, got {self.channels}; photographs have 3")
        if self.depth not in (8, 16):
            raise ConfigError(
                f"data.depth: must be 8 or 16 bits, got {self.depth}; 8 is for photographs, "
                "16 keeps what 16-bit files have"
            )
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

    def scene_sensors(self) -> tuple[Sensor, ...]:
        """What each of `sensors` holds. Raises ConfigError."""
        return read_sensors(self.sensors, SCENES_KNOW if self.source in SCENES else None)

    def _check_labels(self) -> None:
        name, _ = read_labels(self.labels)
        if not self.sensors:
            raise ConfigError(
                f"data.labels={self.labels} is a folder beside those of data.sensors, which names none; name what the "
                "encoder sees: --set data.sensors=[rgb]"
            )
        if name in (sensor.name for sensor in self.scene_sensors()):
            raise ConfigError(
                f"data.labels={self.labels} is what features are probed with, and data.sensors shows it to the "
                "encoder; take it out of one of them"
            )


@dataclass(frozen=True, slots=True)
class Attribute:
    """What is known of every sample beside its class, such as who speaks."""

    classes: tuple[str, ...]  # its values, escaped, of both splits
    train: NDArray[np.int64]  # [N], which of them each sample of `Data.train` has
    test: NDArray[np.int64]  # [M]


@dataclass(frozen=True, slots=True)
class Occurring:
    """What occurs in each sample, several things at once, such as the labels of its segments."""

    names: tuple[str, ...]  # [L], of both splits, escaped
    train: NDArray[np.bool_]  # [N, L], of each sample of `Data.train`
    test: NDArray[np.bool_]  # [M, L]


@dataclass(frozen=True, kw_only=True, slots=True)
class Data:
    """A source that is open: two splits to read, and what is to be told about them."""

    name: str
    synthetic: bool
    classes: tuple[str, ...]  # () without labels; then train.labels and test.labels are None
    train: Images
    test: Images
    fingerprint: str  # over the content of the images, their order, split and labels; in checkpoints and results
    bad: tuple[BadFile, ...]  # wanted files that were skipped
    ignored: int  # files that are not wanted
    notes: tuple[str, ...]  # sentences for the user, most important first
    split_rule: str  # who decided which images are for the test, e.g. "80/20 by content hash"
    attributes: Mapping[str, Attribute] = field(default_factory=dict)  # by name; not in the fingerprint
    occurring: Occurring | None = None  # of data.labels; not in the fingerprint


def open_data(config: DataConfig, image_size: int, *, progress: Progress | None = None) -> Data:
    """Opens the source, after decoding it into the cache where that was not done before.

    image_size: pixels of a side of the crops a run takes, which scenes are rendered at.  progress: called with (done,
    total) images while the store is built. Raises ConfigError, MissingInputError (no such folder, no image in it),
    DataError (too many bad images, classes that do not fit; a BadFilesError carries `.bad`), StorageError (cache).
    """
    if config.source in SCENES:
        return open_scenes(config, image_size, progress)
    from stopgrad.data.from_listing import open_listing  # brings OpenCV and Pillow, which scenes do without

    with contextlib.closing(list_source(config.source)) as listing:
        return open_listing(listing, config, image_size, progress)


def list_source(source: str, wanted: Kind = IMAGES) -> Listing:
    """Any source but the scenes, as a list of files that nothing was read of yet. `close` it after use.

    wanted: which of its files; sets by name and of the hub have images.

    Raises MissingInputError where it isn't there, with the nearest name that is; DataError where it can't be listed.
    """
    name, _, root = source.partition(":")
    if wanted is not IMAGES and (name == "hf" or name in SOURCES):
        raise MissingInputError(f"data.source: {_shown(Path(source))} is a set of images; {_needed(wanted)}")
    if name == "hf":
        from stopgrad.data.hub import open_hub

        return open_hub(root)
    if name in SOURCES and name not in SCENES:
        from stopgrad.data.sets import open_set

        return open_set(name, root)
    path = expanded(source)
    try:
        if path.is_dir():
            return Files.of_folder(index_folder(path.resolve(), wanted))
        is_file = path.is_file()
        exists = is_file or path.exists()
    except OSError as error:
        raise MissingInputError(f"data.source: {_shown(path)} can't be read ({why(error)})") from error
    if not exists:
        raise MissingInputError(_nothing_there(source, path, wanted))
    listing = _of_file(path.resolve(), wanted) if is_file else None
    if listing is None:
        raise MissingInputError(f"data.source: {_shown(path)} is a file of another kind; {_needed(wanted)}")
    return listing


def _needed(wanted: Kind) -> str:
    return (
        f"needed is a folder of {wanted.many}, an archive of them (.zip, .tar, .tar.gz), or a list of their paths "
        "(.txt, .lst)"
    )


def absolute(source: str) -> str:
    """A source as it can be said from any folder: a place on the disk, alone or after a name, becomes absolute."""
    name, colon, root = source.partition(":")
    if colon and root and (name in SOURCES or name == "hf"):
        place = expanded(root)
        return f"{name}:{place.absolute()}" if _is_there(place) else source
    place = expanded(source)
    return source if source in SOURCES or not _is_there(place) else str(place.absolute())


def _is_there(place: Path) -> bool:
    try:
        return place.exists()
    except OSError:  # a name that is too long, a folder that can't be looked into: whoever opens it says so
        return False


def _of_file(path: Path, wanted: Kind) -> Listing | None:
    """The list or archive at `path`, by its content; None where it is neither, or an archive that isn't read."""
    from stopgrad.data import path_list, tar_archive, zip_archive

    name = path.name.lower()
    if name.endswith(path_list.SUFFIXES):
        return path_list.open_list(path, wanted)
    try:
        with path.open("rb") as file:
            head = file.read(512)
        status = path.stat()
    except OSError as error:
        raise MissingInputError(f"data.source: {_shown(path)} can't be read ({why(error)})") from error
    stamp = (os.fsencode(path), b"%d %d" % (status.st_size, status.st_mtime_ns))
    gzipped = head.startswith(b"\x1f\x8b")
    if head[:4] in (b"PK\3\4", b"PK\5\6") or (name.endswith(".zip") and not gzipped):
        return zip_archive.Zip(path, stamp, wanted)
    if gzipped or name.endswith((".tar.gz", ".tgz")):
        return tar_archive.GzippedTar(path, stamp, wanted)
    if head[257:262] == b"ustar" or name.endswith(".tar"):
        return tar_archive.Tar(path, stamp, wanted)
    return None


def _nothing_there(source: str, path: Path, wanted: Kind) -> str:
    try:
        beside = [entry.name for entry in os.scandir(path.parent) if entry.is_dir() or entry.name.endswith(FILES)]
    except OSError:
        beside = []
    name, colon, root = source.partition(":")
    sets = SOURCES if wanted is IMAGES else {}
    known = difflib.get_close_matches(name, sets, n=1, cutoff=0.6)
    near = difflib.get_close_matches(path.name, beside, n=1, cutoff=0.6)
    if near:
        nearest = str(path.with_name(near[0]))
    else:
        nearest = known[0] + (colon + root if known[0] not in SCENES else "") if known else ""
    what = "file" if path.name.endswith(FILES) else "folder"
    if nearest:
        return f"data.source: no such {what}: {_shown(path)}; did you mean {_shown(Path(nearest))}?"
    by_name = f"; sets by name: {', '.join(sets)}, hf:NAME" if sets else ""
    return f"data.source: no such {what}: {_shown(path)}; it is looked for in {_shown(path.absolute().parent)}{by_name}"


def _shown(path: Path) -> str:
    return escape_name(os.fsencode(path))


def open_scenes(config: DataConfig, image_size: int, progress: Progress | None) -> Data:
    """The embedded scenes at the size of the run (32 to 256 pixels), rendered once. They are synthetic."""
    if config.labels:
        raise ConfigError(
            f"data.labels={config.labels}: the scenes have a class each, which is probed already; remove it"
        )
    size = min(max(image_size, 32), 256)
    train = min(config.limit or scenes.TRAIN, scenes.TRAIN)
    test = min(max(1, config.limit // 5), scenes.TEST) if config.limit else scenes.TEST
    counts = ((scenes.TRAIN_SEED, train), (scenes.TEST_SEED, test))

    sensors = config.scene_sensors()
    check_sensors(sensors)

    def fill(writer: PackWriter) -> None:
        labels = []
        for seed, count in counts:
            groups = np.split(np.arange(count, dtype=np.int64), range(32, count, 32))
            rendered = partial(render_sensors, seed, size, sensors, config.depth) if sensors else None
            for image, label in in_threads(rendered or partial(_rendered, seed, size), groups):
                writer.add(image if sensors or config.channels == 3 else _gray(image), len(writer))
                labels.append(label)
                writer.check_room(len(writer), train + test)
                if progress is not None:
                    progress(len(writer), train + test)
        split = np.repeat(np.array([0, 1], np.uint8), [train, test])
        writer.finish(np.array(labels, np.int64), split, {})

    # Two scenes stand for the renderer: should it change, the cache of the old one is not taken for its pictures.
    probe = scenes.render_rgb(scenes.TRAIN_SEED, np.arange(2, dtype=np.int64), size)[0].tobytes()
    name = f"{scenes.VERSION}-{size}px-{config.channels}c-{train}-{test}"
    if sensors:
        name += f"-{config.depth}-{digest(' '.join(map(str, sensors)).encode())[:8]}"
    dtype = np.uint16 if sensors and config.depth == 16 else np.uint8
    pack, notes = open_or_build(f"{name}-{digest(probe)[:8]}", config.channels, fill, dtype)
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


SCENES = ("scenes", "scenes-v1")
# Every name that --data takes, with what it is; a name may be followed by `:FOLDER`, where the set is or goes.
SOURCES = {
    "scenes": "the embedded scenes, synthetic",
    "scenes-v1": "the embedded scenes, synthetic",
    "cifar10": "60,000 photographs of 32 px, 10 classes",
    "cifar100": "60,000 photographs of 32 px, 100 classes",
    "stl10": "13,000 photographs of 96 px, 10 classes",
    "stl10-unlabeled": "100,000 photographs of 96 px without labels",
    "svhn": "99,289 house numbers of 32 px, 10 classes",
    "fashionmnist": "70,000 gray articles of 28 px, 10 classes",
    "flowers102": "8,189 flowers, 102 classes",
    "food101": "101,000 dishes, 101 classes",
    "eurosat": "27,000 satellite images of 64 px, 10 classes",
    "imagenet": "1.3 million photographs, 1,000 classes; by its folder only",
}
FILES = (".zip", ".tar", ".tar.gz", ".tgz", ".txt", ".lst")
