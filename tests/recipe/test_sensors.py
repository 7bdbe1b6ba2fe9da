"""Settings that span sensors, views and backbone; what a folder of sensors makes of METHOD/folder."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stopgrad.assemble.train import measured
from stopgrad.contracts import ConfigError, Preprocess
from stopgrad.data import DataConfig, open_data
from stopgrad.data.probe import Machine, Probe
from stopgrad.eval import EvalConfig
from stopgrad.media.images import MEDIUM
from stopgrad.nn.config import BackboneConfig
from stopgrad.recipe import Recipe
from stopgrad.recipes import PRESETS, cmc, cmc_sensors
from stopgrad.recipes.folder import folder
from stopgrad.training.progress import Progress
from stopgrad.views.config import CropConfig, ViewsConfig

QUIET = Progress(quiet=True)
BARE = CropConfig(jitter=0, grayscale=0, blur=0)


def recipe(*sensors: str, split: str = "sensors", tower: str = "", views: ViewsConfig | None = None) -> Recipe:
    return replace(
        PRESETS["simsiam"]["scenes"](),
        data=DataConfig(sensors=sensors),
        views=views or ViewsConfig(crops=(BARE, BARE), mean=(), std=()),
        backbone=BackboneConfig(split=split),  # type: ignore[arg-type]
        eval=EvalConfig(tower=tower),
    )


def with_mean(*values: float) -> ViewsConfig:
    return ViewsConfig(crops=(BARE, BARE), mean=values, std=(1.0,) * len(values))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sensors": ()}, r"2 or more, got data\.sensors=\[\]; name them"),
        ({"sensors": ("rgb",), "split": "sensors_lab"}, r"2 or more, got data\.sensors=\['rgb'\]"),
        ({"sensors": ("depth", "rgb"), "split": "sensors_lab"}, "put a photograph first"),
        ({"sensors": ("rgb", "depth"), "split": "lab"}, r"use backbone\.split=sensors_lab"),
        ({"sensors": ("rgb", "depth"), "split": "sensors_lab", "views": with_mean(0.4, 0, 0, 0)}, "measures the other"),
        ({"sensors": ("rgb", "depth"), "views": ViewsConfig(mean=(), std=())}, r"jitter=0\.8 would change rgb, depth"),
        ({"sensors": ("rgb", "depth"), "views": with_mean(0, 0, 0)}, "the images 4 channels"),
        ({"sensors": ("rgb", "depth"), "tower": "L"}, r"there are rgb, depth; name one"),
        ({"sensors": ("rgb",), "split": "none", "tower": "rgb"}, "there are no towers"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        recipe(*changes.pop("sensors"), **changes)


def test_settings_that_fit_are_taken() -> None:
    assert recipe("rgb", "depth", tower="depth").data.channels == 4
    assert recipe("rgb", "depth", split="sensors_lab", tower="ab").known().split == "sensors_lab"
    recipe("rgb", "depth", split="sensors_lab", views=with_mean(0, 0, 0, 0.3))
    recipe("rgb", split="none", views=ViewsConfig())  # one photograph is an ordinary image


def test_lightness_and_colour_are_made_of_pixels_and_the_rest_is_measured(tmp_path: Path) -> None:
    for split, pixels in (("sensors_lab", True), ("sensors", False)):
        given = recipe("rgb", "depth", split=split)
        given = replace(given, data=replace(given.data, limit=20))
        data = open_data(given.data, 32)
        found = measured(given, data, QUIET).views
        assert isinstance(found, ViewsConfig)
        depth = np.stack([data.train[i] for i in range(20)])[..., 3] / 255
        assert found.mean[3] == pytest.approx(depth.mean(), rel=1e-4)
        assert found.std[3] == pytest.approx(depth.std(), rel=1e-4)
        assert (found.mean[:3] == (0, 0, 0)) is (found.std[:3] == (1, 1, 1)) is pixels


@pytest.mark.parametrize("preset", [cmc_sensors.scenes_sensors, cmc_sensors.sensors])
def test_presets_are_recipes(preset: Any) -> None:
    made = preset()
    assert made.backbone.split == "sensors_lab"
    assert made.views.mean == ()
    assert made.data.channels == {"scenes-v1": 12, "DIR": 4}[made.data.source]


def test_views_of_another_recipe_change_no_colours_of_an_encoder_of_sensors() -> None:
    own = Preprocess(image_size=32, channels=4, mean=(0.0,) * 4, std=(1.0,) * 4, sensors=("rgb", "depth"))
    given = ViewsConfig()
    assert {crop.jitter for crop in MEDIUM.refitted(given, own).crops} == {0.0}
    alone = replace(own, sensors=(), channels=3, mean=(0.0,) * 3, std=(1.0,) * 3)
    assert MEDIUM.refitted(given, alone).crops == given.crops
    assert MEDIUM.wanted(DataConfig(), own).sensors == ("rgb", "depth")
    assert MEDIUM.wanted(DataConfig(source="x", sensors=("rgb",)), alone).sensors == ("rgb",)


# --- METHOD/folder ----------------------------------------------------------------------------------------------------


def chosen(presets: dict[str, Any], *sensors: str, channels: int, deep: float = 0.0) -> tuple[Recipe, dict[str, str]]:
    probe = Probe(images=900, train=700, sizes=np.array([[120, 160]], np.int64), channels=channels, deep=deep)
    return folder(probe, Machine(cores=2, memory=8 << 30), presets, {"data.sensors": sensors})


def test_a_folder_of_sensors_gets_views_without_changes_of_colour() -> None:
    made, why = chosen(PRESETS["simsiam"], "rgb", "depth", channels=4, deep=1.0)
    assert (made.data.sensors, made.data.channels, made.data.depth) == (("rgb", "depth"), 4, 16)
    assert isinstance(made.views, ViewsConfig)
    assert {(crop.jitter, crop.grayscale, crop.solarize) for crop in made.views.crops} == {(0, 0, 0)}
    assert made.views.mean == ()
    assert "depths, labels and normals are none" in why["views.crops"]
    alone, _ = chosen(PRESETS["simsiam"], "rgb", channels=3)
    assert isinstance(alone.views, ViewsConfig)
    assert alone.views.crops[0].jitter == PRESETS["simsiam"]["cifar10"]().views.crops[0].jitter


def test_where_the_preset_splits_a_photograph_each_sensor_gets_a_backbone() -> None:
    presets = {"scenes": cmc.scenes, "cifar10": cmc.cifar10, "imagenet": cmc.imagenet}
    for sensors, split in ((("rgb", "depth"), "sensors_lab"), (("depth", "rgb"), "sensors"), (("rgb",), "lab")):
        made, why = chosen(presets, *sensors, channels=4 if len(sensors) > 1 else 3)
        assert made.backbone.split == split
        assert isinstance(made.views, ViewsConfig)
        assert made.views.mean == (() if len(sensors) > 1 else (0, 0, 0))
        assert ("backbone.split" in why) is (len(sensors) > 1)
