"""A set of the Hugging Face hub, or one that lies in a folder: `hf:NAME`, `hf:NAME@CONFIG`, `hf:/folder` (extra `hf`).

The image column is the one of type Image, the labels are of type ClassLabel. Images come as the bytes of their files,
so they are decoded as all others. Only sets that are plain tables or image folders are opened: no code of a set is ever
run, and none of its pickles is read. A folder is one that `save_to_disk` wrote, an image folder, or Parquet files.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stopgrad.contracts import ConfigError, DataError, MissingInputError
from stopgrad.data.folder import escape_name, expanded
from stopgrad.data.layout import TEST, TEST_NAMES, TRAIN, TRAIN_NAMES, Layout
from stopgrad.data.listing import LeftOut, Listing, Member, UnreadableError, read_twice
from stopgrad.data.pack import cache_root

VERSION = b"1"  # of what is made of a set; part of every key
PLAIN = {"parquet", "arrow", "imagefolder", "cache"}  # modules of `datasets` that read without pickle


def open_hub(name: str) -> Listing:
    """The set `name`. Raises ConfigError without the extra, MissingInputError where it can't be had."""
    try:
        import datasets
    except ImportError as error:
        raise ConfigError(
            "data.source: hf:NAME needs the package datasets; type: pip install 'stopgrad[hf]'"
        ) from error
    folder, config = _folder(name)
    try:
        if folder is not None and any((folder / file).is_file() for file in ("state.json", "dataset_dict.json")):
            found = datasets.load_from_disk(str(folder))
        else:
            found = _prepared(datasets, str(folder) if folder else name.partition("@")[0], config)
    except (DataError, ConfigError):
        raise
    except Exception as error:  # the network, the hub, a file of the set: they raise nearly anything
        raise MissingInputError(_missing(name, folder, error)) from error
    splits = dict(found) if isinstance(found, dict) else {"train": found}
    label = os.fsencode(folder.name) if folder else name.partition("@")[0].rpartition("/")[2].encode()
    if folder is not None:
        stamp = _folder_stamp(folder)
    else:
        stamp = tuple(part.encode() for split in splits for part in (split, splits[split]._fingerprint))
    return HubSet(
        label, _shown(f"hf:{name}"), (b"hub", VERSION, name.encode("utf-8", "surrogateescape"), *stamp), splits
    )


def _shown(text: str) -> str:
    return escape_name(text.encode("utf-8", "surrogateescape"))


def _folder(name: str) -> tuple[Path | None, str]:
    """The folder a name stands for, if it is one, and the configuration after the @."""
    path = expanded(name)
    if name and path.is_dir():
        return path.resolve(), ""
    bare, _, config = name.partition("@")
    path = expanded(bare)
    if bare and path.is_dir():
        return path.resolve(), config
    if bare.startswith(("/", ".", "~")):
        raise MissingInputError(f"data.source: no such folder: {_shown(bare)}; needed is hf:NAME, or hf:FOLDER")
    if not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", bare):
        raise ConfigError(
            f"data.source: hf:{_shown(name)} is no name of a set; needed is hf:NAME, hf:OWNER/NAME, hf:NAME@CONFIG or "
            "hf:/FOLDER"
        )
    return None, config


def _prepared(datasets: Any, path: str, config: str) -> Any:
    major = int(datasets.__version__.partition(".")[0])
    never: dict[str, Any] = {"trust_remote_code": False} if major < 4 else {}  # later ones have no remote code
    builder = datasets.load_dataset_builder(path, config or None, cache_dir=str(cache_root() / "hub"), **never)
    module = type(builder).__module__.split(".")
    if module[:2] != ["datasets", "packaged_modules"] or module[2] not in PLAIN:
        raise DataError(
            f"data.source: hf:{_shown(path)} would be read by {_shown('.'.join(module))}; needed is a set of Parquet "
            "or Arrow files or an image folder: code and pickles of a set are never run"
        )
    builder.download_and_prepare()
    return builder.as_dataset()


def _missing(name: str, folder: Path | None, error: Exception) -> str:
    said = _shown(" ".join((str(error) or type(error).__name__).split())[:300])
    if folder is not None:
        return f"data.source: hf:{_shown(name)} can't be opened as a set ({said}); is it a plain folder of images?"
    return (
        f"data.source: hf:{_shown(name)} could not be had ({said}); without a network, write it elsewhere with "
        f"datasets.load_dataset(NAME).save_to_disk(FOLDER), copy the folder, and type --data hf:/FOLDER"
    )


def _folder_stamp(folder: Path) -> tuple[bytes, ...]:
    found = []
    for here, below, files in os.walk(os.fsencode(folder)):
        below.sort()
        for file in sorted(files):
            path = os.path.join(here, file)  # noqa: PTH118
            status = os.lstat(path)
            found.append(b"%s %d %d" % (path, status.st_size, status.st_mtime_ns))
    return tuple(found)


class HubSet:
    """The rows of one or more splits, as files."""

    def __init__(self, label: bytes, place: str, stamp: tuple[bytes, ...], splits: dict[str, Any]) -> None:
        self.label, self.place, self.stamp = label, place, stamp
        image = _column(splits, "Image", place)
        if image is None:
            columns = ", ".join(_shown(str(name)) for name in next(iter(splits.values())).features)
            raise DataError(f"data.source: {place} has no column of type Image; it has: {columns}")
        labels = _column(splits, "ClassLabel", place)
        notes: list[str] = []
        train, test = _parts(list(splits), {name: _labels(split, labels) for name, split in splits.items()}, notes)
        self.parts = [*((name, TRAIN) for name in train), *((name, TEST) for name in test)]
        self.lengths = [len(splits[name]) for name, _ in self.parts]
        self.begins = np.concatenate([np.zeros(1, np.int64), np.cumsum(self.lengths)])
        self.split = np.repeat(np.array([part for _, part in self.parts], np.uint8), self.lengths)
        self.labels = np.concatenate([_labels(splits[name], labels) for name, _ in self.parts]).astype(np.int64)
        self.classes: tuple[str, ...] = ()
        if labels is not None and (self.labels >= 0).all():
            self.classes = tuple(_shown(str(name)) for name in splits[train[0]].features[labels].names)
        elif labels is not None:
            notes.append(f"no labels: some rows have none in the column {_shown(labels)}")
        self.rule = f"splits {_shown(train[0])} and {_shown(test[0])}" if test else ""
        self.left_out: LeftOut | None = LeftOut(notes=tuple(notes))
        self.rows = [_undecoded(splits[name], image) for name, _ in self.parts]
        self.image = image

    def count(self) -> int | None:
        return sum(self.lengths)

    def members(self, wanted: Iterable[int] | None = None, most: int = -1) -> Iterator[Member]:
        for i in range(sum(self.lengths)) if wanted is None else wanted:
            part = int(np.searchsorted(self.begins, i, side="right")) - 1
            row = int(i - self.begins[part])
            name = b"%s:%s:%d" % (self.label, self.parts[part][0].encode(), row)
            yield Member(name, 0, partial(self._read, part, row))  # a size is not known before the row is read

    def _read(self, part: int, row: int, limit: int) -> bytes:
        value = self.rows[part][row][self.image]
        if not value or (value.get("bytes") is None and value.get("path") is None):
            raise UnreadableError("no image in this row")
        if value.get("bytes") is not None:
            data = bytes(value["bytes"])
            return data if limit < 0 else data[:limit]
        return read_twice(os.fsencode(value["path"]), limit)

    def layout(self, kept: NDArray[np.int64]) -> Layout:
        labels = self.labels[kept] if self.classes else np.full(len(kept), -1, np.int64)
        return Layout(self.split[kept], labels, self.classes, self.rule, ())

    def share_read(self) -> float:
        return 1.0

    def close(self) -> None:
        pass


def _column(splits: dict[str, Any], kind: str, place: str) -> str | None:
    """The column of a type that all splits have: `image` or `label` where there are several, else the first."""
    sets = [[str(n) for n, feature in s.features.items() if type(feature).__name__ == kind] for s in splits.values()]
    if not sets:
        raise DataError(f"data.source: {place} has no split")
    shared = [name for name in sets[0] if all(name in others for others in sets)]
    usual = {"Image": ("image", "img"), "ClassLabel": ("label", "labels", "fine_label")}[kind]
    return next((name for name in usual if name in shared), shared[0] if shared else None)


def _labels(split: Any, column: str | None) -> NDArray[np.int64]:
    """[N], -1 where a row has none."""
    if column is None:
        return np.full(len(split), -1, np.int64)
    values = split.select_columns([column]).with_format(None)[:][column]
    return np.array([-1 if value is None else value for value in values], np.int64)


def _undecoded(split: Any, image: str) -> Any:
    """Rows that give the bytes of the image column as they are, and nothing else."""
    from datasets import Image

    return split.select_columns([image]).with_format(None).cast_column(image, Image(decode=False))


def _parts(names: list[str], labels: dict[str, NDArray[np.int64]], notes: list[str]) -> tuple[list[str], list[str]]:
    """Which splits are for training and which one for the test, as folders of these names would be."""
    lower = {name.lower().encode(): name for name in names}
    train = next((lower[name] for name in TRAIN_NAMES if name in lower), None)
    if train is None:
        return names, []
    tests = [lower[name] for name in TEST_NAMES if name in lower and len(labels[lower[name]])]
    # A test that keeps its labels to itself can't score anything; a validation part that has them can.
    labelled = [name for name in tests if (labels[name] >= 0).all()]
    test = (labelled or tests)[:1] if (labels[train] >= 0).all() else tests[:1]
    unused = [name for name in names if name not in (train, *test)]
    if unused:
        notes.append(f"splits that are not used: {', '.join(_shown(name) for name in unused)}")
    return [train], test
