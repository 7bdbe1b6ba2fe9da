"""From a folder, or the embedded scenes, to two splits: split, labels, bad files, notes, fingerprint, cache."""

import csv
import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stopgrad.contracts import ConfigError, DataError, MissingInputError
from stopgrad.data import BadFilesError, Data, DataConfig, from_listing, listing, open_data, write_bad_files
from stopgrad.data.from_listing import split_by_content
from stopgrad.data.layout import TEST, TRAIN
from stopgrad.data.sources import absolute
from tests.conftest import REAL_DATA


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STOPGRAD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    return tmp_path / "photos"


def image(path: Path, value: int, size: tuple[int, int] = (16, 12)) -> None:
    """Image `value`: every value another picture, of one size."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(value).integers(0, 256, (size[1], size[0], 3), np.uint8)
    pixels[0, 0] = value % 256
    Image.fromarray(pixels).save(path, "PNG")


def opened(source: Path, **settings: Any) -> Data:
    return open_data(DataConfig(source=str(source), **settings), image_size=16)


def numbers(images: Any) -> list[int]:
    return [int(images[i][0, 0, 0]) for i in range(len(images))]


def test_a_flat_folder_is_divided_by_content_and_has_no_labels(source: Path) -> None:
    for i in range(100):
        image(source / f"{i:03}.png", i)
    data = opened(source)
    expected = [
        i
        for i in range(100)
        if int.from_bytes(hashlib.blake2b((source / f"{i:03}.png").read_bytes(), digest_size=8).digest(), "little") % 5
    ]
    assert numbers(data.train) == expected
    assert sorted(numbers(data.train) + numbers(data.test)) == list(range(100))
    assert 10 <= len(data.test) <= 30
    assert (data.train.labels, data.test.labels, data.classes) == (None, None, ())
    assert data.split_rule == "80/20 by content hash"
    assert (data.name, data.synthetic, data.bad, data.ignored, data.notes) == ("photos", False, (), 0, ())


def test_names_have_no_say_in_the_split(source: Path, tmp_path: Path) -> None:
    for i in range(40):
        image(source / f"{i}.png", i)
        image(tmp_path / "renamed" / f"{(i * 7) % 40}.png", i)
    assert set(numbers(opened(source).test)) == set(numbers(opened(tmp_path / "renamed").test))


def test_train_and_test_folders_with_classes_keep_their_split_and_labels(source: Path) -> None:
    for i in range(12):
        image(source / ("train" if i < 8 else "test") / ("dog" if i % 2 else "cat") / f"{i}.png", i)
    data = opened(source)
    assert numbers(data.train) == [0, 2, 4, 6, 1, 3, 5, 7]
    assert numbers(data.test) == [10, 8, 11, 9]  # in the order of names: 10 before 8
    assert data.classes == ("cat", "dog")
    assert data.train.labels is not None
    assert data.test.labels is not None
    assert data.train.labels.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert data.test.labels.tolist() == [0, 0, 1, 1]
    assert data.split_rule == "folders train/ and test/"


def test_class_folders_without_a_test_are_divided_and_labelled(source: Path) -> None:
    for i in range(40):
        image(source / ("b" if i % 2 else "a") / f"{i:02}.png", i)
    data = opened(source)
    for images in (data.train, data.test):
        assert images.labels is not None
        assert images.labels.tolist() == [number % 2 for number in numbers(images)]


def test_a_class_that_only_the_test_has_is_an_error(source: Path) -> None:
    for name in ("train/cat", "train/dog", "test/cat", "test/dgo"):
        image(source / name / "1.png", 1)
    with pytest.raises(DataError, match="did you mean 'dog'"):
        opened(source)


def test_copies_stay_on_one_side_and_are_counted(source: Path) -> None:
    for i in range(20):
        for copy in range(4):
            image(source / f"{copy}-{i}.png", i)
    data = opened(source)
    assert len(data.train) + len(data.test) == 80
    assert not set(numbers(data.train)) & set(numbers(data.test))
    assert data.notes[0].startswith("60 of 80 images are duplicates of others")
    assert "little to learn" in data.notes[0]


def test_images_that_are_all_the_same_file_are_said_to_be(source: Path) -> None:
    for i in range(10):
        image(source / f"{i}.png", 7)
    data = opened(source)
    assert (len(data.train), len(data.test)) == (8, 2)
    assert data.notes[0] == "all 10 images are the same file: training and test hold copies of it"


def test_test_images_that_training_has_too_are_counted(source: Path) -> None:
    for i in range(10):
        image(source / "train" / f"{i}.png", i)
    image(source / "val" / "a.png", 3)
    image(source / "val" / "b.png", 99)
    assert "1 of 2 test images are in the training part too, byte for byte" in opened(source).notes


def test_images_of_one_colour_are_said_to_be(source: Path) -> None:
    for i in range(4):
        Image.new("RGB", (16, 16), (i, i, i)).save(source / f"{i}.png")
    assert "4 of 4 images are of one colour: there is nothing to learn from the data" in opened(source).notes


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
def test_no_part_is_empty_however_few_the_images(source: Path, count: int) -> None:
    for i in range(count):
        image(source / f"{i}.png", i)
    data = opened(source)
    assert len(data.train) >= 1
    assert len(data.test) >= 1
    if count == 1:
        assert "there is only one image: it is the test as well" in data.notes


@pytest.mark.parametrize("values", [[5, 10, 15], [1, 2, 3], [5, 5, 10], [3, 3, 3, 4]])
def test_a_split_by_content_always_has_two_sides_that_share_nothing(values: list[int]) -> None:
    hashes = np.array(values, np.uint64)
    split = split_by_content(hashes)
    assert set(split.tolist()) == {TRAIN, TEST}
    assert not set(hashes[split == TRAIN].tolist()) & set(hashes[split == TEST].tolist())


def flawed(source: Path) -> dict[str, str]:
    """40 good images, 6 bad ones; what is to be said of the bad."""
    for i in range(40):
        image(source / f"good-{i:02}.png", i)
    whole = (source / "good-00.png").read_bytes()
    (source / "cut.png").write_bytes(whole[: len(whole) // 2])
    (source / "empty.jpg").touch()
    (source / "page.jpg").write_text("<html>")
    os.mkfifo(source / "fifo.jpg")
    (source / "gone.gif").symlink_to("nowhere")
    image(source / "=thin\n.png", 0, (300, 3))
    return {
        "\\x3dthin\\x0a.png": "300x3 pixels: shorter side below 8 (data.min_side)",
        "cut.png": "truncated PNG (image file is truncated)",
        "empty.jpg": "empty file",
        "fifo.jpg": "not a regular file (FIFO)",
        "gone.gif": "link to a file that is not there",
        "page.jpg": "not an image (looks like HTML)",
    }


def test_a_bad_image_is_named_and_skipped(source: Path, tmp_path: Path) -> None:
    expected = flawed(source)
    data = opened(source, max_bad_fraction=0.2)
    found = {item.path: item.reason for item in data.bad}
    assert found.keys() == expected.keys()
    assert found | {"cut.png": expected["cut.png"]} == expected
    assert found["cut.png"].startswith(("truncated PNG", "corrupt PNG"))
    assert sorted(numbers(data.train) + numbers(data.test)) == list(range(40))
    write_bad_files(data.bad, tmp_path / "bad_files.csv")
    with (tmp_path / "bad_files.csv").open(newline="") as file:
        assert dict(list(csv.reader(file))[1:]) == found
    again = opened(source, max_bad_fraction=0.2)
    assert again.bad == data.bad


def test_too_many_bad_images_stop_the_run_and_are_all_named(source: Path, cache: Path) -> None:
    expected = flawed(source)
    with pytest.raises(BadFilesError, match=r"6 of 46 image files are bad, 13.0 % where .* allows 5 %.*=0.14") as error:
        opened(source)
    assert {item.path for item in error.value.bad} == set(expected)
    stores = [path.name for path in cache.iterdir() if path.is_dir()]
    opened(source, max_bad_fraction=0.14)
    assert [path.name for path in cache.iterdir() if path.is_dir()] == stores  # nothing is decoded again


def test_a_folder_of_bad_images_only_is_an_error_that_names_them(source: Path) -> None:
    (source / "a.jpg").touch()
    os.mkfifo(source / "b.jpg")
    with pytest.raises(BadFilesError, match="2 of 2 image files are bad") as error:
        opened(source, max_bad_fraction=1.0)
    assert [item.path for item in error.value.bad] == ["a.jpg", "b.jpg"]
    (source / "a.jpg").unlink()
    with pytest.raises(BadFilesError, match="1 of 1 image files are bad"):
        opened(source)


def test_a_bad_image_has_no_say_in_the_layout(source: Path) -> None:
    for i in range(10):
        image(source / ("b" if i % 2 else "a") / f"{i}.png", i)
    (source / "stray.jpg").write_text("<html>")
    assert opened(source, max_bad_fraction=0.2).classes == ("a", "b")


def test_a_file_that_is_gone_or_shut_when_it_is_read_is_skipped_after_a_second_try(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(10):
        image(source / f"{i}.png", i)
    errors = {b"3.png": FileNotFoundError(2, "No such file"), b"4.png": PermissionError(13, "Permission denied")}
    tried: list[bytes] = []
    real = listing.read_regular

    def read(path: bytes, limit: int) -> bytes:
        name = path.rpartition(b"/")[2]
        tried.append(name)
        if name in errors or (name == b"5.png" and tried.count(name) == 1):
            raise errors.get(name, OSError(5, "Input/output error"))
        return real(path, limit)

    monkeypatch.setattr(listing, "read_regular", read)
    data = opened(source, max_bad_fraction=0.5)
    assert [(item.path, item.reason) for item in data.bad] == [
        ("3.png", "gone since the folder was listed"),
        ("4.png", "permission denied"),
    ]
    assert (tried.count(b"3.png"), tried.count(b"5.png"), tried.count(b"6.png")) == (2, 2, 1)


def test_a_file_larger_than_any_allowed_image_is_not_read(source: Path) -> None:
    image(source / "a.png", 1)
    with (source / "huge.tif").open("wb") as file:
        file.truncate(900_000_000)
    data = opened(source, max_bad_fraction=0.5)
    assert data.bad[0].reason == "900 MB, more than any image of 50 Mpx"


def test_no_such_folder_names_the_nearest(source: Path) -> None:
    with pytest.raises(MissingInputError, match=r"no such folder: .*/photso; did you mean .*/photos\?"):
        opened(source.with_name("photso"))
    with pytest.raises(MissingInputError, match=r"no such folder: scnes; did you mean scenes\?"):
        open_data(DataConfig(source="scnes"), 32)
    with pytest.raises(MissingInputError, match="it is looked for in"):
        open_data(DataConfig(source="/nowhere/at/all"), 32)


def test_a_source_on_the_disk_can_be_said_from_any_folder(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(source.parent)
    (source.parent / "cifar10").mkdir()
    said = {"photos": str(source), "cifar10:photos": f"cifar10:{source}", "hf:./photos": f"hf:{source}"}
    said |= {name: name for name in ("cifar10", "cifar10:/nowhere", "hf:owner/name", "nowhere", "scenes")}
    assert {name: absolute(name) for name in said} == said


@pytest.mark.parametrize("name", ["images.7z", "a.png", "labels.csv", "images.tar.bz2"])
def test_a_file_of_another_kind_is_an_error_that_names_the_kinds(source: Path, name: str) -> None:
    image(source / name, 1)
    with pytest.raises(MissingInputError, match=rf"{name} is a file of another kind; needed is .*\.tar\.gz.*\.txt"):
        opened(source / name)


def test_a_folder_without_an_image_says_what_it_looked_for_and_what_is_there(source: Path) -> None:
    with pytest.raises(MissingInputError, match=r"looked for .jpg .jpeg .* found no file at all"):
        opened(source)
    for i in range(3):
        (source / f"{i}.txt").touch()
    (source / "b.csv").touch()
    with pytest.raises(MissingInputError, match=r"no image in .*photos: .*; found 3 .txt, 1 .csv"):
        opened(source)


def test_what_is_ignored_is_counted(source: Path) -> None:
    image(source / "a.png", 1)
    (source / "labels.csv").touch()
    data = opened(source)
    assert data.ignored == 1
    assert "files that are no images, ignored: 1 (1 .csv)" in data.notes


def test_conversions_are_noted_once_with_their_number(source: Path) -> None:
    for i in range(3):
        Image.new("RGBA", (16, 16), (i, 0, 0, 100)).save(source / f"alpha{i}.png")
    image(source / "plain.png", 1)
    assert "3 of 4 images had transparency, laid on white" in opened(source).notes


def tree(root: Path) -> dict[str, tuple[str, int]]:
    return {
        str(path): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in root.rglob("*")
        if path.is_file()
    }


def test_the_source_is_never_modified_and_may_be_read_only(source: Path) -> None:
    for i in range(10):
        image(source / "sub" / f"{i}.png", i)
    before = tree(source)
    for folder in (source / "sub", source):
        folder.chmod(0o500)
    try:
        opened(source)
    finally:
        for folder in (source, source / "sub"):
            folder.chmod(0o700)
    assert tree(source) == before


def test_a_second_time_nothing_is_decoded(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(10):
        image(source / f"{i}.png", i)
    first = opened(source)
    monkeypatch.setattr(from_listing, "decode", None)
    again = opened(source)
    assert numbers(again.train) == numbers(first.train)
    assert (again.fingerprint, again.notes, again.split_rule) == (first.fingerprint, first.notes, first.split_rule)


@pytest.mark.parametrize("change", ["add", "remove", "touch", "rename"])
def test_a_changed_folder_gets_a_store_of_its_own(source: Path, cache: Path, change: str) -> None:
    for i in range(10):
        image(source / f"{i}.png", i)
    first = opened(source)
    if change == "add":
        image(source / "new.png", 200)
    elif change == "remove":
        (source / "3.png").unlink()
    elif change == "touch":
        os.utime(source / "3.png", ns=(1, 1))
    else:
        (source / "3.png").rename(source / "z.png")
    second = opened(source)
    assert len([path for path in cache.iterdir() if path.is_dir()]) == 2
    assert (second.fingerprint == first.fingerprint) == (change == "touch")  # content, order


def test_settings_that_shape_pixels_have_a_store_each(source: Path, cache: Path) -> None:
    for i in range(10):
        image(source / f"{i}.png", i, (64, 48))
    one = [opened(source), opened(source, channels=1), opened(source, max_side=32), opened(source, min_side=9)]
    assert len({data.fingerprint for data in one}) == 4
    assert [data.train[0].shape for data in one] == [(48, 64, 3), (48, 64, 1), (24, 32, 3), (48, 64, 3)]
    assert len([path for path in cache.iterdir() if path.is_dir()]) == 4


def test_a_moved_folder_keeps_its_fingerprint(source: Path) -> None:
    for i in range(10):
        image(source / f"{i}.png", i)
    first = opened(source).fingerprint
    moved = shutil.move(source, source.with_name("elsewhere"))
    assert opened(Path(moved)).fingerprint == first


def test_a_limit_takes_training_images_by_content_and_leaves_the_test(source: Path, tmp_path: Path) -> None:
    for i in range(60):
        image(source / f"{i}.png", i)
        image(tmp_path / "renamed" / f"{(i * 7) % 60}.png", i)
    whole, some = opened(source), opened(source, limit=12)
    assert len(some.train) == 12
    assert set(numbers(some.train)) == set(numbers(opened(tmp_path / "renamed", limit=12).train))
    assert set(numbers(some.train)) < set(numbers(whole.train))
    assert numbers(some.test) == numbers(whole.test)
    assert some.fingerprint != whole.fingerprint
    assert set(numbers(opened(source, limit=5).train)) < set(numbers(some.train))
    beyond = opened(source, limit=1000)
    assert len(beyond.train) == len(whole.train)
    assert any("data.limit=1,000, but there are" in note for note in beyond.notes)


def test_progress_is_told_for_every_image_once(source: Path) -> None:
    for i in range(40):
        image(source / f"{i}.png", i)
    told: list[tuple[int, int]] = []
    open_data(DataConfig(source=str(source)), 16, progress=lambda done, total: told.append((done, total)))
    assert told == [(i + 1, 40) for i in range(40)]


def test_crops_larger_than_what_is_kept_are_noted(source: Path) -> None:
    image(source / "a.png", 1)
    data = open_data(DataConfig(source=str(source), max_side=32), image_size=64)
    assert "images are kept at 32 pixels (data.max_side), fewer than the 64 of a crop" in data.notes


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"source": ""}, "data.source: empty"),
        ({"channels": 0}, "data.channels: must be a number from 1 to 64, got 0"),
        ({"channels": 65}, "data.channels: .* got 65"),
        ({"depth": 12}, "data.depth: must be 8 or 16 bits, got 12"),
        ({"limit": -1}, "data.limit: must be 0 .* got -1"),
        ({"min_side": 0}, "data.min_side: .* got 0; the default is 8"),
        ({"max_side": 31}, "data.max_side: must be 32 .* got 31; the default is 512"),
        ({"min_side": 40, "max_side": 39}, "data.max_side: must be 40"),
        ({"max_bad_fraction": 1.5}, "data.max_bad_fraction: .* got 1.5; the default is 0.05"),
        ({"max_megapixels": 0.0}, "data.max_megapixels: .* got 0.0; the default is 50"),
    ],
)
def test_a_setting_that_can_not_be_is_an_error_with_what_can(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        DataConfig(**settings)


@pytest.mark.real_data
def test_a_real_gray_set_opens_whole(tmp_path: Path) -> None:
    """NEU, 1,800 steel surfaces of 200 x 200 in gray, from the data sets that stand beside a checkout."""
    archive = REAL_DATA / "neu.tar.gz"
    if not archive.is_file():
        pytest.skip(f"{archive} is not there: this test uses a real data set that is not part of the project")
    shutil.unpack_archive(archive, tmp_path / "neu", filter="data")
    data = opened(tmp_path / "neu", channels=1)
    assert (len(data.train), len(data.test), len(data.classes), data.bad) == (1440, 360, 6, ())
    assert data.train[0].shape == (200, 200, 1)
    assert opened(archive, channels=1).fingerprint == data.fingerprint  # and it need not be unpacked


@pytest.mark.parametrize(
    "name", ["~nobody-of-this-name/x", "cifar10:~nobody-of-this-name/x", "hf:~nobody-of-this-name/x"]
)
def test_the_home_of_nobody_is_no_such_folder(name: str) -> None:
    if name.startswith("hf:"):
        pytest.importorskip("datasets", reason="the extra hf is not installed")
    assert absolute(name) == name
    with pytest.raises(MissingInputError, match="no such folder: ~nobody-of-this-name/x"):
        open_data(DataConfig(source=name), image_size=32)


def test_a_name_that_no_file_can_have_is_an_error_in_one_sentence() -> None:
    name = "x" * 5000
    assert absolute(name) == name
    with pytest.raises(MissingInputError, match=r"x can't be read \(file name too long\)$"):
        open_data(DataConfig(source=name), image_size=32)
