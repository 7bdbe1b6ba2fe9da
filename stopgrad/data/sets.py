"""Data sets by name, through torchvision: `cifar10`, or `cifar10:/folder/that/has/it`.

Without a folder a set lives below the cache and is downloaded on first use; torchvision checks what it loads against
the checksums it knows. Where that fails, the error says which files to put where. `imagenet` can't be downloaded: it
is a folder with train/ and val/, and only these two are read.

    name              train                      test        labels
    cifar10, cifar100 train                      test        10, 100
    stl10             train (5,000)              test        10
    stl10-unlabeled   unlabeled (100,000)        test        none: kNN would need a labelled training part
    svhn              train (without extra)      test        10
    fashionmnist      train                      test        10, gray
    flowers102        train and val (2,040)      test        102
    food101           train                      test        101
    eurosat           4 of 5, by content         1 of 5      10
    imagenet          train                      val         1,000
"""

from __future__ import annotations

import errno
import io
import os
import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stopgrad.contracts import MissingInputError
from stopgrad.data.folder import Index, escape_name, expanded, index_folder, why
from stopgrad.data.layout import TEST, TRAIN, Layout
from stopgrad.data.listing import Files, LeftOut, Listing, Member, Told, stamp_of
from stopgrad.data.pack import cache_root, storage_error
from stopgrad.data.path_list import index_paths

VERSION = b"1"  # of what is made of a set: its splits, labels and pixels; part of every key
SECONDS = 30.0  # without an answer, and a download is given up


@dataclass(frozen=True, slots=True)
class _Set:
    """How torchvision's class of a set is called, and what it needs on the disk."""

    kind: str  # class in torchvision.datasets
    train: tuple[dict[str, Any], ...]  # its arguments, for each part
    test: tuple[dict[str, Any], ...]
    needs: str  # files to fetch by hand, and where below the root they go ("" for the root)
    below: str = ""
    labelled: bool = True


def _by_flag(kind: str, needs: str, below: str = "") -> _Set:
    return _Set(kind, ({"train": True},), ({"train": False},), needs, below)


def _by_split(kind: str, needs: str, below: str = "", train: tuple[str, ...] = ("train",), **more: Any) -> _Set:
    return _Set(kind, tuple({"split": name} for name in train), ({"split": "test"},), needs, below, **more)


_IDX = ", ".join(f"{part}-{what}-ubyte.gz" for part in ("train", "t10k") for what in ("images-idx3", "labels-idx1"))
_SETS = {
    "cifar10": _by_flag("CIFAR10", "cifar-10-python.tar.gz"),
    "cifar100": _by_flag("CIFAR100", "cifar-100-python.tar.gz"),
    "stl10": _by_split("STL10", "stl10_binary.tar.gz"),
    "stl10-unlabeled": _by_split("STL10", "stl10_binary.tar.gz", train=("unlabeled",), labelled=False),
    "svhn": _by_split("SVHN", "train_32x32.mat and test_32x32.mat"),
    "fashionmnist": _by_flag("FashionMNIST", _IDX, "FashionMNIST/raw"),
    "flowers102": _by_split(
        "Flowers102", "102flowers.tgz, imagelabels.mat and setid.mat", "flowers-102", ("train", "val")
    ),
    "food101": _by_split("Food101", "food-101.tar.gz"),
    "eurosat": _Set("EuroSAT", ({},), (), "EuroSAT.zip", "eurosat"),
}


def open_set(name: str, root: str) -> Listing:
    """The set `name`, in the folder `root` ("": below the cache). Nothing is loaded or downloaded before it is read."""
    if name == "imagenet":
        return _imagenet(root)
    if root and not expanded(root).is_dir():
        folder = escape_name(os.fsencode(expanded(root)))
        raise MissingInputError(
            f"data.source: no such folder: {folder}, which {name} is to be read from; make it, or type {name} alone to "
            f"have it in {escape_name(os.fsencode(_default(name)))}"
        )
    return NamedSet(name, expanded(root).resolve() if root else _default(name))


def _default(name: str) -> Path:
    return cache_root() / "sets" / name.removesuffix("-unlabeled")


def _imagenet(root: str) -> Listing:
    folder = expanded(root).resolve() if root else _default("imagenet")
    shown = escape_name(os.fsencode(folder))
    missing = [part for part in ("train", "val") if not (folder / part).is_dir()]
    if missing:
        raise MissingInputError(
            f"data.source: imagenet has no {' and no '.join(f'{part}/' for part in missing)} in {shown}; it can't be "
            "downloaded without an account: get ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar, unpack them to "
            "train/CLASS/*.JPEG and val/CLASS/*.JPEG, and type --data imagenet:/FOLDER that holds both"
        )
    try:
        index = index_folder(folder)
    except OSError as error:
        raise MissingInputError(f"data.source: {shown} can't be read ({why(error)})") from error
    index = _only(index, (b"train/", b"val/"))  # a test/ beside them has no labels
    return Files(index, b"imagenet", shown, stamp_of(index))


def _only(index: Index, beginnings: tuple[bytes, ...]) -> Index:
    kept = [i for i in range(len(index)) if index.name(i).startswith(beginnings)]
    names = [index.name(i) for i in kept]
    return Index(
        root=index.root,
        names=b"".join(names),
        offsets=np.concatenate([np.zeros(1, np.int64), np.cumsum([len(name) for name in names], dtype=np.int64)]),
        sizes=index.sizes[kept],
        mtimes=index.mtimes[kept],
        bad=tuple(item for item in index.bad if item.path.startswith(tuple(part.decode() for part in beginnings))),
        ignored=index.ignored,
        found=index.found,
        notes=index.notes,
    )


class NamedSet:
    """A set of torchvision's; loaded, and downloaded where it must be, when its members are first asked for."""

    def __init__(self, name: str, root: Path) -> None:
        self.name, self.root, self.how = name, root, _SETS[name]
        self.label, self.place = name.encode(), f"{name} in {escape_name(os.fsencode(root))}"
        self.stamp: tuple[bytes, ...] = (b"set", VERSION, self.label, os.fsencode(root))
        self.left_out: LeftOut | None = None
        self._inner: Listing | None = None

    def inner(self) -> Listing:
        if self._inner is None:
            parts = [(split, self._load(given)) for split, given in self._parts()]
            with_files = any(hasattr(part, name) for _, part in parts for name in ("_image_files", "samples"))
            self._inner = _of_files(self, parts) if with_files else _of_arrays(self, parts)
            self.left_out = self._inner.left_out
        return self._inner

    def _parts(self) -> list[tuple[int, dict[str, Any]]]:
        return [*((TRAIN, given) for given in self.how.train), *((TEST, given) for given in self.how.test)]

    def _load(self, given: dict[str, Any]) -> Any:
        import torchvision.datasets

        kind = getattr(torchvision.datasets, self.how.kind)
        patience = socket.getdefaulttimeout()
        socket.setdefaulttimeout(SECONDS)  # a network that swallows everything would be waited for without end
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            return kind(str(self.root), download=True, **given)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise storage_error(self.root, error) from error
            raise MissingInputError(self._missing(error)) from error
        except Exception as error:  # a download, an archive or a file of the set: they raise nearly anything
            raise MissingInputError(self._missing(error)) from error
        finally:
            socket.setdefaulttimeout(patience)

    def _missing(self, error: Exception) -> str:
        said = (str(error) or type(error).__name__).splitlines()[0].rstrip(".:")
        there = escape_name(os.fsencode(self.root / self.how.below))
        return (
            f"data.source: {self.name} is not whole in {escape_name(os.fsencode(self.root))} and could not be "
            f"downloaded ({escape_name(said.encode('utf-8', 'replace'))}); without a network, put {self.how.needs} "
            f"into {there}, or give a folder that has the set: --data {self.name}:/FOLDER"
        )

    def told(self, parts: list[tuple[int, Any]]) -> tuple[list[str], str]:
        """Class names and the rule of the split, as `Told` has them."""
        names = getattr(parts[0][1], "classes", None) or [str(digit) for digit in range(10)]  # svhn has no names
        classes = [escape_name(str(name).encode()) for name in names] if self.how.labelled else []
        return classes, f"train and test of {self.name}" if self.how.test else ""

    def count(self) -> int | None:
        return self.inner().count()

    def members(self, wanted: Iterable[int] | None = None, most: int = -1) -> Iterator[Member]:
        return self.inner().members(wanted, most)

    def layout(self, kept: NDArray[np.int64]) -> Layout:
        return self.inner().layout(kept)

    def share_read(self) -> float:
        return 1.0

    def close(self) -> None:
        self._inner = None


def _labels(part: Any, labelled: bool) -> list[int]:
    found = next(getattr(part, name) for name in ("targets", "_labels", "labels") if hasattr(part, name))
    return [int(label) for label in found] if labelled else [-1] * len(found)


def _of_files(of: NamedSet, parts: list[tuple[int, Any]]) -> Listing:
    """A set that torchvision keeps as image files: read like any other files."""
    root = os.fsencode(of.root)
    told: dict[bytes, tuple[int, int]] = {}
    for split, part in parts:
        paths = getattr(part, "_image_files", None) or [path for path, _ in part.samples]
        for path, label in zip(paths, _labels(part, of.how.labelled), strict=True):
            told[os.path.relpath(os.fsencode(path), root)] = split, label
    classes, rule = of.told(parts)
    return Files(index_paths(root, told), of.label, of.place, of.stamp, Told(told, tuple(classes), rule))


def _of_arrays(of: NamedSet, parts: list[tuple[int, Any]]) -> Listing:
    classes, rule = of.told(parts)
    named = {TRAIN: "train", TEST: "test"}
    return Arrays(
        label=of.label,
        place=of.place,
        stamp=of.stamp,
        pixels=[_upright(np.asarray(part.data)) for _, part in parts],
        named=[f"{of.name}:{named[split]}" for split, _ in parts],
        split=np.concatenate([np.full(len(part.data), split, np.uint8) for split, part in parts]),
        labels=np.concatenate([np.array(_labels(part, of.how.labelled), np.int64) for _, part in parts]),
        classes=tuple(classes),
        rule=rule,
    )


def _upright(data: NDArray[Any]) -> NDArray[Any]:
    """[N, H, W] or [N, H, W, C], from channels first where they are."""
    return data.transpose(0, 2, 3, 1) if data.ndim == 4 and data.shape[1] == 3 and data.shape[3] != 3 else data


class Arrays:
    """Images that are arrays in memory, uint8: each becomes the bytes of a BMP, and goes the way of all files."""

    def __init__(
        self,
        *,
        label: bytes,
        place: str,
        stamp: tuple[bytes, ...],
        pixels: list[NDArray[Any]],  # for each part [N, H, W] or [N, H, W, 3]
        named: list[str],  # for each part, what its names begin with
        split: NDArray[np.uint8],  # [N of all]
        labels: NDArray[np.int64],  # [N of all]
        classes: tuple[str, ...],
        rule: str,
    ) -> None:
        self.label, self.place, self.stamp = label, place, stamp
        self.left_out: LeftOut | None = LeftOut()
        self.images = [image for part in pixels for image in part]
        self.called = [f"{name}:{i}".encode() for name, part in zip(named, pixels) for i in range(len(part))]
        self.split, self.labels, self.classes, self.rule = split, labels, classes, rule

    def count(self) -> int | None:
        return len(self.called)

    def members(self, wanted: Iterable[int] | None = None, most: int = -1) -> Iterator[Member]:
        for i in range(len(self.images)) if wanted is None else wanted:
            image = self.images[i]
            yield Member(self.called[i], image.nbytes, partial(_as_bmp, image))

    def layout(self, kept: NDArray[np.int64]) -> Layout:
        return Layout(self.split[kept], self.labels[kept], self.classes, self.rule, ())

    def share_read(self) -> float:
        return 1.0

    def close(self) -> None:
        pass


def _as_bmp(image: NDArray[Any], limit: int) -> bytes:
    """[H, W] or [H, W, 3] uint8 -> the same bytes on every machine; BMP has nothing a library could choose."""
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(file, "BMP")
    return file.getvalue() if limit < 0 else file.getvalue()[:limit]
