"""Exported files: the same features elsewhere, the same bytes again, nothing of this machine inside."""

import dataclasses
import gc
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import timm
import torch

from stopgrad.contracts import CheckpointError, ConfigError, Preprocess
from stopgrad.encoder import Encoder, export_encoder, graph, load_encoder, program
from stopgrad.encoder import export as exporting
from stopgrad.encoder.file import encoder_bytes
from stopgrad.encoder.pixels import FromPixels, as_pixels
from stopgrad.nn.backbones import build_backbone
from stopgrad.nn.config import BackboneConfig
from stopgrad.views import preprocess_batch

NAMES = ["tiny", "resnet18", "vit_tiny_patch16_224"]
SIDE = 32
RANDOM = np.random.default_rng(0)
IMAGES = [RANDOM.integers(0, 256, (40 + i, 50, 3), dtype=np.uint8) for i in range(8)]
ORIGIN = re.compile(rb"/work|/tmp|/home|/root|site-packages|stopgrad\.nn|stopgrad/|\.py\b|20[23]\d-\d\d")


def encoder(name: str, channels: int = 3, seed: int = 0, **settings: Any) -> Encoder:
    """A backbone whose batch norm has seen something."""
    config = BackboneConfig(name=name, **settings)
    preprocess = Preprocess(
        image_size=SIDE, channels=channels, crop_fraction=0.875, mean=(0.4,) * channels, std=(0.2,) * channels
    )
    backbone = build_backbone(config, channels, SIDE, seed)
    with torch.no_grad():
        backbone(torch.randn(16, channels, SIDE, SIDE))
    return Encoder(backbone.eval(), preprocess, config)


def pixels(of: Encoder) -> np.ndarray:
    return as_pixels([image[:, :, : of.preprocess.channels] for image in IMAGES], of.preprocess)


def run_lines(lines: tuple[str, ...], **given: object) -> dict[str, object]:
    """What stands in the names after the printed lines were typed; the one that wants a folder is left out."""
    names = dict(given)
    exec("\n".join(line for line in lines if "stopgrad.embed" not in line), names)
    return names


def features(of: Encoder) -> np.ndarray:
    """By the library's own way: the test transform, then the backbone."""
    return of(preprocess_batch(IMAGES, of.preprocess)).numpy()


def test_pixels_into_the_exported_function_are_the_test_transform_and_the_backbone() -> None:
    one = encoder("tiny")
    with torch.no_grad():
        found = FromPixels(one)(torch.from_numpy(pixels(one))).numpy()
    np.testing.assert_allclose(found, features(one), atol=1e-5)
    half = Encoder(one.backbone, dataclasses.replace(one.preprocess, depth=16), one.config)
    with torch.no_grad():  # 257 * 255 = 65535
        deep = FromPixels(half)(torch.from_numpy(pixels(one) * 257)).numpy()
    np.testing.assert_allclose(deep, found, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_onnx_gives_torchs_features_at_any_batch(name: str, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    one = encoder(name)
    path = tmp_path / "encoder.onnx"
    done = export_encoder(one, path, pixels(one), "noise")
    assert done.difference is not None
    assert done.difference <= 1e-5
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    expected = features(one)
    for batch in (1, 2, 5):
        found = session.run(["features"], {"pixels": pixels(one)[:batch]})[0]
        assert np.abs(found - expected[:batch]).max() <= 1e-5
    typed = run_lines(done.lines, pixels=pixels(one))["features"]
    assert np.abs(typed - expected).max() <= 1e-5  # type: ignore[operator]
    about = session.get_modelmeta().custom_metadata_map
    assert '"crop_fraction": 0.875' in about["stopgrad"]
    assert '"mean": [0.4, 0.4, 0.4]' in about["stopgrad"]
    assert "0 to 255" in about["input"]


@pytest.mark.parametrize("name", ["tiny", "vit_tiny_patch16_224"])
def test_a_program_gives_torchs_features_at_any_batch(name: str, tmp_path: Path) -> None:
    one = encoder(name)
    path = tmp_path / "encoder.pt2"
    done = export_encoder(one, path, pixels(one), "noise")
    assert done.difference is not None
    run = run_lines(done.lines, pixels=torch.from_numpy(pixels(one)))["encoder"]  # our own file, just written
    expected = features(one)
    assert callable(run)
    with torch.no_grad():
        for batch in (1, 2, 5):
            assert np.abs(run(torch.from_numpy(pixels(one)[:batch])).numpy() - expected[:batch]).max() <= 1e-5


@pytest.mark.parametrize("name", ["tiny", "resnet18"])
def test_safetensors_are_read_by_stopgrad_and_a_timm_model_by_plain_timm(name: str, tmp_path: Path) -> None:
    one = encoder(name)
    path = tmp_path / "encoder.safetensors"
    done = export_encoder(one, path, pixels(one), "noise")
    np.testing.assert_allclose(features(load_encoder(path)), features(one), atol=1e-6)
    if name == "tiny":
        assert done.difference is None
        assert "equal by checksum" in done.checked
        assert not [line for line in done.lines if "timm" in line]
    else:
        assert "plain timm" in done.checked
        assert done.difference <= 1e-5  # type: ignore[operator]
        assert isinstance(run_lines(done.lines)["model"], torch.nn.Module)


@pytest.mark.parametrize("suffix", exporting.FORMATS)
def test_a_vit_with_settings_of_moco_v3_is_the_same_function_in_every_format(suffix: str, tmp_path: Path) -> None:
    if suffix == ".onnx":
        pytest.importorskip("onnxruntime")
    one = encoder("vit_tiny_patch16_224", heads=12, positions="sincos", init_scheme="moco_v3", drop_path=0.1)
    done = export_encoder(one, tmp_path / f"encoder{suffix}", pixels(one), "noise")
    assert done.difference is not None
    assert done.difference <= 1e-5
    if suffix == ".safetensors":
        assert "num_heads=12" in "\n".join(done.lines)
        model = run_lines(done.lines)["model"]
        assert isinstance(model, torch.nn.Module)
        with torch.no_grad():
            found = model.eval()(preprocess_batch(IMAGES, one.preprocess)).numpy()
        np.testing.assert_allclose(found, features(one), atol=1e-6)


def test_the_graph_of_a_vit_holds_no_interpolation_of_its_positions() -> None:
    one = encoder("vit_tiny_patch16_224")
    named = {str(node.target) for node in program.exported_program(one).graph.nodes}
    assert not [name for name in named if "bicubic" in name or "upsample" in name]
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    weights = {tensor.name for tensor in onnx.load_model_from_string(graph.onnx_bytes(one)).graph.initializer}
    assert "backbone.pos_embed" in weights  # and not what an interpolation made of it
    dynamic = torch.export.export(FromPixels(one).eval(), (torch.zeros(2, 3, SIDE, SIDE),))
    assert [node for node in dynamic.graph.nodes if "bicubic" in str(node.target)]


@pytest.mark.parametrize(("name", "size"), [("resnet18", {}), ("vit_tiny_patch16_224", {"img_size": SIDE})])
def test_an_unmodified_timm_model_takes_the_file_as_it_is(name: str, size: dict[str, int], tmp_path: Path) -> None:
    config = BackboneConfig(name=name, stem="standard")
    one = Encoder(build_backbone(config, 3, SIDE, 0).eval(), Preprocess(image_size=SIDE), config)
    path = tmp_path / "encoder.safetensors"
    path.write_bytes(encoder_bytes(one))
    model = timm.create_model(name, pretrained=False, num_classes=0, **size)
    model.load_state_dict(safetensors.torch.load_file(path))
    with torch.no_grad():
        found = model.eval()(preprocess_batch(IMAGES, one.preprocess)).numpy()
    np.testing.assert_allclose(found, features(one), atol=1e-6)


@pytest.mark.parametrize("suffix", exporting.FORMATS)
def test_the_same_weights_are_the_same_bytes_and_nothing_of_this_machine_is_inside(suffix: str) -> None:
    if suffix == ".onnx":
        pytest.importorskip("onnxruntime")

    def made() -> bytes:
        torch.manual_seed(0)
        one = encoder("tiny", channels=1)
        torch.manual_seed(len(list(gc.get_objects())))  # what came before does not matter
        return {
            ".safetensors": lambda: encoder_bytes(one),
            ".onnx": lambda: graph.onnx_bytes(one),
            ".pt2": lambda: program.program_bytes(one, program.exported_program(one)),
        }[suffix]()

    first, second = made(), made()
    assert first == second
    assert not ORIGIN.findall(first)


@pytest.mark.parametrize("suffix", exporting.FORMATS)
def test_a_file_that_computes_something_else_is_not_written(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if suffix == ".onnx":
        pytest.importorskip("onnxruntime")
    one, other = encoder("tiny"), encoder("tiny", seed=1)
    module = {".safetensors": "export.encoder_bytes", ".onnx": "graph.onnx_bytes", ".pt2": "program.exported_program"}
    room, _, name = module[suffix].partition(".")
    real = getattr(__import__(f"stopgrad.encoder.{room}", fromlist=[name]), name)
    monkeypatch.setattr(f"stopgrad.encoder.{module[suffix]}", lambda _: real(other))
    with pytest.raises(CheckpointError, match=r"encoder\.(onnx|pt2|safetensors): "):
        export_encoder(one, tmp_path / f"encoder{suffix}", pixels(one), "noise")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["encoder.pth", "encoder", "encoder.ONNX"])
def test_another_format_says_which_there_are(name: str, tmp_path: Path) -> None:
    one = encoder("tiny")
    with pytest.raises(ConfigError, match=r"\.safetensors, \.onnx or \.pt2"):
        export_encoder(one, tmp_path / name, pixels(one), "noise")


@pytest.mark.parametrize("missing", ["onnx", "onnxruntime", "onnxscript"])
def test_without_its_libraries_onnx_says_what_to_install(
    missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    one = encoder("tiny")
    with pytest.raises(ConfigError, match=r"stopgrad\[onnx\]"):
        export_encoder(one, tmp_path / "encoder.onnx", pixels(one), "noise")
