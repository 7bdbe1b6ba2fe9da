"""Sets by name: torchvision's own classes on small files in the formats of the originals, and no network at all."""

import errno
import gzip
import json
import os
import pickle
import struct
import urllib.request
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from stopgrad.contracts import MissingInputError, StorageError
from stopgrad.data import Data, DataConfig, open_data, sets
from stopgrad.data.listing import sample
from stopgrad.data.sources import SCENES, SOURCES, list_source
from stopgrad.recipes import recipe_named

torchvision = pytest.importorskip("torchvision.datasets")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    def no_network(*_: Any, **__: Any) -> None:
        raise URLError("Temporary failure in name resolution")

    monkeypatch.setenv("STOPGRAD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(urllib.request, "urlopen", no_network)
    return tmp_path / "cache"


def pixels(value: int, *shape: int) -> NDArray[np.uint8]:
    return np.random.default_rng(value).integers(0, 256, shape, np.uint8)


def unchecked(monkeypatch: pytest.MonkeyPatch, kind: Any, *names: str) -> None:
    """The checksums are those of the real files."""
    for name in names:
        monkeypatch.setattr(kind, name, [[file, None] for file, _ in getattr(kind, name)])


def write_cifar10(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unchecked(monkeypatch, torchvision.CIFAR10, "train_list", "test_list")
    monkeypatch.setattr(torchvision.CIFAR10, "meta", {**torchvision.CIFAR10.meta, "md5": None})
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for n, (name, _) in enumerate([*torchvision.CIFAR10.train_list, *torchvision.CIFAR10.test_list]):
        entry = {"data": pixels(n, 4, 3072), "labels": [n % 2, 2, 3, 4]}
        (folder / name).write_bytes(pickle.dumps(entry))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": [f"class {i}" for i in range(10)]}))


def write_cifar100(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unchecked(monkeypatch, torchvision.CIFAR100, "train_list", "test_list")
    monkeypatch.setattr(torchvision.CIFAR100, "meta", {**torchvision.CIFAR100.meta, "md5": None})
    folder = root / "cifar-100-python"
    folder.mkdir(parents=True)
    for n, name in enumerate(("train", "test")):
        entry = {"data": pixels(n, 6 - 2 * n, 3072), "fine_labels": [99, 1, 2, 3, 4, 5][: 6 - 2 * n]}
        (folder / name).write_bytes(pickle.dumps(entry))
    (folder / "meta").write_bytes(pickle.dumps({"fine_label_names": [f"fine {i}" for i in range(100)]}))


def write_stl10(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unchecked(monkeypatch, torchvision.STL10, "train_list", "test_list")
    folder = root / "stl10_binary"
    folder.mkdir(parents=True)
    for n, (part, count) in enumerate((("train", 5), ("test", 4), ("unlabeled", 7))):
        (folder / f"{part}_X.bin").write_bytes(pixels(n, count, 3, 96, 96).tobytes())
        (folder / f"{part}_y.bin").write_bytes(bytes(range(1, count + 1)))
    (folder / "class_names.txt").write_text("\n".join(f"thing {i}" for i in range(10)))


def write_svhn(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from scipy.io import savemat

    known = {key: [url, file, None] for key, (url, file, _) in torchvision.SVHN.split_list.items()}
    monkeypatch.setattr(torchvision.SVHN, "split_list", known)
    root.mkdir(parents=True, exist_ok=True)
    for n, (part, count) in enumerate((("train", 6), ("test", 3))):
        labels = np.array([10, 1, 2, 3, 4, 5][:count], np.uint8)[:, None]  # 10 is the digit 0
        savemat(root / f"{part}_32x32.mat", {"X": pixels(n, 32, 32, 3, count), "y": labels})


def write_fashionmnist(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = torchvision.FashionMNIST
    monkeypatch.setattr(kind, "resources", [(file, None) for file, _ in kind.resources])
    folder = root / "FashionMNIST" / "raw"
    folder.mkdir(parents=True)
    for n, (part, count) in enumerate((("train", 6), ("t10k", 4))):
        images = struct.pack(">4i", 2051, count, 28, 28) + pixels(n, count, 28, 28).tobytes()
        labels = struct.pack(">2i", 2049, count) + bytes(range(count))
        (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(images))
        (folder / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))


def write_flowers102(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from scipy.io import savemat

    known = {key: (file, None) for key, (file, _) in torchvision.Flowers102._file_dict.items()}
    monkeypatch.setattr(torchvision.Flowers102, "_file_dict", known)
    folder = root / "flowers-102"
    (folder / "jpg").mkdir(parents=True)
    for i in range(1, 10):
        Image.fromarray(pixels(i, 20, 30, 3)).save(folder / "jpg" / f"image_{i:05d}.jpg")
    ids = {"trnid": [9, 1, 2], "valid": [3, 4], "tstid": [5, 6, 7, 8]}
    savemat(folder / "setid.mat", {key: np.array(value) for key, value in ids.items()})
    savemat(folder / "imagelabels.mat", {"labels": np.arange(1, 10)})


def write_food101(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = root / "food-101"
    listed: dict[str, dict[str, list[str]]] = {"train": {}, "test": {}}
    (folder / "meta").mkdir(parents=True)
    for n, name in enumerate(("waffles", "apple_pie")):
        (folder / "images" / name).mkdir(parents=True)
        for i in range(5):
            Image.fromarray(pixels(10 * n + i, 20, 30, 3)).save(folder / "images" / name / f"{i}.jpg")
            listed["train" if i < 3 else "test"].setdefault(name, []).append(f"{name}/{i}")
    for part, value in listed.items():
        (folder / "meta" / f"{part}.json").write_text(json.dumps(value))


def write_eurosat(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for n, name in enumerate(("River", "Forest")):
        folder = root / "eurosat" / "2750" / name
        folder.mkdir(parents=True)
        for i in range(10):
            Image.fromarray(pixels(20 * n + i, 64, 64, 3)).save(folder / f"{name}_{i}.jpg")


WRITERS = {
    "cifar10": (write_cifar10, 20, 4, 10, (32, 32)),
    "cifar100": (write_cifar100, 6, 4, 100, (32, 32)),
    "stl10": (write_stl10, 5, 4, 10, (96, 96)),
    "stl10-unlabeled": (write_stl10, 7, 4, 0, (96, 96)),
    "svhn": (write_svhn, 6, 3, 10, (32, 32)),
    "fashionmnist": (write_fashionmnist, 6, 4, 10, (28, 28)),
    "flowers102": (write_flowers102, 5, 4, 102, (20, 30)),
    "food101": (write_food101, 6, 4, 2, (20, 30)),
}


def opened(source: str, **settings: Any) -> Data:
    return open_data(DataConfig(source=source, **settings), image_size=28)


def test_every_set_has_a_fixture_here() -> None:
    assert {*WRITERS, "eurosat", "imagenet", *SCENES} == set(SOURCES)


@pytest.mark.parametrize("name", list(WRITERS))
def test_a_set_is_read_as_torchvision_reads_it(
    name: str, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, train, test, classes, size = WRITERS[name]
    write(tmp_path / "root", monkeypatch)
    source = f"{name}:{tmp_path / 'root'}"
    data = opened(source)
    assert (data.name, data.synthetic, data.bad, data.ignored) == (name, False, (), 0)
    assert (len(data.train), len(data.test), len(data.classes)) == (train, test, classes)
    assert data.split_rule == f"train and test of {name}"
    assert data.train[0].shape == (*size, 3)
    how = sets._SETS[name]
    for images, parts in ((data.train, how.train), (data.test, how.test)):
        pairs = [pair for given in parts for pair in getattr(torchvision, how.kind)(tmp_path / "root", **given)]
        # A set of files comes in the order of their names, one of arrays in its own.
        expected = sorted((np.asarray(image.convert("RGB")).tobytes(), int(label)) for image, label in pairs)
        labels = [-1] * len(images) if images.labels is None else images.labels.tolist()
        found = sorted((images[i].tobytes(), labels[i]) for i in range(len(images)))
        if how.kind in ("Flowers102", "Food101"):  # JPEG decoders differ by a level
            assert sorted(label for _, label in found) == sorted(label for _, label in expected)
        elif classes:
            assert found == expected
        else:
            assert [image for image, _ in found] == [image for image, _ in expected]
            assert (data.train.labels, data.test.labels) == (None, None)
    assert len({data.train.name(i) for i in range(train)}) == train
    with monkeypatch.context() as absent:  # the store is enough from now on
        absent.setattr(sets.NamedSet, "_load", None)
        assert opened(source).fingerprint == data.fingerprint
    listing = list_source(source)
    assert sample(listing, 3, 16)[0] == train + test
    listing.close()


def test_arrays_are_named_by_part_and_number_and_svhn_has_digits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_svhn(tmp_path, monkeypatch)
    data = opened(f"svhn:{tmp_path}")
    assert [data.test.name(i) for i in range(3)] == ["svhn:test:0", "svhn:test:1", "svhn:test:2"]
    assert data.classes == tuple("0123456789")
    assert data.train.labels is not None
    assert data.train.labels.tolist() == [0, 1, 2, 3, 4, 5]


def test_a_gray_set_can_stay_gray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_fashionmnist(tmp_path, monkeypatch)
    data = opened(f"fashionmnist:{tmp_path}", channels=1)
    assert np.array_equal(data.train[2][:, :, 0], pixels(0, 6, 28, 28)[2])


def test_eurosat_has_no_test_part_and_is_divided_by_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_eurosat(tmp_path, monkeypatch)
    data = opened(f"eurosat:{tmp_path}")
    assert len(data.train) + len(data.test) == 20
    assert (data.classes, data.split_rule) == (("Forest", "River"), "80/20 by content hash")
    assert data.test.labels is not None
    for i, label in enumerate(data.test.labels.tolist()):
        assert data.test.name(i).startswith(f"eurosat/2750/{data.classes[label]}/")


def test_a_missing_or_broken_image_of_a_set_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_food101(tmp_path, monkeypatch)
    (tmp_path / "food-101/images/waffles/1.jpg").unlink()
    (tmp_path / "food-101/images/waffles/2.jpg").write_bytes(b"")
    for _ in range(2):  # remembered by the store
        data = opened(f"food101:{tmp_path}", max_bad_fraction=0.5)
        assert {item.path: item.reason for item in data.bad} == {
            "food-101/images/waffles/1.jpg": "no such file",
            "food-101/images/waffles/2.jpg": "empty file",
        }
        assert (data.classes, len(data.train), len(data.test)) == (("apple_pie", "waffles"), 4, 4)


def test_imagenet_is_a_folder_with_train_and_val(tmp_path: Path) -> None:
    for n, part in enumerate(("train", "val", "test")):
        for m, name in enumerate(("n01", "n02")):
            folder = tmp_path / part / (name if part != "test" else "")
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels(10 * n + m, 40, 30, 3)).save(folder / f"{m}.JPEG")
    data = opened(f"imagenet:{tmp_path}")
    assert (data.name, data.classes, len(data.train), len(data.test)) == ("imagenet", ("n01", "n02"), 2, 2)
    assert data.split_rule == "folders train/ and val/"
    assert data.test.labels is not None
    assert data.test.labels.tolist() == [0, 1]


def test_imagenet_without_its_folder_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(
        MissingInputError, match=r"no train/ and no val/ in .*sets/imagenet; .* --data imagenet:/FOLDER"
    ):
        opened("imagenet")
    (tmp_path / "train").mkdir()
    with pytest.raises(MissingInputError, match=r"imagenet has no val/ in "):
        opened(f"imagenet:{tmp_path}")


@pytest.mark.parametrize("name", [*WRITERS, "eurosat"])
def test_without_a_network_the_error_says_which_files_to_put_where(name: str, cache: Path) -> None:
    how = sets._SETS[name]
    with pytest.raises(MissingInputError) as error:
        opened(name)
    said = str(error.value)
    folder = cache / "sets" / name.removesuffix("-unlabeled")
    assert said.startswith(f"data.source: {name} is not whole in {folder} and could not be downloaded (")
    assert f"without a network, put {how.needs} into {folder / how.below}".rstrip("/") in said
    assert f"--data {name}:/FOLDER" in said
    assert "\n" not in said
    assert not [path for path in cache.iterdir() if path.is_dir() and path.name != "sets"]  # no half store


def test_what_the_error_asks_for_is_enough(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FashionMNIST's archives where the sentence says, not unpacked."""
    write_fashionmnist(cache / "sets" / "fashionmnist", monkeypatch)
    assert len(opened("fashionmnist").train) == 6


def test_files_of_another_content_are_not_taken_for_the_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pickle is code: CIFAR's are opened by torchvision only where they are the ones it knows."""
    with monkeypatch.context() as written:
        write_cifar10(tmp_path, written)
    with pytest.raises(MissingInputError, match="cifar10 is not whole in"):
        opened(f"cifar10:{tmp_path}")


@pytest.mark.parametrize("typed", ["cifar01", "cifar01:/data", "fasionmnist", "imagnet:/data"])
def test_a_name_that_is_nearly_one_names_it(typed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    meant = {"cifar01": "cifar10", "fasionmnist": "fashionmnist", "imagnet": "imagenet"}[typed.partition(":")[0]]
    with pytest.raises(MissingInputError, match=rf"did you mean {meant}{typed.partition(':')[1]}"):
        opened(typed)


def test_a_root_that_is_not_there_is_an_error() -> None:
    with pytest.raises(MissingInputError, match=r"no such folder: /nowhere, which cifar10 is to be read from"):
        opened("cifar10:/nowhere")


def test_the_presets_that_name_a_set_name_one_that_is_known() -> None:
    for preset in ("simsiam/cifar10", "simsiam/imagenet"):
        assert recipe_named(preset).data.source in SOURCES


def test_the_time_a_download_may_be_silent_is_given_back(tmp_path: Path) -> None:
    import socket

    before = socket.getdefaulttimeout()
    with pytest.raises(MissingInputError):
        opened("cifar10")
    assert socket.getdefaulttimeout() == before
    assert os.environ["STOPGRAD_CACHE"] == str(tmp_path / "cache")


def test_a_disk_that_is_full_while_a_set_is_downloaded_is_said(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torchvision, "CIFAR10", full)
    with pytest.raises(StorageError, match=r"can't be written \(No space left on device, .* MB free\)"):
        open_data(DataConfig(source="cifar10"), image_size=32)
