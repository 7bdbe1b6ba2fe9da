"""The encoder file: the same function after loading, the same bytes for the same weights, nothing that runs."""

import ast
import json
import os
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from stopgrad.assemble.begin import read_start
from stopgrad.contracts import CheckpointError, MissingInputError, Preprocess
from stopgrad.encoder import load_encoder, save_encoder
from stopgrad.nn.backbones import build_backbone
from stopgrad.nn.config import BackboneConfig

PREPROCESS = Preprocess(image_size=32, channels=1, mean=(0.4,), std=(0.2,))


def saved(path: Path, name: str = "tiny") -> torch.nn.Module:
    config = BackboneConfig(name=name)
    backbone = build_backbone(config, 1, 32, seed=3).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    backbone(torch.randn(8, 1, 32, 32))  # so that statistics are not those of the start
    save_encoder(path, backbone, config, PREPROCESS)
    return backbone.eval()  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", ["tiny", "resnet18"])
def test_what_is_loaded_computes_the_same(name: str, tmp_path: Path) -> None:
    backbone = saved(tmp_path / "encoder.safetensors", name)
    encoder = load_encoder(tmp_path / "encoder.safetensors")
    x = torch.randn(3, 1, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(encoder(x), backbone(x), rtol=0, atol=1e-6)
    assert encoder.preprocess == PREPROCESS
    assert encoder.dim == backbone.dim


def test_the_same_weights_give_the_same_bytes_without_name_path_or_time(tmp_path: Path) -> None:
    saved(tmp_path / "a.safetensors")
    torch.manual_seed(1)
    (tmp_path / "elsewhere").mkdir()
    backbone = saved(tmp_path / "elsewhere" / "b.safetensors")
    again = tmp_path / "c.safetensors"
    save_encoder(again, backbone, BackboneConfig(), PREPROCESS)
    assert again.read_bytes() == (tmp_path / "elsewhere" / "b.safetensors").read_bytes()
    assert str(tmp_path).encode() not in again.read_bytes()


MOCO_V3 = {"heads": 12, "positions": "sincos", "init_scheme": "moco_v3"}


def test_what_changes_a_vit_travels_with_its_weights(tmp_path: Path) -> None:
    config = BackboneConfig(name="vit_tiny_patch16_224", patch_projection="frozen", drop_path=0.1, **MOCO_V3)  # type: ignore[arg-type]
    backbone = build_backbone(config, 1, 32, seed=3).eval()
    save_encoder(tmp_path / "a.safetensors", backbone, config, PREPROCESS)
    found = load_encoder(tmp_path / "a.safetensors")
    x = torch.randn(2, 1, 32, 32)
    with torch.no_grad():
        assert torch.equal(found(x), backbone(x))
    assert found.config == BackboneConfig(name="vit_tiny_patch16_224", **MOCO_V3)  # type: ignore[arg-type]
    fresh = found.fresh(seed=3)  # the same seed: as it was before training, its initialisation too
    assert all(torch.equal(a, b) for a, b in zip(fresh.state_dict().values(), backbone.state_dict().values()))
    assert found.fresh(seed=4).blocks[0].attn.num_heads == 12  # type: ignore[index, union-attr]


@pytest.mark.parametrize(
    ("config", "described"),
    [
        (BackboneConfig(), {"name": "tiny", "stem": "auto", "width": 32}),
        (BackboneConfig(name="resnet18"), {"name": "resnet18", "stem": "auto"}),
        (BackboneConfig(name="vit_tiny_patch16_224"), {"name": "vit_tiny_patch16_224", "stem": "auto"}),
        (BackboneConfig(name="vit_tiny_patch16_224", drop_path=0.1), {"name": "vit_tiny_patch16_224", "stem": "auto"}),
        (
            BackboneConfig(name="vit_small_patch16_224", heads=12),
            {"name": "vit_small_patch16_224", "stem": "auto", "heads": 12},
        ),
    ],
    ids=lambda value: "" if isinstance(value, dict) else value.name,
)
def test_a_description_says_what_is_not_the_models_own_and_of_version_0_1_nothing_new(
    config: BackboneConfig, described: dict[str, Any]
) -> None:
    assert config.described() == described
    again = BackboneConfig.from_description(described)
    assert again.described() == described


def test_an_untrained_twin_has_the_architecture_and_other_weights(tmp_path: Path) -> None:
    backbone = saved(tmp_path / "a.safetensors")
    fresh = load_encoder(tmp_path / "a.safetensors").fresh(seed=0)
    assert [p.shape for p in fresh.parameters()] == [p.shape for p in backbone.parameters()]
    assert not torch.equal(next(fresh.parameters()), next(backbone.parameters()))


class Gadget:
    """Would make a file if it were unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize("kind", ["cut", "pickle", "foreign", "format", "other weights", "empty"])
def test_a_file_that_is_no_encoder_is_refused_in_one_line_and_runs_nothing(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "encoder.safetensors"
    saved(path)
    with safetensors.safe_open(path, framework="pt") as file:
        described = json.loads(file.metadata()["stopgrad"])
    if kind == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    elif kind == "pickle":
        path.write_bytes(pickle.dumps(Gadget(tmp_path / "owned")))
    elif kind == "foreign":
        path.write_bytes(safetensors.torch.save({"x": torch.zeros(1)}))
    elif kind == "format":
        path.write_bytes(
            safetensors.torch.save({"x": torch.zeros(1)}, {"stopgrad": json.dumps({**described, "format": 9})})
        )
    elif kind == "other weights":
        path.write_bytes(safetensors.torch.save({"x": torch.zeros(1)}, {"stopgrad": json.dumps(described)}))
    else:
        path.write_bytes(b"")
    with pytest.raises(CheckpointError) as caught:
        load_encoder(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "owned").exists()


def test_a_missing_encoder_says_where_one_is_found(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=r"no such encoder; a finished run has encoder\.safetensors"):
        load_encoder(tmp_path / "none.safetensors")


def test_nothing_in_the_package_reads_a_format_that_can_run_code() -> None:
    package = Path(__file__).resolve().parent.parent / "stopgrad"
    dangerous = re.compile(
        r"weights_only=False|pickle\.loads?\(|yaml\.load\(|allow_pickle=True|(?<![\w.])(eval|exec)\("
    )
    found = [str(path) for path in package.rglob("*.py") if dangerous.search(path.read_text())]
    assert dangerous.search("x = pickle.load(file)")
    assert not found


def test_nothing_in_the_package_loads_a_program() -> None:
    """As text it may stand there: it is what a user is told to type."""
    package = Path(__file__).resolve().parent.parent / "stopgrad"
    calls = {
        ast.unparse(node.func)
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
    }
    assert "torch.export.export" in calls
    assert not [call for call in calls if call.endswith("export.load")]


@pytest.mark.parametrize(
    "change",
    [
        {"backbone": 5},
        {"preprocess": []},
        {"backbone": {"name": "tiny", "stem": "auto", "width": 40_000}},  # would be 920 GB
        {"backbone": {"name": "tiny", "stem": "auto", "width": 1e400}},
        {"backbone": {"name": "tiny", "stem": "auto"}},
        {"backbone": {"name": "tiny", "stem": "auto\nseed: 1", "width": 32}},
        {"backbone": {"name": "\x1b[31mtiny", "stem": "auto", "width": 32}},
        {"backbone": {"name": ["tiny"], "stem": "auto", "width": 32}},
        {"backbone": {"name": "tiny", "stem": "auto", "width": 32, "heads": 12}},
        *(
            {"backbone": {"name": "vit_tiny_patch16_224", "stem": "auto", **part}}
            for part in (
                {"heads": "12"},
                {"heads": True},
                {"heads": -1},
                {"positions": ["sincos"]},
                {"positions": "\x1b[31msincos"},
                {"init_scheme": {}},
            )
        ),
        *(
            {"preprocess": {**PREPROCESS.as_dict(), **part}}
            for part in (
                {"image_size": 100_000},
                {"image_size": 0},
                {"image_size": "32"},
                {"image_size": True},
                {"crop_fraction": 0},
                {"crop_fraction": "1"},
                {"channels": -1},
                {"channels": 3},
                {"mean": [0.5, 0.5]},
                {"mean": ["a"]},
                {"mean": "a"},
                {"mean": [float("nan")]},
                {"mean": [10**400]},
                {"std": [0]},
                {"depth": 12},
                {"more": 1},
            )
        ),
        "[" * 100_000,
    ],
    ids=lambda change: str(change)[:60],
)
def test_a_hostile_description_is_refused_in_one_line(change: Any, tmp_path: Path) -> None:
    path = tmp_path / "encoder.safetensors"
    saved(path)
    with safetensors.safe_open(path, framework="pt") as file:
        described = json.loads(file.metadata()["stopgrad"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dict
    text = change if isinstance(change, str) else json.dumps({**described, **change})
    path.write_bytes(safetensors.torch.save(tensors, {"stopgrad": text}))
    for read in (load_encoder, lambda path: read_start(str(path))):
        # what only contradicts the weights is seen when they are read
        if read is not load_encoder and ("40000" in text or '"channels": 3' in text):
            continue
        with pytest.raises(CheckpointError) as caught:
            read(path)
        assert str(path) in str(caught.value)
        assert str(caught.value).isprintable()


def test_a_width_beside_a_name_that_has_none_is_read_over(tmp_path: Path) -> None:
    assert BackboneConfig.from_description({"name": "resnet18", "stem": "auto", "width": 64}).name == "resnet18"
