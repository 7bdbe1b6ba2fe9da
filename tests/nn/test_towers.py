"""A backbone for each sensor: who sees which channels, what the parts are, the file, and a tower by itself."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor

from stopgrad.contracts import CheckpointError, ConfigError, Preprocess
from stopgrad.encoder import Encoder, load_encoder, save_encoder
from stopgrad.encoder import file as encoder_file
from stopgrad.encoder.entrance import entrance
from stopgrad.encoder.pixels import FromPixels
from stopgrad.nn.backbones import build_backbone, of_one_size
from stopgrad.nn.colour_split import LabSplit, normalised_lab
from stopgrad.nn.config import BackboneConfig
from stopgrad.nn.towers import SensorTowers, SomeViews, parts_of, widths_of

SENSORS, SIDE = (3, 1, 2), 16


def built(split: str = "sensors", seed: int = 0, **settings: Any) -> SensorTowers:
    config = BackboneConfig(**{"name": "tiny", "width": 16, "split": split, **settings})
    found = build_backbone(config, sum(SENSORS), SIDE, seed, SENSORS)
    assert isinstance(found, SensorTowers)
    return found


def crop(batch: int = 4) -> Tensor:
    return torch.rand(batch, sum(SENSORS), SIDE, SIDE, generator=torch.Generator().manual_seed(1))


def test_each_tower_sees_its_own_channels_and_features_stand_side_by_side() -> None:
    towers = built().eval()
    x = crop()
    rgb, depth, other = towers.towers
    expected = [rgb(x[:, :3]), depth(x[:, 3:4]), other(x[:, 4:])]
    assert [tuple(part.shape) for part in parts_of(towers, x)] == [(4, 64)] * 3 == [tuple(p.shape) for p in expected]
    assert all(torch.equal(*pair) for pair in zip(parts_of(towers, x), expected))
    assert torch.equal(towers(x), torch.cat(expected, dim=1))
    assert towers.dim == sum(widths_of(towers)) == 192
    changed = x.clone()
    changed[:, 3] += 1
    same = [torch.equal(*pair) for pair in zip(parts_of(towers, changed), expected)]
    assert same == [True, False, True]


def test_the_first_tower_is_split_into_lightness_and_colour_where_that_is_asked() -> None:
    towers, x = built("sensors_lab").eval(), crop()
    first = towers.towers[0]
    assert isinstance(first, LabSplit)
    lab = normalised_lab(x[:, :3])
    parts = parts_of(towers, x)
    assert widths_of(towers) == (32, 32, 64, 64)  # two halves, and whole ones
    assert torch.equal(parts[0], first.luminance(lab[:, :1]))
    assert torch.equal(parts[1], first.chrominance(lab[:, 1:]))
    assert torch.equal(torch.cat(parts, dim=1), towers(x))


def test_a_whole_backbone_is_one_view() -> None:
    whole = build_backbone(BackboneConfig(name="tiny", width=16), 6, SIDE, 0, SENSORS)
    (part,) = parts_of(whole.eval(), crop())
    assert widths_of(whole) == (64,)
    assert torch.equal(part, whole(crop()))


def test_some_views_are_those_features() -> None:
    towers, x = built("sensors_lab").eval(), crop()
    parts = parts_of(towers, x)
    some = SomeViews(towers, (2, 0))
    assert some.dim == 96
    assert torch.equal(some(x), torch.cat([parts[2], parts[0]], dim=1))
    with pytest.raises(ConfigError, match="this backbone has 4"):
        SomeViews(towers, (4,))


def test_weights_follow_from_the_seed_and_towers_differ() -> None:
    one, again, other = built(seed=3), built(seed=3), built(seed=4)
    assert all(torch.equal(*pair) for pair in zip(one.parameters(), again.parameters()))
    assert not torch.equal(next(one.parameters()), next(other.parameters()))
    assert not torch.equal(one.towers[1].stages[0].conv1.weight, one.towers[2].stages[0].conv1.weight)  # type: ignore[union-attr, index]


@pytest.mark.parametrize("split", ["sensors", "sensors_lab"])
def test_towers_need_sensors(split: str) -> None:
    config = BackboneConfig(name="tiny", split=split)  # type: ignore[arg-type]
    for sensors in ((), (3,)):
        with pytest.raises(ConfigError, match=r"2 sensors or more.*--set data\.sensors=\[rgb,depth\]"):
            build_backbone(config, 3, SIDE, 0, sensors)


def test_lightness_and_colour_need_a_photograph_first() -> None:
    with pytest.raises(ConfigError, match="needs images of 3 channels"):
        build_backbone(BackboneConfig(name="tiny", split="sensors_lab"), 4, SIDE, 0, (1, 3))


def test_a_timm_model_is_whole_in_each_tower_and_half_where_it_is_split() -> None:
    towers = built("sensors_lab", name="resnet18", width=32)
    assert widths_of(towers) == (256, 256, 512, 512)
    assert towers.towers[1].conv1.weight.shape[:2] == (64, 1)  # type: ignore[union-attr]


# --- the file ---------------------------------------------------------------------------------------------------------


def encoder(split: str = "sensors_lab") -> Encoder:
    config = BackboneConfig(name="tiny", width=16, split=split)  # type: ignore[arg-type]
    towers = built(split)
    towers(torch.rand(8, 6, SIDE, SIDE))  # batch norm has seen something
    preprocess = Preprocess(
        image_size=SIDE,
        channels=6,
        mean=(0.0, 0.0, 0.0, 0.4, 0.2, 0.1),
        std=(1.0, 1.0, 1.0, 0.5, 0.5, 0.2),
        sensors=("rgb", "depth", "labels:classes=2"),
    )
    return Encoder(towers.eval(), preprocess, config)


@pytest.mark.parametrize("split", ["sensors", "sensors_lab"])
def test_a_file_of_towers_is_read_back(tmp_path: Path, split: str) -> None:
    made = encoder(split)
    save_encoder(tmp_path / "e.safetensors", made.backbone, made.config, made.preprocess)
    found = load_encoder(tmp_path / "e.safetensors")
    assert found.config == made.config
    assert found.preprocess == made.preprocess
    assert torch.equal(found(crop()), made(crop()))
    assert isinstance(found.fresh(0), SensorTowers)


def test_a_file_that_asks_for_more_than_its_weights_is_refused_before_it_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, path = encoder(), tmp_path / "e.safetensors"
    asked: list[int] = []

    def build(config: BackboneConfig, *rest: Any) -> Any:
        asked.append(config.width)
        return build_backbone(config, *rest)

    monkeypatch.setattr(encoder_file, "build_backbone", build)
    save_encoder(path, made.backbone, made.config, made.preprocess)
    with safetensors.safe_open(path, framework="pt") as file:
        described = json.loads(file.metadata()["stopgrad"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    for change in (
        {"backbone": {**described["backbone"], "width": 4096}},
        {"preprocess": {**described["preprocess"], "sensors": ["rgb", "depth"]}},
        {"preprocess": {**described["preprocess"], "sensors": ["depth", "rgb", "labels:classes=2"]}},
        {"preprocess": {**described["preprocess"], "sensors": []}},
        {"backbone": {**described["backbone"], "split": "towers"}},
    ):
        text = json.dumps({**described, **change})
        path.write_bytes(safetensors.torch.save(tensors, {"stopgrad": text}))
        with pytest.raises(CheckpointError, match="do not fit"):
            load_encoder(path)
    assert 4096 not in asked


def test_the_graph_of_towers_computes_the_same_with_its_normalisation_inside() -> None:
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    from stopgrad.encoder.graph import onnx_bytes

    made = encoder()
    session = onnxruntime.InferenceSession(onnx_bytes(made))
    pixels = np.random.default_rng(0).integers(0, 256, (5, 6, SIDE, SIDE)).astype(np.float32)
    (found,) = session.run(["features"], {"pixels": pixels})
    with torch.no_grad():
        expected = FromPixels(made).eval()(torch.from_numpy(pixels)).numpy()
    assert found == pytest.approx(expected, abs=1e-5)
    into = entrance(made)
    assert into.comment.endswith("channels: rgb 3, depth 1, labels:classes=2 2")
    assert into.about.endswith("channels: rgb, depth, labels:classes=2")


def test_a_graph_of_towers_is_of_one_size() -> None:
    towers = built("sensors_lab").eval()
    assert torch.equal(of_one_size(towers, "tiny")(crop()), towers(crop()))


def test_a_tower_leaves_as_an_encoder_of_its_own(tmp_path: Path) -> None:
    from stopgrad.assemble.use import tower_of

    made, x = encoder(), torch.rand(3, 6, SIDE, SIDE)
    parts = parts_of(made.backbone, x)
    rgb, part = tower_of(made, "rgb")
    assert part == slice(0, 3)
    assert rgb.config == dataclasses.replace(made.config, split="lab")
    assert torch.equal(rgb(x[:, part]), torch.cat(parts[:2], dim=1))
    for name, at in (("depth", 2), ("labels", 3)):
        tower, part = tower_of(made, name)
        assert tower.config.split == "none"
        path = tmp_path / f"{name}.safetensors"
        save_encoder(path, tower.backbone, tower.config, tower.preprocess)
        found = load_encoder(path)
        assert torch.equal(found(x[:, part]), parts[at])
        assert found.preprocess.mean == made.preprocess.mean[part]
    for wrong, of in (("thermal", made), ("rgb", rgb)):
        with pytest.raises(ConfigError, match=f"--tower {wrong}: this encoder has"):
            tower_of(of, wrong)
