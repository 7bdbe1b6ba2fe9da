"""The labels that may be known: as many of each class, the same for everybody, and errors with numbers."""

import csv
import io

import numpy as np
import pytest

from stopgrad.contracts import ConfigError, DataError
from stopgrad.data.labels import Amount, Labels, choose, drawn, listed, read_amount, set_aside

NAMES = ("cat", "dog", "fish")


def labels(*counts: int) -> Labels:
    """So many of each class, in a fixed disorder."""
    found = np.repeat(np.arange(len(counts)), counts)
    return np.random.default_rng(0).permutation(found)


def chosen(of: Labels, text: str, seed: int = 0) -> Labels:
    return choose(of, NAMES, read_amount(text), seed, "photos")


def counts(of: Labels, subset: Labels) -> list[int]:
    return np.bincount(of[subset], minlength=len(NAMES)).tolist()


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("1%", Amount("1%", share=0.01)),
        ("0.5 %", Amount("0.5%", share=0.005)),
        ("100%", Amount("100%", share=1.0)),
        (" 10.0% ", Amount("10%", share=0.1)),
        ("5-per-class", Amount("5-per-class", each=5)),
        ("05-per-class", Amount("5-per-class", each=5)),
    ],
)
def test_an_amount_is_a_share_or_a_number_of_each_class(text: str, amount: Amount) -> None:
    assert read_amount(text) == amount


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "needs a share such as 1% or 10%, or a number of each class"),
        ("10", "needs a share such as 1%"),
        ("1,5%", "needs a share such as 1%"),
        ("-1%", "needs a share such as 1%"),
        ("nan%", "needs a share such as 1%"),
        ("5 per class", "5-per-class"),
        ("0%", "above 0 % and at most 100 %"),
        ("101%", "above 0 % and at most 100 %"),
        ("0-per-class", "at least 1 image of each class"),
    ],
)
def test_anything_else_says_what_to_type(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read_amount(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("4-per-class", [4, 4, 4]),
        ("10%", [5, 5, 5]),
        ("2%", [1, 1, 1]),
        ("0.001%", [1, 1, 1]),  # at least one of each
        ("100%", [50, 50, 50]),
    ],
)
def test_every_class_has_as_many(text: str, expected: list[int]) -> None:
    of = labels(50, 50, 50)
    subset = chosen(of, text)
    assert counts(of, subset) == expected
    assert (np.diff(subset) > 0).all()  # each once, in the split's order


def test_a_share_that_the_classes_do_not_divide_is_met_as_evenly_as_it_can_be() -> None:
    of = labels(50, 50, 50)
    found = [counts(of, chosen(of, "10.7%", seed)) for seed in range(30)]
    assert all(sorted(one) == [5, 5, 6] for one in found)
    assert {one.index(6) for one in found} == {0, 1, 2}  # not always the first


@pytest.mark.parametrize(
    ("text", "expected"), [("10%", [3, 6, 6]), ("50%", [3, 36, 36]), ("80%", [3, 50, 67]), ("100%", [3, 50, 97])]
)
def test_where_a_class_ends_the_others_fill_up(text: str, expected: list[int]) -> None:
    of = labels(3, 50, 97)
    assert counts(of, chosen(of, text)) == expected


def test_the_same_seed_gives_the_same_images_and_fewer_are_a_part_of_more() -> None:
    of = labels(40, 60, 100)
    seen = set[int]()
    for text in ("1%", "2.5%", "10%", "37%", "80%", "100%"):
        found = chosen(of, text, seed=3)
        assert found.tolist() == chosen(of.copy(), text, seed=3).tolist()
        assert seen <= set(found.tolist())
        seen = set(found.tolist())
    assert chosen(of, "10%", seed=3).tolist() != chosen(of, "10%", seed=4).tolist()


def test_which_images_does_not_follow_from_their_order_or_class() -> None:
    """Of many seeds each image of a class is as likely."""
    of = labels(20, 20, 20)
    hits = np.zeros(60)
    for seed in range(200):
        hits[chosen(of, "5-per-class", seed)] += 1
    assert hits.min() > 25
    assert hits.max() < 80  # 50 are expected


def test_images_without_a_label_are_never_chosen() -> None:
    of = labels(10, 10, 10)
    of[::3] = -1
    subset = chosen(of, "100%")
    assert subset.tolist() == np.flatnonzero(of >= 0).tolist()


def test_a_class_that_is_too_small_is_named_with_its_number() -> None:
    with pytest.raises(DataError, match=r"--labels 5-per-class: cat has 3, dog has 4 training images") as error:
        chosen(labels(3, 4, 50), "5-per-class")
    assert "type --labels 3-per-class or less" in str(error.value)
    with pytest.raises(DataError, match="cat has 0, dog has 4 training images; or a share") as error:
        chosen(labels(0, 4, 50), "5-per-class")
    assert counts(labels(0, 4, 50), chosen(labels(0, 4, 50), "2%")) == [0, 1, 1]


@pytest.mark.parametrize(("of", "names"), [(None, ()), (np.full(9, -1), NAMES), (labels(9), ("only",))])
def test_without_labels_it_says_how_folders_become_labels(of: Labels | None, names: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match=r"photos has no labels.*photos/CLASS/\*\.jpg.*train/CLASS"):
        choose(of, names, read_amount("1%"), 0, "photos")


def test_watched_images_are_others_with_a_label_then_a_tenth_of_the_subset_then_all() -> None:
    of = labels(40, 60, 100)
    of[:20] = -1
    subset = chosen(of, "10%")
    kept, held = set_aside(subset, of, 30, seed=0)
    assert kept.tolist() == subset.tolist()
    assert len(held) == 30
    assert not set(held) & set(subset)
    assert (of[held] >= 0).all()
    whole = chosen(of, "100%")
    kept, held = set_aside(whole, of, 512, seed=0)
    assert len(held) == 18
    assert sorted([*kept, *held]) == whole.tolist()
    few = np.arange(20, 120)
    kept, held = set_aside(few, np.where(np.isin(np.arange(200), few), of, -1), 512, seed=0)
    assert kept.tolist() == held.tolist() == few.tolist()


def test_a_draw_is_seeded_and_rising() -> None:
    pool = np.arange(100, 200)
    assert drawn(pool, 7, 1).tolist() == drawn(pool, 7, 1).tolist() != drawn(pool, 7, 2).tolist()
    assert (np.diff(drawn(pool, 7, 1)) > 0).all()


class Named:
    """Three images with names as a source escapes them."""

    labels = np.array([2, 0, 1])

    def name(self, index: int) -> str:
        return ("a, b.png", "line\\x0abreak.png", '"quoted".png')[index]


def test_the_list_of_the_subset_is_read_back_as_it_is() -> None:
    data = listed(Named(), ("cat", "dog", "fish, raw"))  # type: ignore[arg-type]
    assert list(csv.reader(io.StringIO(data.decode()))) == [
        ["name", "class"],
        ["a, b.png", "fish, raw"],
        ["line\\x0abreak.png", "cat"],
        ['"quoted".png', "dog"],
    ]
