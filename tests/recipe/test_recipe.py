"""Recipes: typed, checked, with errors that say file, line, key, value, rule and the nearest name."""

import contextlib
import dataclasses
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stopgrad.assemble.api import Options, choose
from stopgrad.contracts import ConfigError, MissingInputError
from stopgrad.methods import MethodConfig
from stopgrad.recipe import from_dict
from stopgrad.recipe.text import dump, load, override, parse
from stopgrad.recipe.typed import convert, field_types, plain
from stopgrad.recipes import RECIPES, recipe_named


@pytest.mark.parametrize("name", RECIPES)
def test_a_preset_survives_text_and_comes_back_equal(name: str, tmp_path: Path) -> None:
    recipe = RECIPES[name]()
    path = tmp_path / "recipe.yaml"
    path.write_text(dump(recipe, note="two\nlines"))
    assert load(path) == recipe
    assert path.read_text().startswith("# two\n# lines\n")


@pytest.mark.parametrize("name", RECIPES)
def test_a_preset_says_what_it_costs_or_what_is_expected_of_it(name: str) -> None:
    assert (RECIPES[name].__doc__ or "").strip()


def test_the_presets_are_the_papers() -> None:
    cifar, imagenet = RECIPES["simsiam/cifar10"](), RECIPES["simsiam/imagenet"]()
    assert (cifar.backbone.name, cifar.loop.epochs, cifar.loop.batch_size) == ("resnet18", 800, 512)
    assert (cifar.optim.base_lr, cifar.optim.weight_decay, cifar.optim.momentum) == (0.03, 5e-4, 0.9)
    assert cifar.method.projector.layers == 2
    assert all(crop.blur == 0 for crop in cifar.views.crops)
    assert (imagenet.backbone.name, imagenet.loop.epochs, imagenet.loop.batch_size) == ("resnet50", 100, 512)
    assert (imagenet.optim.base_lr, imagenet.optim.weight_decay) == (0.05, 1e-4)
    assert (imagenet.method.projector.layers, imagenet.method.projector.dim, imagenet.method.predictor_hidden) == (
        3, 2048, 512,
    )  # fmt: skip
    assert all(crop.blur == 0.5 and crop.blur_sigma == (0.1, 2.0) for crop in imagenet.views.crops)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "method: simsiam\noptim: {base_lrr: 1}\n",
            r"line 2: optim\.base_lrr: unknown setting; did you mean 'base_lr'",
        ),
        ("method: simsiam\nloop:\n  epochs: seven\n", r"line 3: loop\.epochs: needs a whole number, got 'seven'"),
        ("method: simsiam\nloop:\n  epochs: 0\n", r"line 3: loop\.epochs must be at least 1, got 0"),
        ("method: simsiam\nloop: {epochs: 1.5}\n", r"loop\.epochs: needs a whole number, got 1\.5"),
        ("method: simsiam\nloop: [1]\n", r"line 2: loop: needs settings"),
        ("method: simsam\n", r"unknown method 'simsam'; did you mean 'simsiam'"),
        ("seed: 1\n", r"method: needs a name; allowed: barlow_twins, byol, .*, vicreg"),
        ("method: {name: simsiam, target: shard}\n", r"'shard' is not a choice; did you mean 'shared'.*stop_gradient"),
        ("method: simsiam\nlop: {}\n", r"line 2: lop: unknown setting; did you mean 'loop'"),
        ("method: simsiam\nviews: {crops: [{scale: [1]}]}\n", r"views\.crops\.0\.scale: needs 2 values, got 1"),
        ("method: simsiam\nloop: {channels_last: 1}\n", r"channels_last: needs true or false, got 1"),
        ("method: simsiam\ndata: {source: 2024}\n", r"data\.source: needs text, got 2024; put it in quotes"),
        ("a: [1\n", r"line 2: not YAML"),
        ("!!python/object/apply:os.system ['touch /tmp/owned']\n", r"not YAML that settings can be read from"),
        ("", r"recipe: needs settings"),
        ("method: simsiam\nseed: -1\n", r"seed must be from 0 to"),
        ("method: simsiam\noptim: {base_lr: .inf}\n", r"optim\.base_lr: needs a number, got inf"),
        ("method: simsiam\noptim: {warmup_epochs: 100}\n", r"warmup_epochs=100\.0 leaves nothing of loop\.epochs=100"),
        ("method: simsiam\nseed: 1e30\n", r"seed must be from 0 to"),
        (f"method: simsiam\nseed: {'9' * 400}\n", r"seed: needs a whole number"),
        ("method: simsiam\nviews: {crops: [{}, {size: 16}]}\n", r"needs them equal, got 32 and 16 pixels; type --set"),
        ("method: simsiam\ndata: &a {b: *a}\n", r"not YAML that settings|unknown setting"),
        ("method: simsiam\nviews: {crops: [{}]}\n", r"compares 2 views, got 1"),
        ("method: simsiam\nviews: {image_size: 600}\n", r"data\.max_side=512 keeps fewer pixels"),
    ],
)
def test_a_mistake_is_one_line_that_says_the_fix(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_or_binary_or_huge_recipe_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="no such recipe"):
        load(tmp_path / "none.yaml")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="can't be read as text"):
        load(tmp_path / "binary")
    (tmp_path / "huge").write_bytes(b"a" * 1_000_001)
    with pytest.raises(ConfigError, match="is no recipe"):
        load(tmp_path / "huge")


def test_overrides_reach_every_depth_and_1e_3_is_a_number() -> None:
    recipe = recipe_named("simsiam")
    changed = override(
        recipe,
        ["optim.base_lr=1e-3", "method.projector.norm=none", "views.crops.*.blur=0.5", "views.crops.1.hflip=0"],
    )
    assert changed.optim.base_lr == 0.001
    assert changed.method.projector.norm == "none"
    assert [crop.blur for crop in changed.views.crops] == [0.5, 0.5]
    assert [crop.hflip for crop in changed.views.crops] == [0.5, 0.0]
    assert recipe.optim.base_lr != 0.001


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("optim.base_lr", "needs key=value"),
        ("optim.base_lrr=1", "unknown setting 'base_lrr'; did you mean 'base_lr'"),
        ("views.crops.7.blur=1", "'7' is no position; allowed: 0 to 1"),
        ("seed.x=1", "'seed' is a single value"),
        ("optim.base_lr=", "needs a number, got ''"),
        ("method.name=byoll", "unknown method 'byoll'; did you mean 'byol'"),
    ],
)
def test_a_wrong_override_says_what_is_allowed(assignment: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        override(recipe_named("simsiam"), [assignment])


def test_a_group_changes_what_it_names_and_leaves_the_rest() -> None:
    recipe = override(recipe_named("simsiam"), ["method.projector={dim: 64}", "watch={images: 99}"])
    assert (recipe.method.projector.dim, recipe.method.projector.layers) == (64, 2)
    assert (recipe.watch.images, recipe.watch.knn_bank) == (99, 2048)
    with pytest.raises(ConfigError, match="unknown setting 'imges'; did you mean 'images'"):
        override(recipe, ["watch={imges: 99}"])


def test_a_none_that_is_a_choice_stays_one_and_an_off_is_not_mistaken() -> None:
    recipe = override(recipe_named("simsiam"), ["method.predictor=none"])
    assert recipe.method.predictor == "none"
    with pytest.raises(ConfigError, match=r"method\.predictor: False is not a choice"):
        override(recipe, ["method.predictor=off"])


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=60))
def test_no_text_makes_the_reader_fail_in_another_way_than_by_a_config_error(text: str) -> None:
    with contextlib.suppress(ConfigError):  # anything else that is raised fails the test
        values, _ = parse(text, "x")
        assert from_dict(values).method.name in values["method"]


def test_a_whole_number_keeps_every_digit() -> None:
    assert convert(int, "9007199254740993", "seed") == 9007199254740993
    assert convert(int, 3.0, "x") == 3
    assert convert(float, 3, "x") == 3.0


def test_every_setting_has_a_type_the_reader_understands() -> None:
    """Walks every settings class: a value of its own default must convert to itself."""
    recipe = RECIPES["simsiam/scenes"]()

    def walk(value: object) -> None:
        for name, kind in field_types(type(value)).items():
            inner = getattr(value, name)
            if kind is not MethodConfig:  # from_dict finds the class by its name
                assert convert(kind, plain(inner), name) == inner
            if dataclasses.is_dataclass(inner):
                walk(inner)

    walk(recipe)


def test_tiny_brings_its_own_heads_batch_and_rate_to_any_preset_and_says_so() -> None:
    recipe, why = choose("simsiam/cifar10", Options(backbone="tiny", settings=("optim.base_lr=0.1",)))
    scenes = RECIPES["simsiam/scenes"]()
    assert (recipe.loop.batch_size, recipe.method.projector) == (scenes.loop.batch_size, scenes.method.projector)
    assert recipe.optim.base_lr == 0.1
    assert recipe.loop.epochs == 800
    assert any(line.startswith("loop.batch_size ") for line in why)
    assert not any(line.startswith("optim.base_lr") for line in why)  # the user's is not explained
    other, why = choose("simsiam/cifar10", Options(backbone="resnet50"))
    assert (other.loop.batch_size, other.optim.base_lr, why) == (512, 0.03, ())


def test_what_a_user_has_written_keeps_its_rate_with_another_backbone(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(dump(RECIPES["simsiam/cifar10"](), note=""))
    recipe, why = choose(path, Options(backbone="tiny"))
    assert (recipe.backbone.name, recipe.loop.batch_size, why) == ("tiny", 512, ())
