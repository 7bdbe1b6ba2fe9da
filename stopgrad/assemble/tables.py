"""What is said of many images, as tables: features in .npz or .parquet, groups in .csv."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stopgrad.contracts import ConfigError
from stopgrad.rundir import check_place, write_bytes

if TYPE_CHECKING:
    from stopgrad.assemble.use import Embedded

TABLES = (".npz", ".parquet")


def check_table(path: Path) -> None:
    """Raises ConfigError where features can't be written under this name, StorageError where not in this folder."""
    check_output(path, TABLES)
    if path.suffix == ".parquet":
        _pyarrow()


def check_output(path: Path, suffixes: Sequence[str]) -> None:
    """As `check_table`, for files of any kind: said before anything is computed."""
    if path.suffix not in suffixes or path.is_dir():
        raise ConfigError(f"--output {str(path)!r} must be a file that ends in {' or '.join(suffixes)}")
    check_place(path)


def write_features(found: Embedded, path: Path) -> None:
    """features.npz (read with numpy, nothing pickled) or features.parquet: name, split, label and class, features."""
    check_table(path)
    buffer = io.BytesIO()
    if path.suffix == ".npz":
        labelled = {} if found.labels is None else {"label": found.labels, "classes": np.array(found.classes, np.str_)}
        columns: dict[str, Any] = {
            "features": found.features,
            "name": np.array(found.names, np.str_),
            "split": np.array(found.split, np.str_),
            **labelled,
        }
        np.savez(buffer, allow_pickle=False, **columns)
    else:
        arrow, parquet = _pyarrow()
        flat = arrow.array(found.features.reshape(-1))
        columns = {
            "name": arrow.array(found.names, arrow.string()),
            "split": arrow.array(found.split, arrow.string()),
            "features": arrow.FixedSizeListArray.from_arrays(flat, found.features.shape[1]),
        }
        if found.labels is not None:
            columns["label"] = arrow.array(found.labels)
            columns["class"] = arrow.array([found.classes[i] if i >= 0 else None for i in found.labels.tolist()])
        parquet.write_table(arrow.table(columns), buffer)
    write_bytes(path, buffer.getvalue())


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ConfigError("embed: .parquet needs pyarrow: pip install 'stopgrad[tables]', or write .npz") from error
    return pyarrow, pyarrow.parquet


def write_groups(found: Embedded, groups: Sequence[Sequence[tuple[int, float]]], path: Path) -> None:
    """groups.csv: a line an image; names are escaped, so that no cell is a formula."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["group", "name", "split", "similarity"])
    for number, group in enumerate(groups, 1):
        writer.writerows((number, found.names[at], found.split[at], f"{value:.4f}") for at, value in group)
    write_bytes(path, text.getvalue().encode("utf-8"))
