"""What a finished encoder is for: features of any images, neighbours, near-duplicates, a file others can use."""

from __future__ import annotations

import copy
import dataclasses
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stopgrad.assemble.api import load
from stopgrad.contracts import ConfigError, DataError, Images, MissingInputError, Preprocess, StopgradError
from stopgrad.data import Data, DataConfig, open_data
from stopgrad.recipe.text import load as load_recipe
from stopgrad.rundir import RunDir

if TYPE_CHECKING:
    from stopgrad.encoder import Encoder, Exported
    from stopgrad.training.progress import Progress

BATCH = 128
# Cosine from which two images are near-duplicates. Of photographs compressed again, cropped by a tenth or made 8 %
# brighter, it finds 97 % with one false image in fourteen (CIFAR-10), and all with one in three (NEU); docs/encoder.md.
DUPLICATES = 0.99


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedded:
    """Features of images, in the source's order: training images first, then test images."""

    features: NDArray[np.float32]  # [N, D]
    names: tuple[str, ...]  # [N], escaped
    split: tuple[str, ...]  # [N], "train" or "test"; "" for arrays
    labels: NDArray[np.int64] | None  # [N], position in `classes`; None where nobody said
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.features)


def embed(
    encoder: Encoder | str | Path,
    data: str | Path | Sequence[NDArray[Any]],
    *,
    progress: Progress | None = None,
) -> Embedded:
    """What an encoder says about every image of `data`, through its own preprocessing.

    encoder: a loaded one, a run folder or a .safetensors file.  data: a source as `--data` takes it, or images in
    memory, each [H, W, C] uint8 (uint16 for a 16-bit encoder) of any size.
    Raises ConfigError, DataError, MissingInputError, CheckpointError, StorageError.
    """
    loaded = load(encoder) if isinstance(encoder, str | Path) else encoder
    if not hasattr(loaded, "preprocess"):
        raise ConfigError(f"embed: needs a loaded encoder, a run folder or a .safetensors file, got {type(encoder)}")
    if not isinstance(data, str | Path | Sequence | np.ndarray):
        raise ConfigError(f"embed: data must be a source or a list of arrays [H, W, C], got {type(data)}")
    if isinstance(data, str | Path):
        kept = kept_as(encoder) if isinstance(encoder, str | Path) else None
        return embed_data(loaded, open_for(loaded, data, progress, kept), progress)
    images = _InMemory(data)
    images.check(loaded.preprocess)
    features = _features(loaded, [("images", images)], progress)
    names = tuple(f"image {i}" for i in range(len(data)))
    return Embedded(features=features, names=names, split=("",) * len(data), labels=None, classes=())


class _InMemory:
    """Arrays as a split."""

    labels: NDArray[np.int64] | None

    def __init__(self, images: Sequence[NDArray[Any]]) -> None:
        self.images, self.labels = images, None

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> NDArray[Any]:
        return np.asarray(self.images[index])

    def check(self, wanted: Preprocess) -> None:
        """Raises DataError, before anything is computed, for what are no images of the encoder's channels and depth."""
        if not len(self):
            raise DataError("embed: no images; at least one is needed")
        pixel = np.dtype(np.uint8 if wanted.depth == 8 else np.uint16)
        for index in range(len(self)):
            image = self[index]
            if image.ndim != 3 or image.shape[2] != wanted.channels or not image.size or image.dtype != pixel:
                raise DataError(
                    f"embed: image {index} is {image.dtype} of shape {list(image.shape)}; this encoder takes {pixel} "
                    f"images of shape [H, W, {wanted.channels}], one array each"
                )

    def name(self, index: int) -> str:
        return f"image {index}"

    def take(self, index: NDArray[np.int64]) -> Sequence[NDArray[Any]]:
        return [self[int(i)] for i in index]


def kept_as(encoder: str | Path) -> DataConfig:
    """How a run keeps its images, the usual settings for a file: with the run's own, its store is opened again."""
    recipe = RunDir(Path(encoder)).recipe
    return load_recipe(recipe).data if recipe.is_file() else DataConfig()


def _decoding(encoder: Encoder, kept: DataConfig | None) -> DataConfig:
    """Settings that bring images to what the encoder wants; how large they are kept follows `kept`."""
    preprocess, kept = encoder.preprocess, kept or DataConfig()
    return DataConfig(
        channels=preprocess.channels,
        depth=preprocess.depth,
        max_side=max(kept.max_side, round(preprocess.image_size / preprocess.crop_fraction)),
        min_side=kept.min_side,
        max_bad_fraction=kept.max_bad_fraction,
        max_megapixels=kept.max_megapixels,
    )


def open_for(encoder: Encoder, source: str | Path, progress: Progress | None, kept: DataConfig | None = None) -> Data:
    """A source, with the channels and the depth the encoder wants, kept as large as `kept` says."""
    preprocess = encoder.preprocess
    config = dataclasses.replace(_decoding(encoder, kept), source=str(source))
    try:
        data = open_data(config, preprocess.image_size, progress=progress.reading if progress else None)
    except DataError as error:
        raise DataError(_without_setting(str(error), preprocess)) from error
    if progress:
        if data.bad:
            progress.say(f"{len(data.bad)} files could not be used; first: {data.bad[0].path} ({data.bad[0].reason})")
        for note in data.notes:
            progress.say(note)
    return data


def _without_setting(message: str, wanted: Preprocess) -> str:
    """An encoder's channels are no setting that could be changed: what to type is left out, what it takes is said."""
    said = re.sub(r", data\.channels=[0-9]+(; type --set data\.channels=[0-9]+)?", "", message)
    return message if said == message else f"{said}; this encoder takes images of {wanted.channels} channels"


def embed_data(encoder: Encoder, data: Data, progress: Progress | None = None) -> Embedded:
    """As `embed`, of a source that is open."""
    splits = _splits(data)
    features = _features(encoder, splits, progress)
    labels = [images.labels for _, images in splits]
    return Embedded(
        features=features,
        names=tuple(images.name(i) for _, images in splits for i in range(len(images))),
        split=tuple(name for name, images in splits for _ in range(len(images))),
        labels=None if any(part is None for part in labels) else np.concatenate(labels),  # type: ignore[arg-type]
        classes=data.classes,
    )


def _splits(data: Data) -> list[tuple[str, Images]]:
    if len(data.train) == len(data.test) == 1 and data.train.name(0) == data.test.name(0):
        return [("train", data.train)]  # a single image is the test as well; it is one image all the same
    return [(name, images) for name, images in (("train", data.train), ("test", data.test)) if len(images)]


def counted(number: int, what: str) -> str:
    """`1 group`, `2 groups`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _features(encoder: Encoder, splits: Sequence[tuple[str, Images]], progress: Progress | None) -> NDArray[np.float32]:
    import torch

    from stopgrad.assemble.build import pick_device
    from stopgrad.eval.extract import features

    device = pick_device()
    backbone = encoder.backbone if device.type == "cpu" else copy.deepcopy(encoder.backbone).to(device)  # theirs stays
    parts = []
    for name, images in splits:
        if progress:
            progress.say(f"{counted(len(images), f'{name} image')} through the encoder")
        found = features(backbone, images, encoder.preprocess, device=device, batch_size=BATCH, threads=2)
        if not bool(torch.isfinite(found).all()):
            bad = int((~torch.isfinite(found).all(dim=1)).nonzero()[0])
            raise DataError(
                f"embed: features of {name} image {images.name(bad)} are not finite: the encoder's training diverged"
            )
        parts.append(found.numpy())
    return np.concatenate(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbour:
    """An image near a query."""

    similarity: float  # cosine, -1 to 1
    name: str
    split: str
    label: str  # class, "" without labels
    pixels: NDArray[Any]  # [H, W, C], as stored


def read_image(path: Path, encoder: Encoder, kept: DataConfig | None = None) -> NDArray[Any]:
    """One image file, [H, W, C], as `open_for` has its images. Raises MissingInputError or DataError."""
    from stopgrad.data.decode import BadImageError, DecodeSettings, decode
    from stopgrad.data.folder import escape_name, read_regular, why

    config = _decoding(encoder, kept)
    name = escape_name(str(path).encode("utf-8", "surrogateescape"))
    settings = DecodeSettings(
        channels=config.channels,
        max_side=config.max_side,
        min_side=1,
        max_megapixels=config.max_megapixels,
        depth=config.depth,
    )
    try:
        data = read_regular(str(path).encode("utf-8", "surrogateescape"))
    except FileNotFoundError as error:
        raise MissingInputError(f"--query {name}: no such file; give one image, such as photo.jpg") from error
    except OSError as error:
        raise DataError(f"--query {name}: can't be read ({why(error)}); give one image, such as photo.jpg") from error
    try:
        return decode(data, settings, path.suffix.lower().encode("utf-8", "surrogateescape")).pixels
    except BadImageError as error:
        said = _without_setting(str(error), encoder.preprocess)
        raise DataError(f"--query {name}: {said}; give an image that can be read") from error


def name_in(source: str, path: Path) -> str:
    """What a folder of images calls the file at `path`; "" where it holds no such file."""
    from stopgrad.data.folder import escape_name, expanded

    folder, file = (os.path.realpath(place) for place in (expanded(source), path))
    inside = os.path.isdir(folder) and os.path.commonpath([folder, file]) == folder  # noqa: PTH112
    return escape_name(os.fsencode(os.path.relpath(file, folder))) if inside else ""


def neighbours(
    encoder: Encoder, data: Data, query: NDArray[Any], k: int, progress: Progress | None = None, *, own: str = ""
) -> list[Neighbour]:
    """The k images of both splits nearest to `query` [H, W, C], nearest first. own: the query's name among them."""
    import torch

    from stopgrad.eval.search import nearest

    if k < 1:
        raise ConfigError(f"-k must be 1 or more, got {k}")
    asked = _features(encoder, [("query", _InMemory([query]))], None)
    found = embed_data(encoder, data, progress)
    others = np.array([at for at, name in enumerate(found.names) if name != own], dtype=np.int64)
    if not len(others):
        raise DataError("neighbours: there is no image but the query; give --data with at least one other")
    similarity, index = nearest(torch.from_numpy(asked), torch.from_numpy(found.features[others]), k)
    places = [(images, i) for _, images in _splits(data) for i in range(len(images))]
    return [
        Neighbour(
            similarity=value,
            name=found.names[at],
            split=found.split[at],
            label=_class(found, at),
            pixels=places[at][0][places[at][1]],
        )
        for value, at in zip(similarity[0].tolist(), others[index[0].numpy()].tolist())
    ]


def _class(found: Embedded, at: int) -> str:
    return "" if found.labels is None or found.labels[at] < 0 else found.classes[int(found.labels[at])]


def duplicates(found: Embedded, threshold: float = DUPLICATES) -> list[list[tuple[int, float]]]:
    """Groups of near-duplicates: (position, cosine to the group's first) of each image. Raises ConfigError."""
    import torch

    from stopgrad.eval.duplicates import near_duplicates

    features = torch.nn.functional.normalize(torch.from_numpy(found.features), dim=1)
    groups = []
    for group in near_duplicates(features, threshold):
        cosines = (features[group] @ features[group[0]]).clamp(-1, 1).tolist()
        groups.append(list(zip(group, cosines)))
    return groups


def export(
    run: str | Path, path: str | Path, *, data: str | Path | None = None, progress: Progress | None = None
) -> Exported:
    """Write a run's (or a .safetensors file's) encoder as .safetensors, .onnx or .pt2, and check it on images.

    data: whose images it is checked on; by default the run's own, else the embedded scenes.
    Raises ConfigError, DataError, MissingInputError, CheckpointError, StorageError.
    """
    from stopgrad.encoder.export import check_format, export_encoder

    check_format(Path(path))
    encoder = load(run)
    pixels, seen = images_to_check_on(encoder, run, data, progress)
    return export_encoder(encoder, Path(path), pixels, seen)


def images_to_check_on(
    encoder: Encoder, run: str | Path, data: str | Path | None, progress: Progress | None
) -> tuple[NDArray[np.float32], str]:
    """([8, C, S, S] pixel values, what they are in words)."""
    from stopgrad.encoder.export import IMAGES
    from stopgrad.encoder.pixels import as_pixels

    recipe = RunDir(Path(run)).recipe if Path(run).is_dir() else None
    try:
        if data is not None:
            opened = open_for(encoder, data, progress, kept_as(run))
        elif recipe is not None:
            config = load_recipe(recipe).data
            opened = open_data(config, encoder.preprocess.image_size, progress=progress.reading if progress else None)
        else:
            opened = None
    except StopgradError as error:
        if data is not None:
            raise
        opened = None
        if progress:
            progress.say(f"the run's own images can't be opened ({error}); checked on the embedded scenes instead")
    if opened is not None:
        images = opened.test if len(opened.test) else opened.train
        chosen = np.linspace(0, len(images) - 1, IMAGES).astype(np.int64)
        return as_pixels([images[int(i)] for i in chosen], encoder.preprocess), opened.name
    return as_pixels(_scenes(encoder, IMAGES), encoder.preprocess), "the embedded scenes"


def _scenes(encoder: Encoder, count: int) -> list[NDArray[Any]]:
    """Scenes with as many channels and bits as the encoder takes."""
    from stopgrad.data import scenes

    preprocess = encoder.preprocess
    size = min(max(preprocess.image_size, 32), 256)
    rgb, _ = scenes.render_rgb(scenes.TEST_SEED, np.arange(count, dtype=np.int64), size)  # [8, S, S, 3]
    images = rgb[..., np.arange(preprocess.channels) % 3]
    return list(images if preprocess.depth == 8 else images.astype(np.uint16) * 257)
