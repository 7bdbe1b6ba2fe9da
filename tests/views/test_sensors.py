"""Sensors as channels: how they are written, and that normals turn with their picture, whoever makes the view."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from stopgrad.contracts import Batch, ConfigError, Preprocess
from stopgrad.views import CropConfig, ViewMaker, ViewsConfig
from stopgrad.views.sensors import (
    MOST,
    as_picture,
    check_crops,
    described,
    geometric,
    normals_at,
    palette,
    part_of,
    read_labels,
    read_sensors,
    sensors_of,
    slices,
    turns_of,
    view_names,
    widths,
)

CPU = torch.device("cpu")
STILL = CropConfig(scale=(1, 1), ratio=(1, 1), hflip=0, jitter=0, grayscale=0, blur=0)
TURNS: dict[str, dict[str, Any]] = {
    "hflip": {"hflip": 1.0},
    "vflip": {"vflip": 1.0},
    "both": {"hflip": 1.0, "vflip": 1.0},
    "quarter turns": {"quarter_turns": 1.0},
    "flipped and turned": {"hflip": 0.5, "vflip": 0.5, "quarter_turns": 0.7},
    "any angle": {"hflip": 0.5, "rotation": 1.0, "rotation_degrees": 180.0},
}


def test_what_a_sensor_holds_follows_from_its_name_or_is_said() -> None:
    texts = ["rgb", "depth", "normals", "labels40:classes=41", "cam2:gray", "thermal:rgb", "ms:bands=5", "image_2"]
    found = read_sensors(texts)
    assert [sensor.what for sensor in found] == ["rgb", "gray", "normals", "classes", "gray", "rgb", "bands", "rgb"]
    assert [sensor.channels for sensor in found] == [3, 1, 3, 41, 1, 3, 5, 3]
    assert [str(sensor) for sensor in found] == texts
    assert read_sensors(list(map(str, found))) == found
    assert slices(found)[3] == slice(7, 48)
    assert normals_at(found) == (4,)


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["labels40"], "write labels40:classes=41"),
        (["front"], "what front holds is not known by its name"),
        (["rgb:blue"], "says nothing that is known of rgb"),
        (["x:classes=0"], "nothing that is known"),
        (["x:classes=-3"], "nothing that is known"),
        (["../rgb"], "no name of a folder"),
        ([""], "no name of a folder"),
        (["rgb", "depth", "rgb"], "rgb is named 2 times"),
        (["rgb", "labels:classes=62"], "at most 16 sensors of 64 channels together, got 2 of 65"),
        ([f"c{i}:gray" for i in range(MOST + 1)], "at most 16 sensors"),
    ],
)
def test_a_sensor_that_can_not_be_is_refused_with_what_to_write(texts: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read_sensors(texts)


def test_labels_are_a_folder_and_perhaps_a_label_that_is_none() -> None:
    assert read_labels("labels40") == ("labels40", -1)
    assert read_labels("labels40:ignore=0") == ("labels40", 0)
    for wrong in ("", "a/b", "labels:", "labels:ignore=", "labels:classes=3", "labels:ignore=x"):
        with pytest.raises(ConfigError, match=r"data\.labels"):
            read_labels(wrong)


def hemisphere(side: int) -> NDArray[np.float64]:
    """[S, S, 3], normals of a ball that fills the frame, coded as 0 to 1: the same ball however it is turned."""
    line = (np.arange(side) + 0.5) * 2 / side - 1
    x, y = np.meshgrid(line, -line)
    z = np.sqrt(np.clip(1 - x**2 - y**2, 0, None))
    return (np.stack([x, y, z], axis=2) + 1) / 2


def views(image: NDArray[Any], crop: CropConfig, executor: str, normals: tuple[int, ...], epoch: int) -> NDArray[Any]:
    """[S, S, C] of 0 to 1."""
    channels = image.shape[2]
    config = ViewsConfig(
        image_size=len(image),
        crops=(crop,),
        executor=executor,  # type: ignore[arg-type]
        mean=(0.0,) * channels,
        std=(1.0,) * channels,
    )
    made = ViewMaker(config, channels, 0, CPU, 1, normals)(Batch([image], np.array([5]), epoch)).crops[0]
    return made[0].permute(1, 2, 0).numpy()


@pytest.mark.parametrize("executor", ["cpu", "gpu", "exact"])
@pytest.mark.parametrize("law", TURNS)
@pytest.mark.parametrize("alone", [True, False])
def test_normals_turn_with_their_picture(executor: str, law: str, alone: bool) -> None:
    side, middle = 32, slice(8, 24)  # of a turn by any angle the corners are black
    coded = hemisphere(side)
    gray = np.linspace(0, 1, side)[None, :, None].repeat(side, axis=0)
    image = coded if alone else np.concatenate([gray, coded, gray], axis=2)
    pixels, at = np.rint(image * 65535).astype(np.uint16), 0 if alone else 1
    if alone:
        pixels = np.rint(image * 255).astype(np.uint8)  # 3 channels of 8 bits: what the fast path is for
    crop = dataclasses.replace(STILL, **TURNS[law])
    moved = 0.0
    for epoch in range(4):
        seen = views(pixels, crop, executor, (at,), epoch)[middle, middle, at : at + 3]
        assert np.abs(seen - coded[middle, middle]).max() < 0.02
        without = views(pixels, crop, executor, (), epoch)[middle, middle, at : at + 3]
        moved = max(moved, float(np.abs(without - coded[middle, middle]).max()))
    assert moved > 0.3  # what is left as it is does not fit the turned picture


def test_turning_is_a_flip_and_then_a_turn_counter_clockwise() -> None:
    right = np.array([1.0, 0.0])
    assert turns_of(False, False, 1, 0.0) @ right == pytest.approx([0, 1])
    assert turns_of(True, False, 1, 0.0) @ right == pytest.approx([0, -1])
    assert turns_of(False, True, 0, 30.0) @ right == pytest.approx([np.cos(np.pi / 6), 0.5])
    many = turns_of(np.array([True, False]), np.array([False, True]), np.array([0, 2]), np.array([0.0, 0.0]))
    assert many.shape == (2, 2, 2)
    assert many[0] == pytest.approx(np.diag([-1.0, 1.0]))
    assert many[1] == pytest.approx(np.diag([-1.0, 1.0]))


def test_several_crops_of_one_batch_do_not_turn_each_others_normals() -> None:
    image = np.rint(hemisphere(16) * 255).astype(np.uint8)
    config = ViewsConfig(
        image_size=16,
        crops=(dataclasses.replace(STILL, hflip=1.0), STILL),
        executor="gpu",
        mean=(0.0,) * 3,
        std=(1.0,) * 3,
    )
    made = ViewMaker(config, 3, 0, CPU, 1, (0,))(Batch([image], np.array([0]), 0)).crops
    assert (made[0] - made[1]).abs().max() < 0.01
    assert np.abs(made[1][0].permute(1, 2, 0).numpy() * 255 - image).max() < 0.1


def test_colours_are_not_changed_where_there_is_more_than_a_photograph() -> None:
    crops = (CropConfig(), CropConfig(jitter=0, grayscale=0, solarize=0.2))
    check_crops(read_sensors(["rgb"]), crops)
    for texts in (["rgb", "depth"], ["depth"], ["normals"], ["labels:classes=3"]):
        with pytest.raises(ConfigError, match=r"--set 'views\.crops\.\*\.jitter=0'"):
            check_crops(read_sensors(texts), crops)
        with pytest.raises(ConfigError, match=r"solarize=0\.2"):
            check_crops(read_sensors(texts), crops[1:])
        check_crops(read_sensors(texts), tuple(map(geometric, crops)))
    assert geometric(crops[0]).scale == crops[0].scale


def test_an_encoders_file_says_its_sensors_and_one_ordinary_picture_goes_without_saying() -> None:
    assert described(read_sensors(["rgb"])) == described(read_sensors(["depth"])) == ()
    assert described(read_sensors(["normals"])) == ("normals",)
    assert described(read_sensors(["rgb", "depth"])) == ("rgb", "depth")
    sensors = ("rgb", "depth", "labels:classes=2")
    whole = Preprocess(image_size=8, channels=6, mean=(0.0, 0, 0, 0.4, 0.5, 0.6), std=(1.0,) * 6, sensors=sensors)
    assert Preprocess.from_dict(whole.as_dict()) == whole
    assert "sensors" not in Preprocess(image_size=8).as_dict()
    assert widths(whole) == (3, 1, 2)
    own, part = part_of(whole, "labels")
    assert (part, own.channels, own.mean, own.sensors) == (slice(4, 6), 2, (0.5, 0.6), ("labels:classes=2",))
    own, _ = part_of(whole, "depth")
    assert (own.channels, own.mean, own.sensors) == (1, (0.4,), ())
    assert 'data.sensors=["rgb", "depth", "labels:classes=2"]' in whole.as_settings()
    with pytest.raises(ConfigError, match="5 channels, but its sensors"):
        sensors_of(dataclasses.replace(whole, channels=5, mean=(0.0,) * 5, std=(1.0,) * 5))
    with pytest.raises(ConfigError, match="sensors must be names"):
        Preprocess.from_dict({**whole.as_dict(), "sensors": [3]})


def test_views_of_a_split_backbone_have_names() -> None:
    sensors = read_sensors(["rgb", "depth", "normals"])
    assert view_names("none", sensors) == {}
    assert view_names("lab", ()) == {"L": (0,), "ab": (1,)}
    assert view_names("sensors", sensors) == {"rgb": (0,), "depth": (1,), "normals": (2,)}
    assert view_names("sensors_lab", sensors) == {"L": (0,), "ab": (1,), "rgb": (0, 1), "depth": (2,), "normals": (3,)}


def test_a_class_has_a_colour_that_no_other_has() -> None:
    colours = palette(41)
    apart = np.abs(colours[:, None] - colours[None]).sum(axis=2) + np.eye(41)
    assert apart.min() > 0.02
    assert colours.min() >= 0
    assert colours.max() <= 1
    (sensor,) = read_sensors(["labels:classes=4"])
    hot = np.eye(4, dtype=np.float32)[np.array([[2, 0], [1, 3]])]
    assert as_picture(sensor, hot)[0, 0] == pytest.approx(palette(4)[2])
    depth, many = read_sensors(["depth", "m:bands=5"])
    assert as_picture(depth, np.zeros((2, 2, 1), np.float32)).shape == (2, 2, 1)
    assert as_picture(many, np.zeros((2, 2, 5), np.float32)).shape == (2, 2, 3)
