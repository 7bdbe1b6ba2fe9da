"""The whole evaluation: which rows there are, what they say about themselves, and what they must not do."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from stopgrad.contracts import ConfigError, DataError, Preprocess, Result
from stopgrad.data import Data
from stopgrad.data.sources import Attribute
from stopgrad.eval import EVALS, PROTOCOL, EvalConfig, Other, columns, evaluate, rows
from stopgrad.views import CropConfig, ViewsConfig, preprocess_of
from tests.eval.fakes import SIDE, Net, Split, data

VIEWS = ViewsConfig(image_size=SIDE, crops=(CropConfig(blur=0.0), CropConfig(blur=0.0)))
LABEL_FREE = {"retrieval_at_1", "effective_rank", "alignment", "uniformity"}
LABELLED = {"knn_top1", "knn_top1_k200", "linear_top1"}


def score(
    given: Data,
    backbone: nn.Module | None = None,
    config: EvalConfig | None = None,
    views: ViewsConfig = VIEWS,
    fresh: Callable[[int], nn.Module] = Net,
) -> dict[str, Result]:
    images = given.train if len(given.train) else given.test
    found = evaluate(
        Net(100) if backbone is None else backbone,
        fresh,
        given,
        preprocess_of(views, images[0].shape[2]),
        views,
        config or EvalConfig(),
        seed=3,
        device="cpu",
        threads=1,
    )
    assert len({row.name for row in found}) == len(found)
    return {row.name: row for row in found}


def names(kinds: set[str]) -> set[str]:
    return kinds | {f"baseline_{who}_{kind}" for who in ("random", "pixels") for kind in kinds}


def test_with_labels_every_score_stands_beside_both_baselines() -> None:
    found = score(data())
    assert set(found) == names(LABEL_FREE | LABELLED)
    assert all(value is not None for _, values in rows(list(found.values())) for value in values)


def test_another_encoder_is_scored_through_its_own_preprocessing_and_gets_a_column() -> None:
    class Seen(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            sizes.append(tuple(x.shape[1:]))
            return x.flatten(1)

    sizes: list[tuple[int, ...]] = []
    own = Preprocess(image_size=12, mean=(0.1, 0.2, 0.3), std=(0.5, 0.5, 0.5))
    others = {"other": Other(backbone=Seen(), preprocess=own, told="somebody else's")}
    config = EvalConfig(linear="none", random_seeds=1)
    given, preprocess = data(), preprocess_of(VIEWS, 3)
    found = evaluate(Net(), Net, given, preprocess, VIEWS, config, seed=3, device="cpu", threads=1, others=others)
    assert set(sizes) == {(3, 12, 12)}
    plain = evaluate(Net(), Net, given, preprocess, VIEWS, config, seed=3, device="cpu", threads=1)
    assert found[: len(plain)] == plain
    theirs = {row.name: row for row in found[len(plain) :]}
    assert set(theirs) == {f"baseline_other_{kind}" for kind in {*LABEL_FREE, "knn_top1", "knn_top1_k200"}}
    assert all("somebody else's" in row.protocol and "12 px" in row.protocol for row in theirs.values())
    assert list(columns(found).values()) == ["random", "pixels", "other"]
    assert list(columns(plain).values()) == ["random", "pixels"]
    table = dict(rows(found))
    assert table["knn_top1"][3] == theirs["baseline_other_knn_top1"].value


@pytest.mark.parametrize("where", ["both", "train", "test"])
def test_without_labels_their_rows_are_absent_and_not_zero(where: str) -> None:
    given = data()
    bare = {split: Split(getattr(given, split).images, None) for split in ("train", "test") if where in (split, "both")}
    found = score(replace(given, **bare))
    assert set(found) == names(LABEL_FREE)


def test_every_row_says_enough_to_compute_it_again() -> None:
    found = score(data(synthetic=True))
    for row in found.values():
        assert row.split == "test"
        assert row.n == 30
        assert row.seed == 3
        for part in (PROTOCOL, "colours (synthetic)", "0123456789ab", "as made", "nothing selected on test"):
            assert part in row.protocol
    knn = found["knn_top1"].protocol
    assert "weights as handed in" in knn
    assert "k=20" in knn
    assert "temperature=0.1" in knn
    assert "all 60 training images" in knn
    assert "k=200 (the bank has 60: k=60)" in found["knn_top1_k200"].protocol
    assert "L2 strength" in found["linear_top1"].protocol
    assert "chosen on 6 training samples" in found["linear_top1"].protocol
    assert "untrained" in found["baseline_random_knn_top1"].protocol
    assert f"raw pixels at {SIDE} x {SIDE}" in found["baseline_pixels_knn_top1"].protocol
    assert "synthetic" not in score(data(), config=EvalConfig(linear="none"))["knn_top1"].protocol


def test_the_random_baseline_is_the_mean_over_its_seeds_and_names_each() -> None:
    made: list[int] = []

    def fresh(seed: int) -> nn.Module:
        made.append(seed)
        return Net(seed)

    config = EvalConfig(linear="none")
    together = score(data(), config=config, fresh=fresh)
    assert made == [3, 4, 5]
    for kind in LABEL_FREE | {"knn_top1"}:
        single = [
            score(data(), config=replace(config, random_seeds=1), fresh=lambda _, s=seed: Net(s))  # type: ignore[misc]
            for seed in made
        ]
        values = [one[f"baseline_random_{kind}"].value for one in single]
        row = together[f"baseline_random_{kind}"]
        assert row.value == pytest.approx(np.mean(values))
        assert ", ".join(f"{seed}: {value:.4g}" for seed, value in zip(made, values)) in row.protocol


def test_the_untrained_backbone_has_its_batch_norm_measured_and_the_trained_one_is_left_alone() -> None:
    made: list[Net] = []
    trained = Net(100)
    before = {name: value.clone() for name, value in trained.state_dict().items()}

    def fresh(seed: int) -> nn.Module:
        made.append(Net(seed))
        return made[-1]

    score(data(), trained, EvalConfig(linear="none"), fresh=fresh)
    assert all(torch.equal(value, before[name]) for name, value in trained.state_dict().items())
    assert all(float(net.norm.running_mean.abs().sum()) > 0 for net in made)


def test_scores_are_the_same_twice() -> None:
    assert score(data()) == score(data())


def test_the_batch_size_moves_no_score_but_that_of_batch_norm_measured_on_such_batches() -> None:
    whole, small = score(data()), score(data(), config=EvalConfig(batch_size=7))
    for name, row in whole.items():
        if name.startswith("baseline_random_"):
            continue
        assert small[name].value == pytest.approx(row.value, abs=1e-3), name


def test_easy_classes_are_told_apart_and_the_pixels_find_them_too() -> None:
    class Colour(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mean(dim=(2, 3))

    found = score(data(), Colour(), EvalConfig(linear="both"))
    for name in ("knn_top1", "linear_top1", "linear_sgd_top1", "baseline_pixels_knn_top1"):
        assert found[name].value == 100, name
    assert "last epoch" in found["linear_sgd_top1"].protocol


def test_a_constant_encoder_scores_chance_and_is_reported_not_refused() -> None:
    class Constant(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.ones(len(x), 4)

    found = score(data(), Constant())
    assert found["effective_rank"].value == 0
    assert found["retrieval_at_1"].value == pytest.approx(100 / 30)
    assert found["uniformity"].value == pytest.approx(0)
    assert found["knn_top1"].value == pytest.approx(100 / 3)
    assert found["linear_top1"].value == pytest.approx(100 / 3)


def test_features_that_are_not_finite_name_the_image_and_the_next_command() -> None:
    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mean(dim=(2, 3)) * float("inf")

    with pytest.raises(DataError, match=r"first at train sample 0.*stopgrad diagnose"):
        score(data(), Broken())


@pytest.mark.parametrize(("train", "test"), [(1, 1), (2, 1), (1, 5), (3, 3), (12, 99)])
def test_tiny_splits_are_scored(train: int, test: int) -> None:
    found = score(data(train, test))
    assert set(found) == names(LABEL_FREE | LABELLED)
    assert (found["uniformity"].value is None) == (test == 1)
    assert found["retrieval_at_1"].n == test


@pytest.mark.parametrize("split", ["train", "test"])
def test_an_empty_split_is_an_error_that_names_it(split: str) -> None:
    empty = Split(np.zeros((0, SIDE, SIDE, 3), np.uint8), None)
    with pytest.raises(DataError, match=f"colours has no {split}"):
        score(replace(data(labelled=False), **{split: empty}))


def test_views_that_are_normalised_otherwise_than_the_encoder_expects_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"set views\.mean and views\.std"):
        evaluate(
            Net(),
            Net,
            data(),
            preprocess_of(VIEWS, 3),
            replace(VIEWS, mean=(0.5, 0.5, 0.5)),
            EvalConfig(),
            seed=0,
            device="cpu",
            threads=1,
        )


def test_the_pixel_baselines_that_need_labels_do_not_depend_on_the_normalisation_of_the_recipe() -> None:
    other = replace(VIEWS, mean=(0.9, 0.1, 0.5), std=(0.1, 1.0, 3.0))
    usual, moved = score(data()), score(data(), views=other)
    for kind in LABELLED:
        assert usual[f"baseline_pixels_{kind}"].value == moved[f"baseline_pixels_{kind}"].value
    assert usual["baseline_pixels_effective_rank"] != moved["baseline_pixels_effective_rank"]


def test_a_recipe_of_one_view_an_image_still_has_two_to_compare() -> None:
    found = score(data(), views=replace(VIEWS, crops=VIEWS.crops[:1]), config=EvalConfig(linear="none"))
    alignment = found["alignment"].value
    assert isinstance(alignment, float)
    assert alignment > 0


def test_views_without_chance_are_equal_so_alignment_is_0_and_every_one_is_found() -> None:
    plain = CropConfig(scale=(1.0, 1.0), ratio=(1.0, 1.0), hflip=0.0, jitter=0.0, grayscale=0.0, blur=0.0)
    found = score(data(), views=replace(VIEWS, crops=(plain, plain)), config=EvalConfig(linear="none"))
    assert found["alignment"].value == pytest.approx(0, abs=1e-9)
    assert found["baseline_pixels_retrieval_at_1"].value == 100


SETTINGS = [
    ("k", (5,)),
    ("temperature", 0.5),
    ("linear", "none"),
    ("linear_epochs", 1),
    ("linear_lr", 0.01),
    ("random_seeds", 0),
    ("precision", "bfloat16"),
    ("retrieval_images", 10),
]


@pytest.mark.parametrize(("name", "value"), SETTINGS)
def test_every_setting_changes_something(name: str, value: object) -> None:
    usual = EvalConfig(linear="sgd", linear_epochs=2, random_seeds=1)
    assert score(data(), config=usual) != score(data(), config=replace(usual, **{name: value}))


def test_grayscale_images_are_scored_too() -> None:
    given = data()
    gray = {
        name: Split(getattr(given, name).images[..., :1], getattr(given, name).labels) for name in ("train", "test")
    }

    class Mean(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1)[:, :16]

    assert set(score(replace(given, **gray), Mean(), fresh=lambda _: Mean())) == names(LABEL_FREE | LABELLED)


def test_what_is_done_is_said_a_line_at_a_time() -> None:
    said: list[str] = []
    config = EvalConfig(linear="none", random_seeds=2)
    evaluate(
        Net(), Net, data(), preprocess_of(VIEWS, 3), VIEWS, config, seed=0, device="cpu", threads=1, say=said.append
    )
    assert len(said) == 4
    assert "90 images" in said[0]
    assert "raw pixels" in said[-1]


def test_an_evaluation_is_added_by_one_line() -> None:
    assert list(EVALS) == ["knn", "linear", "retrieval", "geometry", "segments"]


def test_an_attribute_is_named_beside_the_class_and_alone() -> None:
    given = data()
    known = {"first": Attribute(("no", "yes"), np.arange(60) % 2, np.arange(30) % 2)}
    for labelled in (True, False):
        bare = given if labelled else data(labelled=False)
        found = score(replace(bare, attributes=known), config=EvalConfig(random_seeds=1))
        kinds = LABEL_FREE | {f"{kind}_first" for kind in LABELLED} | (LABELLED if labelled else set())
        assert set(found) == names(kinds)
        assert "first is named" in found["linear_top1_first"].protocol
    told = {"first": Attribute(("r", "g", "b"), given.train.labels, given.test.labels)}  # type: ignore[arg-type]
    found = score(replace(given, attributes=told), config=EvalConfig(random_seeds=1))
    assert all(found[kind].value == found[f"{kind}_first"].value for kind in LABELLED)
