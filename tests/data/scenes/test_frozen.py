"""`scenes-v1` is frozen, so that numbers on it can be compared between commits: a change is another version."""

import hashlib

import numpy as np
import pytest

from stopgrad.data import scenes

PARAMS = "222f311332392dff18d129fd3203c4b540e5edcda8ab39991affc90f94dc8466"
PLACES = ((5, 5), (16, 16), (20, 12), (26, 26))  # row, column at 32 pixels
# Of each class the first training scene: its index, and its colours at PLACES.
PIXELS: dict[str, tuple[int, list[tuple[int, int, int]]]] = {
    "ball": (4, [(116, 89, 108), (54, 55, 57), (75, 87, 102), (58, 31, 54)]),
    "cube": (42, [(204, 180, 186), (149, 132, 139), (84, 92, 65), (37, 62, 62)]),
    "ring": (12, [(95, 66, 83), (103, 90, 79), (83, 74, 59), (49, 69, 44)]),
    "cross": (0, [(30, 42, 61), (190, 190, 197), (115, 108, 85), (102, 122, 92)]),
    "star": (1, [(140, 137, 151), (61, 60, 38), (101, 71, 102), (67, 43, 52)]),
    "urchin": (5, [(71, 76, 49), (104, 106, 106), (90, 80, 60), (66, 45, 71)]),
    "spindle": (6, [(35, 38, 60), (45, 67, 50), (50, 54, 31), (104, 107, 109)]),
    "frame": (2, [(53, 44, 39), (138, 126, 131), (140, 128, 132), (138, 126, 130)]),
    "cluster": (46, [(55, 81, 59), (93, 82, 92), (197, 177, 196), (42, 49, 64)]),
    "grid": (3, [(55, 68, 81), (50, 69, 65), (84, 76, 85), (56, 82, 69)]),
}


def test_the_version_is_the_one_that_was_frozen() -> None:
    assert scenes.VERSION == "scenes-v1"
    assert tuple(PIXELS) == scenes.CLASSES
    assert (scenes.TRAIN, scenes.TEST, scenes.TRAIN_SEED, scenes.TEST_SEED) == (10_000, 2_000, 0, 1)


def test_parameters_are_the_same_to_the_bit_everywhere() -> None:
    digest = hashlib.sha256()
    for seed in (scenes.TRAIN_SEED, scenes.TEST_SEED):
        params = scenes.draw(seed, np.arange(500))
        digest.update(params.label.astype("<i8").tobytes())
        digest.update(params.factors().astype("<f8").tobytes())
    assert digest.hexdigest() == PARAMS


@pytest.mark.parametrize("name", PIXELS)
def test_pixels_are_within_one_level_of_those_that_were_frozen(name: str) -> None:
    number, colours = PIXELS[name]
    rgb, label = scenes.render_rgb(scenes.TRAIN_SEED, np.array([number]), 32)
    assert scenes.CLASSES[label[0]] == name
    rows, columns = np.array(PLACES).T
    assert np.abs(rgb[0, rows, columns].astype(int) - np.array(colours)).max() <= 1
