"""What is compared: equal views, what every row has in common, what is refused before anything is trained."""

import dataclasses
from pathlib import Path

import pytest

from stopgrad.contracts import ConfigError
from stopgrad.methods import METHODS
from stopgrad.recipes import RECIPES
from stopgrad.study.plan import Plan, command, compose, equal_views, folder_for
from stopgrad.views.config import CropConfig, ViewsConfig
from tests.study.fakes import two_methods


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"epochs": 1, "methods": ("simsam",)}, "--methods: unknown method 'simsam'; did you mean 'simsiam'"),
        ({"epochs": 1, "methods": ("simsiam", "simsiam")}, "names one twice"),
        ({"epochs": 1, "seeds": 0}, "--seeds must be 1 or more, got 0"),
        ({}, "say how long each run trains: --minutes 1.5, or --epochs 15"),
        ({"epochs": 1, "minutes": 1.0}, "give one of them"),
        ({"minutes": 0.0}, "--minutes must be above 0"),
        ({"epochs": 0}, "--epochs must be 1 or more"),
        ({"epochs": 1, "recipe": "cifar"}, "no method has a preset 'cifar'; did you mean 'cifar10'"),
        ({"epochs": 1, "views": "all"}, "--views must be equal or own"),
    ],
)
def test_a_mistake_says_what_to_type(asked: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Plan(**asked)  # type: ignore[arg-type]


def test_every_method_there_is_is_compared_by_default() -> None:
    assert Plan(epochs=1).asked == tuple(name for name in METHODS if name != "clip")


def test_equal_views_are_the_two_crops_of_simsiam(monkeypatch: pytest.MonkeyPatch) -> None:
    two_methods(monkeypatch)
    equal = compose(Plan(epochs=3, methods=("second", "simsiam"))).recipes
    own = compose(Plan(epochs=3, methods=("second", "simsiam"), views="own")).recipes
    theirs = RECIPES["simsiam/scenes"]().views.crops
    assert equal["second"].views.crops == equal["simsiam"].views.crops == theirs
    assert own["second"].views.crops == RECIPES["second/scenes"]().views.crops != theirs
    assert {recipe.loop.epochs for recipe in equal.values()} == {3}


@pytest.mark.parametrize(("crops", "left"), [(1, 1), (2, 2), (8, 2)])
def test_one_crop_stays_one_and_of_many_two_are_left(crops: int, left: int) -> None:
    like = ViewsConfig(image_size=48, crops=(CropConfig(hue=0.2), CropConfig(hue=0.3)))
    own = ViewsConfig(image_size=64, crops=(CropConfig(),) * crops, mean=(0.5,), std=(0.5,))
    found = equal_views(own, like)
    assert found.crops == like.crops[:left]
    assert (found.image_size, found.mean) == (48, (0.5,))


def test_texts_are_compared_with_equal_views_too() -> None:
    methods = ("simsiam", "swav", "cpc")
    equal = compose(Plan(epochs=1, recipe="text", methods=methods)).recipes
    assert [len(equal[name].views.sides) for name in methods] == [2, 2, 1]
    like = dataclasses.replace(equal["simsiam"].views, views=1)
    assert {dataclasses.replace(recipe.views, views=1) for recipe in equal.values()} == {like}  # type: ignore[arg-type]
    images = RECIPES["simsiam/scenes"]().views
    with pytest.raises(ConfigError, match="views of kind text have no crops of simsiam's; add --views own"):
        equal_views(like, images)


def test_settings_come_last_and_change_every_method(monkeypatch: pytest.MonkeyPatch) -> None:
    two_methods(monkeypatch)
    asked = Plan(epochs=1, methods=("second", "simsiam"), settings=("views.crops.*.hflip=0", "optim.base_lr=0.5"))
    for recipe in compose(asked).recipes.values():
        assert [crop.hflip for crop in recipe.views.crops] == [0, 0]
        assert recipe.optim.base_lr == 0.5


@pytest.mark.parametrize(
    ("setting", "option"),
    [
        ("seed=4", "--seeds"),
        ("loop.epochs=9", "--epochs or --minutes"),
        ("data.source=cifar10", "--data"),
        ("backbone.name=resnet18", "--backbone"),
    ],
)
def test_a_setting_that_an_option_says_is_refused(setting: str, option: str) -> None:
    with pytest.raises(ConfigError, match=f"compare takes it from {option}"):
        compose(Plan(epochs=1, methods=("simsiam",), settings=(setting,)))


def test_a_method_without_a_recipe_is_told_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    two_methods(monkeypatch)
    found = compose(Plan(epochs=1))
    assert list(found.recipes) == ["simsiam", "second"]
    assert found.refused == {"broken": "broken has no parts"}
    with pytest.raises(ConfigError, match="broken has no parts"):
        compose(Plan(epochs=1, methods=("broken",)))
    with pytest.raises(ConfigError, match="did you mean 'base_lr'"):  # wrong for every method: no table of one line
        compose(Plan(epochs=1, methods=("simsiam", "second"), settings=("optim.base_lrr=1",)))


def test_presets_on_different_images_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    two_methods(monkeypatch)
    monkeypatch.setitem(RECIPES, "second/scenes", RECIPES["simsiam/cifar10"])
    with pytest.raises(ConfigError, match="add --data SRC"):
        compose(Plan(epochs=1, methods=("simsiam", "second")))
    assert len(compose(Plan(epochs=1, methods=("simsiam", "second"), data="scenes-v1")).recipes) == 2


def test_the_command_that_goes_on_says_the_same_again() -> None:
    from shlex import split

    settings = ("method.projector={layers: 2, dim: 16}",)
    asked = Plan(minutes=1.5, seeds=2, methods=("simsiam",), views="own", backbone="tiny", settings=settings)
    words = split(command(compose(asked).settings, asked.asked, asked.seeds, Path("a b")))
    options = dict(zip(words[2::2], words[3::2]))
    assert options == {
        "--data": "scenes-v1",
        "--seeds": "2",
        **({"--methods": "simsiam"} if len(METHODS) > 1 else {}),
        "--minutes": "1.5",
        "--recipe": "scenes",
        "--views": "own",
        "--backbone": "tiny",
        "--set": settings[0],
        "--out": "a b",
    }


def test_a_comparison_goes_to_a_folder_named_after_its_images() -> None:
    assert folder_for("scenes-v1") == Path("runs/compare-scenes-v1")
    assert folder_for("/") == Path("runs/compare-root")
