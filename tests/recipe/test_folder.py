"""simsiam/folder: settings follow from images and machine, the user's word stands, the reasons agree with it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stopgrad.assemble import api
from stopgrad.contracts import ConfigError
from stopgrad.data.probe import Machine, Probe, probe, this_machine
from stopgrad.data.sources import DataConfig, open_data
from stopgrad.recipe import Recipe
from stopgrad.recipe.text import dump, load
from stopgrad.recipes import PRESETS, RECIPES
from stopgrad.recipes import folder as folders
from stopgrad.recipes.base import TINY_BATCH

LAPTOP = Machine(cores=2, memory=16 * 10**9)
SERVER = Machine(cores=32, memory=256 * 10**9, gpu="NVIDIA H200", gpu_memory=140 * 10**9)


def images(count: int, short: int = 200, channels: int = 3, deep: float = 0.0, long: int = 0) -> Probe:
    sizes = np.array([[short, long or short]], np.int64)
    return Probe(images=count, train=count, sizes=sizes, channels=channels, deep=deep)


def folder(seen: Probe, machine: Machine, *rest: Any, **named: Any) -> tuple[Recipe, dict[str, str]]:
    return folders.folder(seen, machine, PRESETS["simsiam"], *rest, **named)


def test_small_sets_get_small_batches_and_many_epochs_large_ones_the_reverse() -> None:
    chosen = [folder(images(count, 32), LAPTOP)[0].loop for count in (40, 400, 4_000, 50_000, 1_000_000)]
    batches, epochs = [loop.batch_size for loop in chosen], [loop.epochs for loop in chosen]
    assert batches == sorted(batches)
    assert epochs == sorted(epochs, reverse=True)
    assert batches[0] == 16
    assert batches[-1] == TINY_BATCH
    for loop, count in zip(chosen[1:], (400, 4_000, 50_000, 1_000_000)):
        assert loop.epochs * (0.8 * count // loop.batch_size) >= 1_500


@pytest.mark.parametrize("count", [2, 3, 5, 17, 31, 160, 161])
def test_however_few_the_images_there_is_a_batch_of_them(count: int) -> None:
    recipe, _ = folder(images(count), LAPTOP)
    assert 2 <= recipe.loop.batch_size <= count


def test_size_follows_the_images_and_on_a_cpu_the_time() -> None:
    def size(short: int, machine: Machine, minutes: float = 0.0) -> int:
        return folder(images(10_000, short), machine, minutes=minutes)[0].views.image_size

    assert [size(short, SERVER) for short in (20, 32, 64, 96, 130, 224, 1000)] == [32, 32, 64, 96, 128, 224, 224]
    assert [size(short, LAPTOP) for short in (20, 32, 64, 500)] == [32, 32, 64, 64]
    assert size(500, LAPTOP, minutes=5) == 32
    assert size(500, LAPTOP, minutes=200) == 64


def test_the_machine_decides_the_backbone() -> None:
    assert folder(images(50_000), LAPTOP)[0].backbone.name == "tiny"
    assert folder(images(50_000), SERVER)[0].backbone.name == "resnet18"
    assert folder(images(1_200_000, 375), SERVER)[0].backbone.name == "resnet50"
    small = Machine(cores=8, memory=10**10, gpu="small", gpu_memory=4 * 10**9)
    assert folder(images(1_200_000, 375), small)[0].loop.batch_size < 512


def test_gray_and_many_bands_and_sixteen_bits() -> None:
    gray, why = folder(images(1_000, channels=1), LAPTOP)
    assert gray.data.channels == 1
    assert {crop.hue for crop in gray.views.crops} == {crop.grayscale for crop in gray.views.crops} == {0.0}
    assert "gray" in why["data.channels"]
    assert gray.views.mean
    bands, why = folder(images(1_000, channels=7, deep=1.0), LAPTOP)
    assert (bands.data.channels, bands.data.depth, bands.views.mean) == (7, 16, ())
    assert "7 bands" in why["data.channels"]
    assert folder(images(1_000), LAPTOP)[0].views.crops[0].hue > 0


def test_what_is_given_stands_and_the_rest_goes_with_it() -> None:
    recipe, why = folder(images(5_000), LAPTOP, {"views.image_size": 128, "loop.batch_size": 48})
    assert (recipe.views.image_size, recipe.loop.batch_size) == (128, 48)
    assert recipe.data.max_side >= 128
    assert recipe.views.crops[0].blur > 0  # large views are blurred
    assert not {"views.image_size", "loop.batch_size"} & why.keys()
    steps = (5_000 - 500) // 48
    assert recipe.loop.epochs * steps >= 2_000
    other, _ = folder(images(5_000), LAPTOP, {"backbone.name": "resnet18"})
    assert other.method.projector.hidden == 2048


@pytest.fixture
def gray_folder(tmp_path: Path) -> Path:
    """200 gray pictures of 60 x 50, kept as colour JPEG, and a text file."""
    random = np.random.default_rng(0)
    root = tmp_path / "gray"
    root.mkdir()
    for i in range(200):
        pixels = random.integers(0, 255, (6, 5)).astype(np.uint8)
        Image.fromarray(pixels).resize((50, 60)).convert("RGB").save(root / f"{i}.jpg")
    (root / "notes.txt").write_text("no image")
    return root


def test_a_probe_reads_sizes_channels_and_depth_without_decoding_all(gray_folder: Path) -> None:
    found = probe(str(gray_folder), DataConfig())
    assert (found.images, found.train, found.short, found.long, found.channels) == (200, 160, 50, 60, 1)
    colour = np.zeros((60, 50, 3), np.uint8)
    colour[:, :, 0] = 200
    for name in ("0.jpg", "77.jpg", "150.jpg"):
        Image.fromarray(colour).save(gray_folder / name)
    assert probe(str(gray_folder), DataConfig()).channels == 3


def test_a_probe_of_deep_and_many_band_files(tmp_path: Path) -> None:
    deep, bands = tmp_path / "deep", tmp_path / "bands"
    deep.mkdir()
    bands.mkdir()
    for i in range(4):
        Image.fromarray(np.full((40, 50), 500 + i, np.uint16)).save(deep / f"{i}.png")
        np.save(bands / f"{i}.npy", np.full((30, 40, 6), i, np.uint16))
    found = probe(str(deep), DataConfig())
    assert (found.channels, found.deep, found.short) == (1, 1.0, 40)
    found = probe(str(bands), DataConfig())
    assert (found.channels, found.deep, found.short, found.long) == (6, 1.0, 30, 40)


def test_transparency_of_a_tiff_is_no_channel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOPGRAD_CACHE", str(tmp_path / ".cache"))
    for i in range(4):
        pixels = np.random.default_rng(i).integers(0, 256, (40, 50, 4), np.uint8)
        Image.fromarray(pixels[:, :, :2], "LA").save(tmp_path / f"{i}.tif")
    assert probe(str(tmp_path), DataConfig()).channels == 1
    data = open_data(DataConfig(source=str(tmp_path), channels=1), 32)
    assert data.train[0].shape == (40, 50, 1)
    assert any("had transparency, laid on white" in note for note in data.notes)


def test_method_with_data_chooses_and_says_why_and_the_recipe_runs_again_as_is(
    gray_folder: Path, tmp_path: Path
) -> None:
    recipe, why = api.choose("simsiam", api.Options(data=str(gray_folder)))
    assert recipe.data.source == str(gray_folder)
    assert recipe.data.channels == 1
    assert any(line.startswith("loop.batch_size 16: ") for line in why)
    assert recipe == api.choose("simsiam/folder", api.Options(data=str(gray_folder)))[0]
    (tmp_path / "recipe.yaml").write_text(dump(recipe))
    assert load(tmp_path / "recipe.yaml") == recipe
    assert api.choose(tmp_path / "recipe.yaml", api.Options())[1] == ()


def test_reasons_do_not_contradict_what_the_user_set(gray_folder: Path) -> None:
    options = api.Options(
        data=str(gray_folder), epochs=3, settings=("loop={batch_size: 32}", "views.crops.*.hflip=0", "optim.base_lr=1")
    )
    recipe, why = api.choose("simsiam", options)
    assert (recipe.loop.epochs, recipe.loop.batch_size, recipe.optim.base_lr) == (3, 32, 1.0)
    text = "\n".join(why)
    for key in ("epochs", "batch_size", "base_lr", "views.crops"):
        assert key not in text
    assert "data.channels 1" in text


def test_scenes_stay_scenes_and_the_preset_needs_data() -> None:
    assert api.compose("simsiam", api.Options(data="scenes")).loop.epochs == RECIPES["simsiam/scenes"]().loop.epochs
    assert api.choose("simsiam", api.Options())[1] == ()
    with pytest.raises(ConfigError, match="add --data"):
        api.compose("simsiam/folder", api.Options())
    assert RECIPES["simsiam/folder"]().data.source == "DIR"


def test_images_that_can_not_be_looked_at_are_left_to_the_run(tmp_path: Path) -> None:
    recipe, why = api.choose("simsiam", api.Options(data=str(tmp_path / "missing")))
    assert recipe.data.source == str(tmp_path / "missing")
    assert why == ()


def test_this_machine_has_cores_and_memory() -> None:
    machine = this_machine()
    assert machine.cores >= 1
    assert machine.memory > 10**8


def test_panoramas_are_stored_tall_enough_for_a_crop() -> None:
    recipe, _ = folder(images(1_000, 100, long=800), LAPTOP, {"views.image_size": 48})
    assert recipe.data.max_side * 100 / 800 >= 48


def test_a_folder_with_a_name_that_yaml_would_read_is_looked_at_too(gray_folder: Path) -> None:
    odd = gray_folder.with_name("a: b")
    gray_folder.rename(odd)
    recipe, why = api.choose("simsiam", api.Options(data=str(odd)))
    assert (recipe.data.source, recipe.data.channels) == (str(odd), 1)
    assert why


def test_batch_norms_groups_fit_twelve_images_and_the_micro_batches_of_the_user(gray_folder: Path) -> None:
    asked = ("loop.batch_size=64", "loop.accumulate=4")
    split = api.compose("moco_v2/folder", api.Options(data=str(gray_folder), settings=asked))
    assert split.method.bn_splits == 1  # type: ignore[attr-defined]
    for i in range(12, 200):
        (gray_folder / f"{i}.jpg").unlink()
    few, why = api.choose("moco_v2", api.Options(data=str(gray_folder)))
    assert (few.loop.batch_size, few.method.bn_splits) == (8, 1)  # type: ignore[attr-defined]
    assert any(line.startswith("method.bn_splits 1: a group of 8 for batch norm") for line in why)
