"""What the folders of a source say: which images are for training and which for the test, and their classes.

Three layouts are understood: `train/` beside `test/` or `val/`, class folders (each image exactly one level down, two
folders or more), and everything else, which has no labels. A lone folder around it all is looked through. What is
decided here is decided from names alone; a source without a test part is divided by the content of its files.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stopgrad.contracts import DataError, did_you_mean
from stopgrad.data.folder import escape_name

TRAIN, TEST, UNUSED = 0, 1, 2
TRAIN_NAMES = (b"train", b"training")
TEST_NAMES = (b"test", b"testing", b"val", b"valid", b"validation")  # the first of these that is there is the test part

Folders = list[tuple[bytes, ...]]  # the distinct folders that hold images, as path components


@dataclass(frozen=True, slots=True)
class Layout:
    split: NDArray[np.uint8]  # [N] TRAIN, TEST or UNUSED
    labels: NDArray[np.int64]  # [N], -1 without classes
    classes: tuple[str, ...]  # () without labels
    rule: str  # "" where no folder says which images are for the test
    notes: tuple[str, ...]


def read_layout(names: Iterable[bytes]) -> Layout:
    """The layout of files by their relative names [N]. Raises DataError where test/ has a class that train/ lacks."""
    numbers: dict[bytes, int] = {}
    place = np.fromiter((numbers.setdefault(name.rpartition(b"/")[0], len(numbers)) for name in names), np.int64)
    folders = _look_through([tuple(path.split(b"/")) if path else () for path in numbers])
    split, folders, rule, notes = _parts(folders)
    classes, class_of, more = _classes(folders, split)
    return Layout(
        split=np.array(split, np.uint8)[place],
        labels=np.array(class_of, np.int64)[place],
        classes=tuple(escape_name(name) for name in classes),
        rule=rule,
        notes=tuple(notes + more),
    )


def _look_through(folders: Folders) -> Folders:
    """Without the folders that hold everything: an unpacked archive has its images below one name."""
    while folders and all(folders) and len({folder[0] for folder in folders}) == 1:
        folders = [folder[1:] for folder in folders]
    return folders


def _parts(folders: Folders) -> tuple[list[int], Folders, str, list[str]]:
    """TRAIN, TEST or UNUSED for each folder, its path below that part, the rule in words, notes on what is left out."""
    tops = {folder[0].lower() for folder in folders if folder}
    train = next((name for name in TRAIN_NAMES if name in tops), None)
    test = next((name for name in TEST_NAMES if name in tops), None)
    if train is None:
        return [TRAIN] * len(folders), folders, "", []
    part = {train: TRAIN} | ({test: TEST} if test else {})
    split = [part.get(folder[0].lower(), UNUSED) if folder else UNUSED for folder in folders]
    left_out = sorted({escape_name(f[0]) + "/" if f else "beside them" for f, p in zip(folders, split) if p == UNUSED})
    kept = f"{train.decode()}/" + (f" and {test.decode()}/" if test else "")
    notes = [f"images outside {kept} are not used: {', '.join(left_out[:5])}"] if left_out else []
    used = _look_through([folder[1:] for folder, p in zip(folders, split) if p != UNUSED])
    below = iter(used)
    inner = [next(below) if p != UNUSED else () for p in split]
    return split, inner, f"folders {kept}" if test else "", notes


def _classes(folders: Folders, split: list[int]) -> tuple[list[bytes], list[int], list[str]]:
    """Class names, the class of each folder (-1: none), notes. `folders` are given below train/ and test/."""
    train = [folder for folder, part in zip(folders, split) if part == TRAIN]
    test = [folder for folder, part in zip(folders, split) if part == TEST]
    none: tuple[list[bytes], list[int], list[str]] = [], [-1] * len(folders), []
    classes = sorted({folder[0] for folder in train if len(folder) == 1})
    astray = [folder for folder in train + test if len(folder) != 1]
    if len(classes) < 2 or not any(len(folder) == 1 for folder in train):
        return none
    if astray:
        where = escape_name(b"/".join(astray[0])) + "/" if astray[0] else "beside the folders"
        none[2].append(
            f"no labels: {len(classes)} folders look like classes, but there are images elsewhere too "
            f"(first: {where}); labels need every image exactly one folder down"
        )
        return none
    tested = {folder[0] for folder in test}
    _same_classes(classes, tested)
    unseen = [escape_name(name) for name in classes if test and name not in tested]
    notes = [f"classes without a test image: {', '.join(unseen[:10])}"] if unseen else []
    number = {name: i for i, name in enumerate(classes)}
    return classes, [number[folder[0]] if part != UNUSED else -1 for folder, part in zip(folders, split)], notes


def _same_classes(classes: list[bytes], tested: set[bytes]) -> None:
    unknown = sorted(escape_name(name) for name in tested - set(classes))
    if unknown:
        near = did_you_mean(unknown[0], [escape_name(name) for name in classes])
        raise DataError(
            f"data: the test part has class folders that the training part lacks: {', '.join(unknown[:10])}{near}; "
            "both need the same names: rename or remove them"
        )
