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

from stopgrad.assemble.api import load, towers_of
from stopgrad.contracts import ConfigError, DataError, Images, MissingInputError, Preprocess, StopgradError
from stopgrad.data import Data, DataConfig
from stopgrad.data.sources import absolute
from stopgrad.media import KINDS, AnyData, AnyPreprocess, medium_of
from stopgrad.nn.config import Split
from stopgrad.recipe.text import load as load_recipe
from stopgrad.rundir import RunDir

if TYPE_CHECKING:
    from stopgrad.encoder import Encoder, Exported
    from stopgrad.training.progress import Progress

BATCH, PICTURE = 128, 128  # samples in a forward; pixels a side of what stands for one that is no image
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
    if isinstance(loaded.preprocess, Preprocess):
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


def kept_as(encoder: str | Path) -> AnyData | None:
    """How a run keeps its samples, None for a file: with the run's own settings, its store is opened again."""
    recipe = RunDir(Path(encoder)).recipe
    return load_recipe(recipe).data if recipe.is_file() else None


def _decoding(encoder: Encoder, kept: AnyData | None) -> AnyData:
    """Settings that bring samples to what the encoder wants; how large images are kept follows `kept`."""
    preprocess = encoder.preprocess
    if not isinstance(preprocess, Preprocess):
        usual = KINDS[preprocess.kind].data
        return medium_of(preprocess).wanted(kept if isinstance(kept, usual) else usual(), preprocess)  # type: ignore[no-any-return]
    return _decoding_images(preprocess, kept if isinstance(kept, DataConfig) else DataConfig())


def _decoding_images(preprocess: Preprocess, kept: DataConfig) -> DataConfig:
    return DataConfig(
        channels=preprocess.channels,
        depth=preprocess.depth,
        sensors=preprocess.sensors,
        max_side=max(kept.max_side, round(preprocess.image_size / preprocess.crop_fraction)),
        min_side=kept.min_side,
        max_bad_fraction=kept.max_bad_fraction,
        max_megapixels=kept.max_megapixels,
    )


def open_for(encoder: Encoder, source: str | Path, progress: Progress | None, kept: AnyData | None = None) -> Data:
    """A source, as the encoder wants its samples (channels, depth, rate), images kept as large as `kept` says."""
    preprocess, medium = encoder.preprocess, medium_of(encoder.preprocess)
    config = dataclasses.replace(_decoding(encoder, kept), source=str(source))
    if isinstance(config, DataConfig) and isinstance(kept, DataConfig) and kept.source == absolute(str(source)):
        config = dataclasses.replace(config, sensors=config.sensors or kept.sensors)  # which of its folders it reads
    views = medium.refitted(KINDS[preprocess.kind].views(), preprocess)
    try:
        data = medium.open(config, views, progress.reading if progress else None)
    except DataError as error:
        raise DataError(_without_setting(str(error), preprocess)) from error
    if progress:
        if data.bad:
            progress.say(f"{len(data.bad)} files could not be used; first: {data.bad[0].path} ({data.bad[0].reason})")
        for note in data.notes:
            progress.say(note)
    return data


def _without_setting(message: str, wanted: AnyPreprocess) -> str:
    """An encoder's channels are no setting that could be changed: what to type is left out, what it takes is said."""
    if not isinstance(wanted, Preprocess):
        return message
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
    sample: NDArray[Any]  # as stored; images [H, W, C]


def read_query(query: str | Path, encoder: Encoder, kept: AnyData | None = None) -> NDArray[Any]:
    """One file, as `open_for` has its samples: an image [H, W, C]; of an encoder of text, `query` itself.

    Raises MissingInputError or DataError.
    """
    from stopgrad.data.decode import BadImageError
    from stopgrad.data.folder import escape_name, read_regular, why
    from stopgrad.data.listing import UnreadableError

    medium, path = medium_of(encoder.preprocess), Path(query)
    one, such_as = medium.one, medium.such_as
    raw = str(query).encode("utf-8", "surrogateescape")
    name = escape_name(raw)
    try:
        data = raw if encoder.preprocess.kind == "text" else read_regular(raw)
    except FileNotFoundError as error:
        raise MissingInputError(f"--query {name}: no such file; give {one}, such as {such_as}") from error
    except OSError as error:
        raise DataError(f"--query {name}: can't be read ({why(error)}); give {one}, such as {such_as}") from error
    extension = path.suffix.lower().encode("utf-8", "surrogateescape")
    try:
        found: NDArray[Any] = medium.decode(data, extension, _decoding(encoder, kept), encoder.preprocess)
    except (BadImageError, UnreadableError) as error:
        said = _without_setting(str(error), encoder.preprocess)
        raise DataError(f"--query {name}: {said}; give {one} that can be read") from error
    return found


def picture(sample: NDArray[Any], encoder: Encoder) -> NDArray[Any]:
    """[H, W, C], what a sample looks like: itself where it is an image."""
    medium, preprocess = medium_of(encoder.preprocess), encoder.preprocess
    if isinstance(preprocess, Preprocess):
        return sample
    seen = medium.pictures(medium.clean([sample], preprocess), preprocess, PICTURE)[0]  # [C, S, S]
    shown: NDArray[np.uint8] = np.rint(255 * seen.permute(1, 2, 0).numpy()).astype(np.uint8)
    return shown


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
            sample=places[at][0][places[at][1]],
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
    run: str | Path,
    path: str | Path,
    *,
    data: str | Path | None = None,
    tower: str = "",
    progress: Progress | None = None,
) -> Exported:
    """Write a run's (or a .safetensors file's) encoder as .safetensors, .onnx or .pt2, and check it on images.

    data: whose samples it is checked on; by default the run's own, else the embedded scenes (sounds: noise).
    tower: of an encoder with one for each sensor, the sensor whose tower is written by itself; of a run with an encoder
    beside the backbone, that one (CLIP's is `text`).
    Raises ConfigError, DataError, MissingInputError, CheckpointError, StorageError.
    """
    from stopgrad.encoder.export import check_format, export_encoder

    check_format(Path(path))
    beside = tower if tower in towers_of(run) else ""
    encoder = load(run, tower=beside)
    own, part = tower_of(encoder, tower) if tower and not beside else (encoder, slice(None))
    samples, seen = samples_to_check_on(encoder, run, data, progress)
    return export_encoder(own, Path(path), samples[:, part], seen)


def tower_of(encoder: Encoder, name: str) -> tuple[Encoder, slice]:
    """The tower of one sensor as an encoder, and the channels it takes of a sample. Raises ConfigError."""
    from stopgrad.nn.towers import SensorTowers
    from stopgrad.views.sensors import part_of, sensors_of

    backbone, preprocess = encoder.backbone, encoder.preprocess
    names = [sensor.name for sensor in sensors_of(preprocess)] if isinstance(backbone, SensorTowers) else []
    if name not in names or not isinstance(backbone, SensorTowers) or not isinstance(preprocess, Preprocess):
        raise ConfigError(
            f"--tower {name}: this encoder has {', '.join(names) or 'no towers'}; name one, or leave it out"
        )
    at = names.index(name)
    split: Split = "lab" if encoder.config.split == "sensors_lab" and at == 0 else "none"
    own, part = part_of(preprocess, name)
    config = dataclasses.replace(encoder.config, split=split)
    return dataclasses.replace(encoder, backbone=backbone.towers[at], preprocess=own, config=config), part


def samples_to_check_on(
    encoder: Encoder, run: str | Path, data: str | Path | None, progress: Progress | None
) -> tuple[NDArray[np.float32], str]:
    """([8, C, S, S] pixel values or what else goes into the exported file, what they are in words)."""
    from stopgrad.assemble.towers import of_kind
    from stopgrad.encoder.entrance import as_input
    from stopgrad.encoder.export import IMAGES

    medium = medium_of(encoder.preprocess)
    recipe = RunDir(Path(run)).recipe if Path(run).is_dir() else None
    try:
        if data is not None:
            opened = open_for(encoder, data, progress, kept_as(run))
        elif recipe is not None:
            own = load_recipe(recipe)
            opened = medium_of(own.views).open(own.data, own.views, progress.reading if progress else None)
        else:
            opened = None
    except StopgradError as error:
        if data is not None:
            raise
        opened = None
        if progress:
            progress.say(f"the run's own {medium.many} can't be opened ({error}); checked on others instead")
    if opened is not None:
        images = opened.test if len(opened.test) else opened.train
        chosen = np.linspace(0, len(images) - 1, IMAGES).astype(np.int64)
        return as_input([of_kind(images[int(i)], encoder.preprocess) for i in chosen], encoder.preprocess), opened.name
    found, told = medium.stand_ins(IMAGES, encoder.preprocess)
    return as_input(found, encoder.preprocess), told
