"""What a report shows of the features: thumbnails, neighbours, a map, near-duplicates, outliers and views.

A random part of the images goes through the frozen backbone once: test images first, then training images. Up to SHOWN
of them get a place on the map and their nearest among each other; up to POOL are searched for near-duplicates and
outliers. Labels are written down to be looked at and decide nothing but which images are shown first.

    gallery/thumbs.jpg    square thumbnails, `columns` in a row, in the order of `images` of the index
    gallery/views.jpg     the sheet of views: a row an image, what the encoder sees first, then its views
    gallery/sounds/N.wav  of sounds: the beginning of that at position N, for those that are shown by themselves
    gallery/gallery.json  the index, written last: positions in `images` stand for images everywhere
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from stopgrad import rng
from stopgrad.contracts import DataError
from stopgrad.data.captioned import CAPTION, Part
from stopgrad.data.duplicates import looks, near_groups
from stopgrad.eval.extract import frozen
from stopgrad.eval.pairs import captions_found
from stopgrad.eval.players import wavs
from stopgrad.eval.search import nearest
from stopgrad.eval.sheets import COLUMNS, by_sensor, jpeg, stretch_for, thumbnails, view_sheet
from stopgrad.media import AnyPreprocess, AnyViews, medium_of
from stopgrad.rundir import write_bytes
from stopgrad.views.captioned_config import CaptionedPreprocess

if TYPE_CHECKING:
    from stopgrad.data import Data

FORMAT = 1
SHOWN, POOL = 2000, 4000  # images on the map; images searched for near-duplicates and outliers
NEIGHBOURS = 8
EXAMPLES = 8  # images whose neighbours are laid out
OUTLIERS = 12
GROUPS, GROUP_SIZE = 12, 6  # near-duplicates that are shown; how many there are is counted
SIDE = 64  # pixels of a thumbnail, at most
TEXT = 300  # characters of a text that are kept
OF_IMAGES = ("image", "captioned")  # kinds of samples whose pictures are images
PACMAP_FROM = 500  # images; of fewer, a map that bends space shows mostly itself
BATCH = 128


@dataclass(frozen=True, slots=True)
class Pool:
    """The images looked at, in order, with what the backbone says of them and small pictures."""

    split: list[str]  # "test" or "train"
    index: NDArray[np.int64]  # [P], position in its split
    features: Tensor  # [P, D], unit length
    small: NDArray[np.float16]  # [P, S, S, C], 0 to 1


def write_gallery(
    folder: Path,
    backbone: nn.Module,
    data: Data,
    preprocess: AnyPreprocess,
    views: AnyViews,
    *,
    seed: int,
    device: torch.device | str,
    threads: int = 2,
    facts: Mapping[str, str] | None = None,
    text: nn.Module | None = None,
) -> None:
    """Fill `folder` (RUN/gallery). `facts` are sentences on the machine, copied into the index.  text: the encoder of
    captions beside the backbone, where there is one: which it finds for some images is noted.

    The same weights, data and seed give the same files on the same machine. Raises DataError (features that are not
    finite, views that do not fit the images), StorageError.
    """
    pool = look(backbone, data, preprocess, seed, torch.device(device), threads)
    by_looks = preprocess.kind in OF_IMAGES
    shown = min(SHOWN, len(pool.index))
    stretch = stretch_for(pool.small, preprocess.depth == 16)
    near, found = neighbours(pool.features[:shown])
    groups = alike(pool) if by_looks else same(pool)
    strange = outliers(pool.features)
    listed = [*range(shown)]
    extra = dict.fromkeys([*(i for group in groups[:GROUPS] for i in group[:GROUP_SIZE]), *(i for i, _ in strange)])
    listed += [i for i in extra if i >= shown]
    place = {i: at for at, i in enumerate(listed)}
    points, how, why = project(pool.features[:shown], seed)
    sheet, columns, view_note = view_sheet(data.test, views, preprocess, stretch, seed, torch.device(device))
    labels = [label_of(data, pool, i) for i in listed]
    chosen = examples(labels[:shown])
    alone = [*chosen, *(int(j) for i in chosen for j in found[i]), *(place[i] for i in extra)]
    medium = medium_of(preprocess)
    sounds = wavs((at, medium.heard(sample_of(data, pool, listed[at]), preprocess)) for at in dict.fromkeys(alone))
    index = {
        "format": FORMAT,
        "data": data.name,
        "synthetic": data.synthetic,
        "classes": list(data.classes),
        "images": [
            {
                "name": name_of(data, pool, i),
                "split": pool.split[i],
                "label": label,
                **said_of(data, pool, i, preprocess),
            }
            for i, label in zip(listed, labels)
        ],
        "shown": shown,
        "searched": len(pool.index),
        "of": {"test": len(data.test), "train": len(data.train)},
        "thumbs": {"file": "thumbs.jpg", "side": int(pool.small.shape[1]), "columns": COLUMNS, "told": stretch.told},
        "views": {"file": "views.jpg", "rows": len(sheet), "columns": columns, "told": view_note},
        "map": {"method": how, "told": why, "points": points.round(4).tolist()},
        "neighbours": {"index": found.tolist(), "similarity": near.numpy().astype(np.float64).round(3).tolist()},
        "examples": chosen,
        "sounds": sorted(sounds),
        "captions": said_of_examples(pool, data, preprocess, text, chosen, torch.device(device)),
        "duplicates": {
            "rule": "by their looks, not by the features" if by_looks else "the same, as the encoder sees them",
            "groups": [[place[i] for i in group[:GROUP_SIZE]] for group in groups[:GROUPS]],
            "sizes": [len(group) for group in groups[:GROUPS]],
            "total_groups": len(groups),
            "total_images": sum(map(len, groups)),
        },
        "outliers": [{"image": place[i], "similarity": round(value, 3)} for i, value in strange],
        "facts": dict(facts or {}),
    }
    write_bytes(folder / "thumbs.jpg", thumbnails(stretch(pool.small[listed])))
    for at, sound in sounds.items():
        write_bytes(folder / "sounds" / f"{at}.wav", sound)
    write_bytes(folder / "views.jpg", jpeg(np.concatenate([np.concatenate(row, axis=1) for row in sheet]), 88))
    write_bytes(folder / "gallery.json", (json.dumps(index, separators=(",", ":"), allow_nan=False) + "\n").encode())


def look(
    backbone: nn.Module, data: Data, preprocess: AnyPreprocess, seed: int, device: torch.device, threads: int
) -> Pool:
    """Up to POOL images through the test transform and the backbone; test images come first."""
    test = rng.permutation(len(data.test), seed, 2, rng.EVAL)[:SHOWN]
    train = rng.permutation(len(data.train), seed, 3, rng.EVAL)[: POOL - len(test)]
    medium = medium_of(preprocess)
    side = min(SIDE, medium.input(preprocess)[1]) if preprocess.kind in OF_IMAGES else SIDE
    features, small = [], []
    with frozen(backbone.to(device), device) as encode:
        for images, order in ((data.test, test), (data.train, train)):
            for start in range(0, len(order), BATCH):
                x = medium.clean(images.take(order[start : start + BATCH]), preprocess, threads)
                features.append(encode(x))
                seen = medium.pictures(x, preprocess, side).permute(0, 2, 3, 1).numpy()  # [B, S, S, C]
                small.append(by_sensor(seen, preprocess)[0][1].astype(np.float16))
    vectors = torch.cat(features)
    if not bool(torch.isfinite(vectors).all()):
        raise DataError("gallery: the features are not finite, so the encoder's training diverged; nothing to show")
    split = ["test"] * len(test) + ["train"] * len(train)
    return Pool(split, np.concatenate([test, train]), F.normalize(vectors.float(), dim=1), np.concatenate(small))


def neighbours(features: Tensor) -> tuple[Tensor, Tensor]:
    """(similarity, position) of the nearest of each image, [N, K] both; K is 0 where there is one image."""
    if len(features) < 2:
        return torch.zeros(len(features), 0), torch.zeros(len(features), 0, dtype=torch.long)
    return nearest(features, features, NEIGHBOURS, skip_self=True)


def alike(pool: Pool) -> list[list[int]]:
    """Groups of near-duplicates, largest first: what `stopgrad check` calls so, and images of the same one colour.

    By their looks: features call everything alike where they collapsed, and textures that they can't tell apart.
    """
    pictures = np.rint(pool.small.astype(np.float32) * 65535).astype(np.uint16)  # [P, S, S, C]
    found = looks(pictures)
    groups = [group.tolist() for group in near_groups(found)]
    of_colour: dict[bytes, list[int]] = {}
    for i in np.flatnonzero(found.flat).tolist():
        of_colour.setdefault(pictures[i, 0, 0].tobytes(), []).append(i)
    groups += [group for group in of_colour.values() if len(group) > 1]
    return sorted(groups, key=lambda group: (-len(group), group[0]))


def same(pool: Pool) -> list[list[int]]:
    """Groups of samples that are no images and whose pictures are equal, largest first."""
    found: dict[bytes, list[int]] = {}
    for i, picture in enumerate(pool.small):
        found.setdefault(picture.tobytes(), []).append(i)
    groups = [group for group in found.values() if len(group) > 1]
    return sorted(groups, key=lambda group: (-len(group), group[0]))


def outliers(features: Tensor) -> list[tuple[int, float]]:
    """(position, mean similarity to its nearest) of the images that are least like any other, strangest first."""
    near, _ = neighbours(features)
    if near.shape[1] == 0:
        return []
    lonely = near.mean(dim=1)  # [P]
    order = torch.argsort(lonely, stable=True)[: min(OUTLIERS, len(features) // 10 + 1)]
    return [(int(i), float(lonely[i])) for i in order]


def examples(labels: list[int | None]) -> list[int]:
    """Positions of EXAMPLES images, one of each class before a second of any."""
    seen: dict[int | None, int] = {}
    turn = []
    for position, label in enumerate(labels):
        turn.append((seen.get(label, 0), position))
        seen[label] = seen.get(label, 0) + 1
    return [position for _, position in sorted(turn)[:EXAMPLES]]


def project(features: Tensor, seed: int) -> tuple[NDArray[np.float64], str, str]:
    """([N, 2], method, why it and not PaCMAP). Unit features, so that distance is cosine."""
    values = features.numpy().astype(np.float32)
    if len(values) < PACMAP_FROM:
        return pca(values), "PCA", f"fewer than {PACMAP_FROM} images"
    if len(np.unique(values.round(4), axis=0)) < PACMAP_FROM:
        return pca(values), "PCA", "most images have the same features"
    try:
        import pacmap
    except ImportError:
        return pca(values), "PCA", "PaCMAP is not installed: pip install 'stopgrad[maps]'"
    logging.getLogger("pacmap").setLevel(logging.ERROR)
    with warnings.catch_warnings(), one_thread():
        warnings.simplefilter("ignore")
        made = pacmap.PaCMAP(n_components=2, random_state=seed % 2**31, verbose=False).fit_transform(values, init="pca")
    points: NDArray[np.float64] = np.asarray(made, dtype=np.float64)
    if not np.isfinite(points).all():
        return pca(values), "PCA", "PaCMAP found no map"
    return points, "PaCMAP", ""


@contextmanager
def one_thread() -> Iterator[None]:
    """numba on one thread: PaCMAP's steps are short, and on a busy machine two threads wait for each other 20 times
    as long as one works (measured: 36 s against 1.9 s for 2,000 images)."""
    import numba

    before = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        yield
    finally:
        numba.set_num_threads(before)


def pca(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """[N, D] -> [N, 2], the two directions of largest variance; zeros where there are fewer."""
    centred = values.astype(np.float64) - values.mean(axis=0, dtype=np.float64)
    out = np.zeros((len(values), 2))
    _, vectors = np.linalg.eigh(centred.T @ centred)  # [D, D], ascending
    axes = vectors[:, ::-1][:, :2]  # [D, 2 or 1]
    # an eigenvector's sign is anybody's choice: its largest part is positive
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
    out[:, : axes.shape[1]] = centred @ axes
    return out


def name_of(data: Data, pool: Pool, at: int) -> str:
    images = data.test if pool.split[at] == "test" else data.train
    return images.name(int(pool.index[at]))


def label_of(data: Data, pool: Pool, at: int) -> int | None:
    labels = (data.test if pool.split[at] == "test" else data.train).labels
    return None if labels is None else int(labels[pool.index[at]])


def sample_of(data: Data, pool: Pool, at: int) -> NDArray[Any]:
    return (data.test if pool.split[at] == "test" else data.train)[int(pool.index[at])]


def said_of(data: Data, pool: Pool, at: int, preprocess: AnyPreprocess) -> dict[str, str]:
    """What a sample says, where it is a text: its beginning."""
    said = medium_of(preprocess).said(sample_of(data, pool, at))
    return {"text": said[:TEXT]} if said else {}


def said_of_examples(
    pool: Pool,
    data: Data,
    preprocess: AnyPreprocess,
    text: nn.Module | None,
    chosen: list[int],
    device: torch.device,
) -> list[dict[str, Any]]:
    """The captions that are nearest to each of the chosen images, among those of all test images that are shown."""
    if text is None or not isinstance(preprocess, CaptionedPreprocess):
        return []
    tested = sum(split == "test" for split in pool.split[:SHOWN])
    texts = Part(data.test, CAPTION)
    captions = [texts[int(i)].tobytes() for i in pool.index[:tested]]
    return captions_found(pool.features, [i for i in chosen if i < tested], captions, text, preprocess, device)
