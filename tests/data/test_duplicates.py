"""Copies byte for byte and by their looks: banding against all pairs, changes that must not hide a copy, no chains."""

import tracemalloc

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from stopgrad.data import duplicates
from stopgrad.data.duplicates import DISTANCE, Looks, exact_groups, looks, near_groups, near_pairs


def picture(seed: int, side: int = 96, channels: int = 3) -> NDArray[np.uint8]:
    """A picture with structure at all scales, as photographs have."""
    random = np.random.default_rng(seed)
    layers = [
        np.asarray(cv2.resize(random.normal(size=(n, n, 3)), (side, side), interpolation=cv2.INTER_CUBIC)) * 40 / n
        for n in (2, 4, 8, 16)
    ]
    return np.clip(128 + 4 * sum(layers), 0, 255).astype(np.uint8)[:, :, :channels]


def test_equal_contents_are_grouped_and_the_largest_group_comes_first() -> None:
    groups = exact_groups(np.array([7, 1, 7, 2, 1, 7, 3], np.uint64))
    assert [group.tolist() for group in groups] == [[0, 2, 5], [1, 4]]
    assert exact_groups(np.array([1, 2, 3], np.uint64)) == []
    assert exact_groups(np.empty(0, np.uint64)) == []


@pytest.mark.parametrize("distance", [0, 3, DISTANCE])
def test_banding_finds_the_same_pairs_as_comparing_all(distance: int) -> None:
    random = np.random.default_rng(0)
    centres = random.integers(0, 2**63, 40).astype(np.uint64)
    flips = np.uint64(1) << random.integers(0, 64, (400, 8)).astype(np.uint64)  # up to 8 bits beside a centre
    used = random.random((400, 8)) < 0.5
    near = centres[random.integers(0, 40, 400)] ^ np.bitwise_xor.reduce(np.where(used, flips, np.uint64(0)), axis=1)
    hashes = np.unique(near)
    bits = np.bitwise_count(hashes[:, None] ^ hashes)
    expected = {(i, j) for i, j in zip(*np.nonzero(bits <= distance)) if i < j}
    pairs = near_pairs(hashes, distance)
    assert pairs is not None
    assert sorted(map(tuple, pairs.tolist())) == sorted((int(i), int(j)) for i, j in expected)  # each once
    assert distance == 0 or expected


@pytest.mark.parametrize(
    "change",
    [
        lambda x: cv2.imdecode(cv2.imencode(".jpg", x, [cv2.IMWRITE_JPEG_QUALITY, 60])[1], cv2.IMREAD_COLOR),
        lambda x: cv2.resize(x, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
        lambda x: np.clip(x * 1.1 + 8, 0, 255).astype(np.uint8),
        lambda x: x.astype(np.uint16) * 257,
    ],
    ids=["jpeg", "half", "brighter", "16 bits"],
)
def test_a_copy_that_was_changed_a_little_is_found_and_nothing_else(change: object) -> None:
    images = [picture(seed) for seed in range(40)]
    copies = [change(images[i]) for i in (3, 17)]  # type: ignore[operator]
    groups = near_groups(looks([*images, *copies]))
    assert sorted(group.tolist() for group in groups) == [[3, 40], [17, 41]]


def test_colour_tells_pictures_apart_that_are_equal_in_gray() -> None:
    red, blue = np.full((64, 64, 3), 40, np.uint8), np.full((64, 64, 3), 40, np.uint8)
    for image, channel in ((red, 0), (blue, 2)):
        image[10:50, 20:40, channel] = 240
    found = looks([red, blue])
    assert found.hashes[0] == found.hashes[1]
    assert near_groups(found) == []


def test_images_of_one_colour_are_known_as_such_and_resemble_nothing() -> None:
    found = looks([np.full((40, 30, 1), 9, np.uint8), np.full((40, 30, 1), 9, np.uint8), picture(0, 40)[:, :, :1]])
    assert found.flat.tolist() == [True, True, False]
    assert near_groups(found) == []


def test_a_chain_of_small_steps_is_not_one_group() -> None:
    start, end = picture(1).astype(np.float64), picture(2).astype(np.float64)
    chain = [((1 - t) * start + t * end).astype(np.uint8) for t in np.linspace(0, 1, 25)]
    groups = near_groups(looks(chain))
    assert groups
    assert max(len(group) for group in groups) < 20
    members = [int(i) for group in groups for i in group]
    assert len(members) == len(set(members))


def test_ten_thousand_copies_and_thousands_of_others_take_no_pairwise_time() -> None:
    random = np.random.default_rng(0)
    one = looks([picture(0)])
    hashes = np.concatenate([np.repeat(one.hashes, 10_000), random.integers(0, 2**63, 10_000).astype(np.uint64)])
    thumbs = np.concatenate([np.repeat(one.thumbs, 10_000, axis=0), random.normal(size=(10_000, one.thumbs.shape[1]))])
    groups = near_groups(type(one)(hashes, thumbs.astype(np.float32)))
    assert [len(group) for group in groups][:1] == [10_000]


def test_images_of_many_bands_have_looks_too() -> None:
    bands = [np.concatenate([picture(seed), picture(seed + 50)], axis=2) for seed in range(3)]
    assert [group.tolist() for group in near_groups(looks([*bands, bands[1]]))] == [[1, 3]]


def test_images_that_share_a_hash_stay_together_beside_a_near_one() -> None:
    thumbs = np.tile(looks([picture(0)]).thumbs, (4, 1))
    hashes = np.array([5, 4, 4, 5], np.uint64)  # two of each, one bit apart
    assert [group.tolist() for group in near_groups(Looks(hashes, thumbs))] == [[0, 1, 2, 3]]


def test_thousands_of_frames_that_all_look_alike_are_held_in_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "MOST_PAIRS", 10_000)
    thumbs = np.tile(looks([picture(0)]).thumbs, (1_000, 1))
    bits = np.uint64(1) << np.random.default_rng(0).integers(0, 64, (1_000, 4)).astype(np.uint64)
    frames = Looks(np.bitwise_xor.reduce(bits, axis=1), thumbs)  # hashes at most 8 bits apart, most of them different
    assert near_pairs(np.unique(frames.hashes), DISTANCE) is None
    tracemalloc.start()
    groups = near_groups(frames)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert groups  # the closest of them
    assert peak < 64e6
