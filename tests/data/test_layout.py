"""What the folders of a source say about splits and classes, by their names alone."""

import numpy as np
import pytest

from stopgrad.contracts import DataError
from stopgrad.data.layout import TEST, TRAIN, UNUSED, Layout, read_layout


def layout(*names: str) -> Layout:
    return read_layout(name.encode() for name in names)


def test_a_flat_folder_has_no_labels_and_no_test() -> None:
    found = layout("a.jpg", "b.jpg")
    assert found.classes == ()
    assert found.labels.tolist() == [-1, -1]
    assert found.split.tolist() == [TRAIN, TRAIN]
    assert found.rule == ""
    assert found.notes == ()


def test_class_folders_are_numbered_by_name() -> None:
    found = layout("dog/1.jpg", "cat/1.jpg", "cat/2.jpg", "ant/1.jpg")
    assert found.classes == ("ant", "cat", "dog")
    assert found.labels.tolist() == [2, 1, 1, 0]
    assert found.rule == ""


@pytest.mark.parametrize("prefix", ["photos/", "archive/photos/"])
def test_a_lone_folder_around_everything_is_looked_through(prefix: str) -> None:
    assert layout(f"{prefix}cat/1.jpg", f"{prefix}dog/1.jpg").classes == ("cat", "dog")
    assert layout(f"{prefix}1.jpg", f"{prefix}2.jpg").classes == ()
    assert layout(f"{prefix}train/1.jpg", f"{prefix}test/1.jpg").rule == "folders train/ and test/"


def test_a_single_class_folder_is_no_label() -> None:
    assert layout("cat/1.jpg", "cat/2.jpg").classes == ()


@pytest.mark.parametrize("stray", ["3.jpg", "cat/more/3.jpg"])
def test_images_elsewhere_than_in_class_folders_cost_the_labels_and_it_is_said(stray: str) -> None:
    found = layout("cat/1.jpg", "dog/1.jpg", stray)
    assert found.classes == ()
    assert set(found.labels.tolist()) == {-1}
    assert "no labels: 2 folders look like classes" in found.notes[0]


@pytest.mark.parametrize("test", ["test", "val", "Validation", "TEST"])
def test_train_and_test_folders_are_the_split(test: str) -> None:
    found = layout("train/cat/1.jpg", "train/dog/1.jpg", f"{test}/dog/9.jpg", f"{test}/cat/9.jpg")
    assert found.split.tolist() == [TRAIN, TRAIN, TEST, TEST]
    assert found.labels.tolist() == [0, 1, 1, 0]
    assert found.rule == f"folders train/ and {test.lower()}/"


def test_flat_train_and_test_folders_have_no_labels() -> None:
    found = layout("train/1.jpg", "test/2.jpg")
    assert found.split.tolist() == [TRAIN, TEST]
    assert found.classes == ()


def test_beside_test_val_is_left_out_and_named() -> None:
    found = layout("train/1.jpg", "val/1.jpg", "test/1.jpg", "extra/1.jpg", "0.jpg")
    assert found.split.tolist() == [TRAIN, UNUSED, TEST, UNUSED, UNUSED]
    assert found.notes == ("images outside train/ and test/ are not used: beside them, extra/, val/",)


def test_train_alone_is_the_source_and_the_rest_is_left_out() -> None:
    found = layout("train/cat/1.jpg", "train/dog/1.jpg", "masks/1.png")
    assert found.split.tolist() == [TRAIN, TRAIN, UNUSED]
    assert found.classes == ("cat", "dog")
    assert found.labels.tolist() == [0, 1, -1]
    assert found.rule == ""
    assert found.notes == ("images outside train/ are not used: masks/",)
    assert layout("train/cat/1.jpg", "train/dog/1.jpg").classes == ("cat", "dog")


def test_a_class_of_the_test_that_training_lacks_is_an_error_with_the_nearest_name() -> None:
    with pytest.raises(DataError, match=r"training part lacks: dgo; did you mean 'dog'\?.*same names"):
        layout("train/cat/1.jpg", "train/dog/1.jpg", "test/cat/1.jpg", "test/dgo/1.jpg")


def test_a_class_without_a_test_image_is_noted() -> None:
    found = layout("train/cat/1.jpg", "train/dog/1.jpg", "test/cat/1.jpg")
    assert found.classes == ("cat", "dog")
    assert found.notes == ("classes without a test image: dog",)


def test_a_test_without_class_folders_costs_the_labels_and_it_is_said() -> None:
    found = layout("train/cat/1.jpg", "train/dog/1.jpg", "test/1.jpg")
    assert found.classes == ()
    assert found.labels.tolist() == [-1, -1, -1]
    assert "no labels" in found.notes[0]


def test_a_common_folder_inside_both_parts_is_looked_through() -> None:
    names = ("train/images/cat/1.jpg", "train/images/dog/1.jpg", "test/images/cat/1.jpg", "test/images/dog/1.jpg")
    assert layout(*names).classes == ("cat", "dog")


def test_a_class_name_that_is_not_utf8_is_escaped() -> None:
    assert read_layout([b"caf\xe9/1.jpg", b"<b>/1.jpg"]).classes == ("<b>", "caf\\xe9")


def test_no_image_is_no_layout() -> None:
    found = read_layout([])
    assert found.labels.dtype == np.int64
    assert len(found.split) == 0
