"""Presets fitted to another length, batch, set and size: a recipe that can run, and every change has its reason."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stopgrad.assemble.api import Options, choose, compose
from stopgrad.assemble.build import build_method
from stopgrad.contracts import ConfigError
from stopgrad.data.probe import Machine, Probe
from stopgrad.methods import METHODS
from stopgrad.optim.config import OptimConfig
from stopgrad.recipe import Recipe, from_dict
from stopgrad.recipe.text import dump
from stopgrad.recipe.typed import plain
from stopgrad.recipes import FOLDER, PRESETS, RECIPES
from stopgrad.recipes import folder as folders
from stopgrad.recipes.fitted import crops_at, of_batch, of_length, patches_at, told

LAPTOP = Machine(cores=2, memory=16 * 10**9)
SERVER = Machine(cores=32, memory=256 * 10**9, gpu="NVIDIA H200", gpu_memory=140 * 10**9)
SMALL_GPU = Machine(cores=8, memory=16 * 10**9, gpu="a small one", gpu_memory=4 * 10**9)
COUNTS, SIDES = (40, 1_000, 10_000, 1_280_000), (16, 32, 96, 224)


def folder(
    method: str, count: int, short: int, machine: Machine = SERVER, **given: Any
) -> tuple[Recipe, dict[str, str]]:
    seen = Probe(images=count, train=count, sizes=np.array([[short, short]], np.int64), channels=3, deep=0.0)
    named = {key.replace("__", "."): value for key, value in given.items()}
    return folders.folder(seen, machine, PRESETS[method], named)


def named_in(reason: str) -> Recipe:
    """The preset that a reason `as METHOD/PRESET, ...` names."""
    return RECIPES[reason.removeprefix("as ").partition(",")[0]]()


@pytest.mark.parametrize("machine", [LAPTOP, SERVER, SMALL_GPU], ids=["laptop", "server", "small GPU"])
@pytest.mark.parametrize("method", [method for method in METHODS if "cifar10" in PRESETS[method]])
def test_every_method_has_a_recipe_for_any_images_on_any_machine(method: str, machine: Machine) -> None:
    for count in COUNTS:
        for short in SIDES:
            recipe, why = folder(method, count, short, machine)
            assert from_dict(plain(recipe)) == recipe
            assert recipe.method.name == method
            assert 2 <= recipe.loop.batch_size <= count
            sides = recipe.known().crops
            assert all(side % 16 == 0 for side in sides)
            assert max(sides) <= recipe.views.image_size
            assert all(crop.hflip == 0.5 for crop in recipe.views.crops)
            assert recipe.optim.warmup_epochs <= max(0.1 * recipe.loop.epochs, 0.01)
            assert len(named_in(why["views.crops"]).views.crops) == len(recipe.views.crops)
            assert len(told(recipe, recipe, why)) == len(why)
            if recipe.backbone.name != "tiny":
                preset = named_in(why["optim.base_lr"])
                assert replace(preset.optim, warmup_epochs=recipe.optim.warmup_epochs) == recipe.optim
                assert not preset.backbone.name.startswith("vit")


@pytest.mark.parametrize(
    ("method", "count", "short", "preset"),
    [
        ("dino", 1_000, 32, "cifar10"),
        ("dino", 1_000, 224, "small"),
        ("dino", 1_280_000, 224, "imagenet_resnet50"),
        ("dino", 1_280_000, 96, "imagenet_resnet50"),
        ("swav", 50_000, 96, "small"),
        ("swav", 1_280_000, 224, "imagenet"),
        ("moco_v1", 1_000, 224, "small"),
        ("moco_v2", 1_000, 224, "small"),
        ("instdisc", 1_000, 224, "small"),
        ("instdisc", 1_280_000, 224, "imagenet"),
        ("simsiam", 1_000, 224, "imagenet"),
        ("moco_v3", 1_280_000, 224, "imagenet"),
    ],
)
def test_the_preset_is_the_one_for_so_many_images_of_that_size_and_is_named(
    method: str, count: int, short: int, preset: str
) -> None:
    recipe, why = folder(method, count, short)
    assert why["optim.base_lr"] == f"as {method}/{preset}"
    assert why["views.crops"].startswith(f"as {method}/{preset}, ")
    assert recipe.optim.name == PRESETS[method][preset]().optim.name


@pytest.mark.parametrize(
    ("method", "count", "preset"), [("dino", 1_000, "imagenet"), ("moco_v3", 1_280_000, "imagenet_vit")]
)
def test_a_vit_that_was_asked_for_gets_the_preset_of_a_vit(method: str, count: int, preset: str) -> None:
    recipe, why = folder(method, count, 224, backbone__name="vit_small_patch16_224")
    assert recipe.optim.name == "adamw"
    assert why["optim.base_lr"] == f"as {method}/{preset}"


@pytest.mark.parametrize(
    ("batch", "accumulate", "groups"),
    [(12, 1, 1), (16, 1, 1), (48, 1, 2), (64, 1, 2), (100, 1, 2), (256, 1, 8), (256, 4, 2), (34, 1, 1), (2, 1, 1)],
)
def test_batch_norm_of_moco_sees_groups_of_about_32(batch: int, accumulate: int, groups: int) -> None:
    method, _ = of_batch(PRESETS["moco_v2"]["imagenet"]().method, batch, accumulate, 10**6)
    assert method.bn_splits == groups  # type: ignore[attr-defined]
    settings = (f"loop.accumulate={accumulate}", f"loop.batch_size={batch}", f"method.bn_splits={groups}")
    assert compose("moco_v2/imagenet", Options(settings=settings)).loop.accumulate == accumulate


def test_micro_batches_that_were_asked_for_are_fitted_too() -> None:
    recipe, _ = folder("moco_v2", 10_000, 32, loop__batch_size=256, loop__accumulate=4)
    assert recipe.method.bn_splits == 2  # type: ignore[attr-defined]


@pytest.mark.parametrize("method", ["moco_v1", "moco_v2", "swav"])
@pytest.mark.parametrize(
    ("count", "short", "batch", "queue"),
    [(1_000, 224, 64, 512), (40, 224, 16, 32), (5_000, 32, 64, 4096), (1_000, 224, 500, 1000)],
)
def test_a_queue_holds_no_image_twice_and_a_step_at_least(
    method: str, count: int, short: int, batch: int, queue: int
) -> None:
    recipe, why = folder(method, count, short, loop__batch_size=batch)
    whole = 3840 if method == "swav" else 4096
    assert recipe.method.queue_size == min(queue, whole)  # type: ignore[attr-defined]
    assert ("method.queue_size" in why) == (queue < whole)


@pytest.mark.parametrize("preset", [name for name in RECIPES if not name.endswith(f"/{FOLDER}")])
@pytest.mark.parametrize("epochs", [1, 5, 12])
def test_every_preset_can_be_short(preset: str, epochs: int) -> None:
    recipe, why = choose(preset, Options(epochs=epochs))
    usual = RECIPES[preset]()
    assert recipe.loop.epochs == epochs
    assert recipe.optim.warmup_epochs <= 0.1 * epochs
    method: Any = recipe.method
    assert getattr(method, "frozen_epochs", 0) <= epochs / 10
    assert getattr(method, "warmup_teacher_epochs", 0) <= max(1, epochs / 3)
    assert not getattr(method, "queue_size", 0) or getattr(method, "queue_from_epoch", 0) <= epochs / 5
    changed = [key for key, value in plain(recipe.method).items() if value != plain(usual.method)[key]]
    changed = [f"method.{key}" for key in changed]
    changed += ["optim.warmup_epochs"] * (recipe.optim.warmup_epochs != usual.optim.warmup_epochs)
    assert sorted(line.split(" ")[0] for line in why) == sorted(changed)


def test_what_is_shortened_is_told_and_the_users_word_stands() -> None:
    why = choose("dino/cifar10", Options(epochs=20))[1]
    assert why == (
        "optim.warmup_epochs 2.0: no more than a tenth of the epochs, 20; it was 10 of 1000",
        "method.warmup_teacher_epochs 6: no more than a third of the epochs, 20; it was 50 of 1000",
    )
    own = ("optim.warmup_epochs=5", "method.warmup_teacher_epochs=20")
    kept, why = choose("dino/cifar10", Options(epochs=20, settings=own))
    assert (kept.optim.warmup_epochs, kept.method.warmup_teacher_epochs, why) == (5, 20, ())  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match=r"optim\.warmup_epochs=5\.0 leaves nothing of loop\.epochs=1"):
        compose("dino/cifar10", Options(epochs=1, settings=("optim.warmup_epochs=5",)))
    for longer in (1_000, 2_000):
        assert choose("dino/cifar10", Options(epochs=longer))[1] == ()
    assert compose("simclr/cifar10", Options(settings=("loop={epochs: 3}",))).optim.warmup_epochs == 0.3


def test_what_a_user_has_written_is_not_shortened_before_the_time_is_known(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(dump(RECIPES["simclr/cifar10"]()))
    with pytest.raises(ConfigError, match="leaves nothing of"):
        compose(path, Options(epochs=1))


def test_minutes_that_become_epochs_shorten_what_a_run_begins_with() -> None:
    recipe = RECIPES["swav/small"]()
    recipe = replace(recipe, optim=OptimConfig(warmup_epochs=10))
    short, why = of_length(recipe, 12)
    method: Any = short.method
    assert (short.loop.epochs, short.optim.warmup_epochs) == (12, 1.2)
    assert (method.frozen_epochs, method.queue_from_epoch) == (1, 2)
    assert list(why) == ["optim.warmup_epochs", "method.queue_from_epoch"]
    assert of_length(recipe, 9)[0].method.frozen_epochs == 0  # type: ignore[attr-defined]
    assert of_length(recipe, 400) == (replace(recipe, loop=replace(recipe.loop, epochs=400)), {})


def test_with_minutes_a_folder_keeps_the_presets_length_until_they_are_epochs() -> None:
    seen = Probe(images=40_000_000, train=40_000_000, sizes=np.array([[96, 96]], np.int64), channels=3, deep=0.0)
    for method in (method for method in METHODS if "cifar10" in PRESETS[method]):
        recipe, why = folders.folder(seen, SERVER, PRESETS[method], minutes=30)
        assert "loop.epochs" not in why
        assert recipe.loop.epochs >= 100
        assert folders.folder(seen, SERVER, PRESETS[method])[0].loop.epochs <= 100


@pytest.mark.parametrize(
    ("preset", "size", "sides"),
    [
        ("swav/imagenet", 64, (64,) * 2 + (32,) * 6),
        ("dino/imagenet", 128, (128,) * 2 + (48,) * 8),
        ("dino/imagenet", 32, (32,) * 2 + (16,) * 8),
        ("dino/imagenet", 16, (16,) * 10),
        ("swav/imagenet", 8, (8,) * 8),
        ("swav/imagenet_small", 112, (80,) * 2 + (48,) * 4),
        ("swav/imagenet", 448, (448,) * 2 + (192,) * 6),
        ("swav/imagenet", 224, (224,) * 2 + (96,) * 6),
        ("simsiam/imagenet", 64, (64, 64)),
    ],
)
def test_local_crops_go_with_the_size_of_the_images(preset: str, size: int, sides: tuple[int, ...]) -> None:
    recipe, why = choose(preset, Options(image_size=size))
    assert recipe.known().crops == sides
    changed = recipe.views.crops != RECIPES[preset]().views.crops
    assert [line.partition(":")[0] for line in why] == ["views.crops"] * changed
    assert compose(preset, Options(settings=(f"views.image_size={size}",))) == recipe


def test_a_size_that_is_larger_than_what_is_stored_needs_both() -> None:
    with pytest.raises(ConfigError, match=r"data\.max_side=512 keeps fewer .* use --set data\.max_side=1200"):
        compose("swav/imagenet", Options(image_size=600))
    recipe = compose("swav/imagenet", Options(image_size=600, settings=("data.max_side=1200",)))
    assert recipe.known().crops == (600,) * 2 + (256,) * 6


def test_a_crop_that_was_asked_for_is_not_scaled() -> None:
    recipe = compose("swav/imagenet", Options(image_size=64, settings=("views.crops.7.size=24",)))
    assert recipe.known().crops == (64, 64, 32, 32, 32, 32, 32, 24)


def test_crops_keep_their_order_at_any_size() -> None:
    crops = PRESETS["swav"]["imagenet_small"]().views.crops
    for size in range(8, 300):
        sides = [crop.size or size for crop in crops_at(crops, size, 224)]
        assert sides == sorted(sides, reverse=True)
        assert max(sides) <= size


def test_memory_is_counted_by_the_crops_there_are() -> None:
    card = Machine(cores=8, memory=10**10, gpu="small", gpu_memory=8 * 10**9)
    batches = {name: folder(name, 90_000, 224, card)[0].loop.batch_size for name in ("simsiam", "dino", "instdisc")}
    assert batches["instdisc"] == 2 * batches["simsiam"]  # one view instead of two
    assert batches["dino"] == batches["simsiam"] // 2  # 2 and 8 of 96 / 224: 3.5


def test_a_method_knows_how_long_it_is_trained() -> None:
    assert RECIPES["swav/cifar10"]().known().epochs == 1_000


@pytest.mark.parametrize("short", [32, 96])
@pytest.mark.parametrize("method", [method for method in METHODS if "cifar10" in PRESETS[method]])
def test_what_is_chosen_for_a_folder_can_be_built(method: str, short: int) -> None:
    recipe, _ = folder(method, 400, short, LAPTOP)
    assert recipe.backbone.name == "tiny"
    assert build_method(recipe, images=360).backbone is not None


@pytest.mark.parametrize(("preset", "backbone"), [("scenes", "resnet18"), ("cifar10", "tiny")])
@pytest.mark.parametrize("method", [method for method in METHODS if "cifar10" in PRESETS[method]])
def test_every_preset_can_be_built_with_another_backbone(method: str, preset: str, backbone: str) -> None:
    recipe = compose(f"{method}/{preset}", Options(backbone=backbone))
    assert recipe.backbone.name == backbone
    assert build_method(recipe, images=4_000).backbone is not None


def test_patches_keep_their_rows_at_every_size() -> None:
    for patches, before in ((8, 32), (10, 30), (64, 256)):
        rows = before // (patches // 2) - 1
        for size in range(before, 10 * before):
            side = patches_at(patches, size, before)
            assert side % 2 == 0
            assert size // (side // 2) - 1 >= rows
    assert patches_at(0, 96, 32) == 0
    assert patches_at(8, 8, 32) == 4
