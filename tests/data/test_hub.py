"""Sets of the hub, from folders on this disk: the columns, the splits, and that nothing of a set is run."""

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stopgrad.contracts import ConfigError, DataError, MissingInputError
from stopgrad.data import Data, DataConfig, hub, open_data
from stopgrad.data.from_listing import open_listing
from stopgrad.data.listing import UnreadableError, sample
from stopgrad.data.sources import list_source

datasets = pytest.importorskip("datasets", reason="the extra hf is not installed")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STOPGRAD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()
    return tmp_path / "cache"


def png(value: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(value).integers(0, 256, (12, 16, 3), np.uint8)).save(file, "PNG")
    return file.getvalue()


def table(values: list[int], labels: list[int | None] | None = None, names: tuple[str, ...] = ("cat", "dog")) -> Any:
    columns: dict[str, Any] = {"img": [{"bytes": png(value), "path": None} for value in values]}
    features: dict[str, Any] = {"img": datasets.Image()}
    if labels is not None:
        columns["label"], features["label"] = labels, datasets.ClassLabel(names=list(names))
    columns["text"], features["text"] = ["x"] * len(values), datasets.Value("string")
    return datasets.Dataset.from_dict(columns, datasets.Features(features))


def opened(source: Path | str, **settings: Any) -> Data:
    return open_data(DataConfig(source=f"hf:{source}", **settings), image_size=16)


def decoded(value: int) -> bytes:
    return np.asarray(Image.open(io.BytesIO(png(value)))).tobytes()


def test_a_saved_set_gives_its_splits_images_and_labels(tmp_path: Path) -> None:
    saved = datasets.DatasetDict(train=table([1, 2, 3], [1, 0, 1]), test=table([4, 5], [0, 1]))
    saved.save_to_disk(tmp_path / "pets")
    data = opened(tmp_path / "pets")
    assert (data.name, data.classes, data.split_rule) == ("pets", ("cat", "dog"), "splits train and test")
    assert data.train.labels is not None
    assert data.test.labels is not None
    assert (data.train.labels.tolist(), data.test.labels.tolist()) == ([1, 0, 1], [0, 1])
    assert [data.train[i].tobytes() for i in range(3)] == [decoded(value) for value in (1, 2, 3)]
    assert [data.test.name(i) for i in range(2)] == ["pets:test:0", "pets:test:1"]
    listing = list_source(f"hf:{tmp_path / 'pets'}")
    total, heads = sample(listing, 2, 8)
    assert (total, [head for _, _, head in heads]) == (5, [b"\x89PNG\r\n\x1a\n"] * 2)


def test_one_split_is_divided_by_content(tmp_path: Path) -> None:
    table(list(range(20))).save_to_disk(tmp_path / "one")
    data = opened(tmp_path / "one")
    assert (len(data.train) + len(data.test), data.classes) == (20, ())
    assert data.split_rule == "80/20 by content hash"


def test_a_test_without_labels_gives_way_to_a_validation_part_that_has_them(tmp_path: Path) -> None:
    saved = datasets.DatasetDict(
        train=table([1, 2, 3], [1, 0, 1]), test=table([4, 5], [-1, -1]), validation=table([6], [0])
    )
    saved.save_to_disk(tmp_path / "pets")
    data = opened(tmp_path / "pets")
    assert (data.split_rule, len(data.test), data.classes) == ("splits train and validation", 1, ("cat", "dog"))
    assert "splits that are not used: test" in data.notes


def test_rows_without_a_label_take_the_labels_from_all(tmp_path: Path) -> None:
    datasets.DatasetDict(train=table([1, 2, 3], [1, None, 1]), test=table([4], [0])).save_to_disk(tmp_path / "pets")
    data = opened(tmp_path / "pets")
    assert (data.classes, data.train.labels, data.test.labels) == ((), None, None)
    assert "no labels: some rows have none in the column label" in data.notes


def test_parquet_files_and_image_folders_are_opened(tmp_path: Path) -> None:
    (tmp_path / "parquet").mkdir()
    table(list(range(4)), [0, 1, 0, 1]).to_parquet(tmp_path / "parquet" / "train-00000.parquet")
    table([9], [1]).to_parquet(tmp_path / "parquet" / "test-00000.parquet")
    data = opened(tmp_path / "parquet")
    assert (len(data.train), len(data.test), data.classes) == (4, 1, ("cat", "dog"))
    for i in range(8):
        folder = tmp_path / "folder" / ("test" if i > 5 else "train") / ("dog" if i % 2 else "cat")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{i}.png").write_bytes(png(i))
    data = opened(tmp_path / "folder")
    assert (len(data.train), len(data.test), data.classes) == (6, 2, ("cat", "dog"))
    assert data.train[0].tobytes() == decoded(0)


def test_a_row_of_empty_fields_has_no_image() -> None:
    """As Parquet that others wrote can have it; `datasets` would not write it."""
    rows = hub.HubSet.__new__(hub.HubSet)
    rows.rows, rows.image = [[{"image": {"bytes": None, "path": None}}]], "image"
    with pytest.raises(UnreadableError, match="no image in this row"):
        rows._read(0, 0, -1)


def test_a_bad_row_is_named(tmp_path: Path) -> None:
    columns = {"image": [{"bytes": png(i), "path": None} for i in range(9)], "n": list(range(9))}
    columns["image"] += [{"bytes": b"<html>", "path": None}, None]
    columns["n"] += [9, 10]
    features = datasets.Features(image=datasets.Image(), n=datasets.Value("int64"))
    datasets.Dataset.from_dict(columns, features).save_to_disk(tmp_path / "set")
    data = opened(tmp_path / "set", max_bad_fraction=0.5)
    assert {item.path: item.reason for item in data.bad} == {
        "set:train:9": "not an image (looks like HTML)",
        "set:train:10": "no image in this row",
    }


def test_a_file_that_is_gone_when_its_row_is_read_is_named(tmp_path: Path) -> None:
    for i in range(8):
        (tmp_path / "set" / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / "ab"[i % 2] / f"{i}.png").write_bytes(png(i))
    listing = list_source(f"hf:{tmp_path / 'set'}")
    (tmp_path / "set" / "a" / "0.png").unlink()
    data = open_listing(listing, DataConfig(max_bad_fraction=0.5), 16, None)
    assert [(item.path, item.reason) for item in data.bad] == [("set:train:0", "gone since the folder was listed")]


def test_a_changed_set_gets_a_store_of_its_own(tmp_path: Path) -> None:
    table([1, 2, 3]).save_to_disk(tmp_path / "set")
    first = opened(tmp_path / "set").fingerprint
    assert opened(tmp_path / "set").fingerprint == first
    table([1, 2, 4]).save_to_disk(tmp_path / "set2")
    (tmp_path / "set").rename(tmp_path / "old")
    (tmp_path / "set2").rename(tmp_path / "set")
    assert opened(tmp_path / "set").fingerprint != first


def test_a_set_without_an_image_column_says_what_it_has(tmp_path: Path) -> None:
    datasets.Dataset.from_dict({"text": ["a", "b"], "<b>": [1, 2]}).save_to_disk(tmp_path / "set")
    with pytest.raises(DataError, match="no column of type Image; it has: text, <b>"):
        opened(tmp_path / "set")


class Payload:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("ran"),)


@pytest.mark.parametrize("name", ["train.pkl", "set.py", "train.csv"])
def test_code_and_pickles_of_a_set_are_not_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "set").mkdir()
    code = {".pkl": pickle.dumps(Payload()), ".py": b"from pathlib import Path; Path('ran').touch()", ".csv": b"a\n1\n"}
    (tmp_path / "set" / name).write_bytes(code[Path(name).suffix])
    with pytest.raises(
        (DataError, MissingInputError), match=r"code and pickles of a set are never run|can't be opened as a set"
    ):
        opened(tmp_path / "set")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["", "@x", "a/b/c", "<img src=x>", "a b"])
def test_what_is_no_name_of_a_set_is_an_error(name: str) -> None:
    with pytest.raises(ConfigError, match=r"is no name of a set; needed is hf:NAME"):
        opened(name)


def test_a_folder_that_is_not_there_is_an_error() -> None:
    with pytest.raises(MissingInputError, match="no such folder: /nowhere/at/all"):
        opened("/nowhere/at/all")


def test_without_a_network_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: Any, **__: Any) -> None:
        raise ConnectionError("Couldn't reach the hub\nmore")

    monkeypatch.setattr(datasets, "load_dataset_builder", unreachable)
    with pytest.raises(MissingInputError) as error:
        opened("owner/pets@small")
    assert "hf:owner/pets@small could not be had (Couldn't reach the hub more)" in str(error.value)
    assert "--data hf:/FOLDER" in str(error.value)


def test_a_name_and_its_configuration_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    (tmp_path / "parquet").mkdir()
    table(list(range(4)), [0, 1, 0, 1]).to_parquet(tmp_path / "parquet" / "train.parquet")
    real = datasets.load_dataset_builder

    def local(path: str, config: str | None, **settings: Any) -> Any:
        asked.append((path, config))
        assert not settings.get("trust_remote_code")
        return real(str(tmp_path / "parquet"), None, **settings)

    monkeypatch.setattr(datasets, "load_dataset_builder", local)
    data = opened("owner/pets@small")
    assert asked == [("owner/pets", "small")]
    assert (data.name, data.classes) == ("pets", ("cat", "dog"))


def test_without_the_extra_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ConfigError, match=r"pip install 'stopgrad\[hf\]'"):
        opened("cifar10")
