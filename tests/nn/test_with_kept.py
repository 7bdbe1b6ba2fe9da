"""Layers of a projector on a backbone: what is kept, under which names, and that it is one trunk to everybody else."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from stopgrad.contracts import CheckpointError, ConfigError, Preprocess
from stopgrad.encoder import load_encoder, save_encoder
from stopgrad.encoder.export import export_encoder
from stopgrad.encoder.file import Encoder
from stopgrad.nn.backbones import build_backbone, of_one_size
from stopgrad.nn.batch_norm import split
from stopgrad.nn.config import BackboneConfig
from stopgrad.nn.heads import dino_mlp, mlp
from stopgrad.nn.kept import KeptLayer
from stopgrad.nn.with_kept import WithKept, first_layers, with_kept

V2 = (KeptLayer(width=12), KeptLayer(width=6, norm="batch", activation="none"))
TWO = BackboneConfig(width=8, kept=V2)
PREPROCESS = Preprocess(image_size=16)


def shaken(module: nn.Module) -> nn.Module:
    """Every parameter and statistic at values that a mistake would show."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in [*module.parameters(), *module.buffers()]:
            if value.is_floating_point():
                value.copy_(torch.rand(value.shape, generator=generator) + 0.1)
    return module


@pytest.mark.parametrize(
    ("projector", "layers"),
    [
        (mlp([32, 12, 12, 6], "batch", "batch"), (KeptLayer(width=12), KeptLayer(width=12), V2[1])),
        (mlp([32, 12, 6], "none", "none"), (KeptLayer(width=12, norm="none", bias=True),
                                            KeptLayer(width=6, norm="none", bias=True, activation="none"))),
        (mlp([32, 12, 6], "layer", "batch_no_affine"), (KeptLayer(width=12, norm="layer"),
                                                        KeptLayer(width=6, norm="batch_no_affine", activation="none"))),
        (mlp([32, 12, 6], "batch", "none", hidden_bias=True, output_bias=False),
         (KeptLayer(width=12, bias=True), KeptLayer(width=6, norm="none", activation="none"))),
        (split(mlp([32, 12, 6], "batch", "batch"), 2), V2),
        (nn.Linear(32, 6), (KeptLayer(width=6, norm="none", bias=True, activation="none"),)),
    ],
)  # fmt: skip
def test_layers_are_read_off_a_projector_and_compute_the_same(
    projector: nn.Module, layers: tuple[KeptLayer, ...]
) -> None:
    shaken(projector).eval()
    h = torch.randn(4, 32)
    for count in range(len(layers) + 1):
        found, tensors = first_layers(projector, count)
        assert found == layers[:count]
        trunk = nn.Identity()
        trunk.dim = 32  # type: ignore[assignment]
        built = with_kept(trunk, found, seed=0).eval()
        built.kept.load_state_dict(tensors)
        assert built.dim == (found[-1].width if found else 32)
        expected, linears = h, 0
        for part in projector if isinstance(projector, nn.Sequential) else [projector]:
            linears += isinstance(part, nn.Linear)
            if linears > count:
                break
            expected = part(expected)
        assert torch.equal(built(h), expected)


def test_dinos_hidden_layers_can_be_kept_and_its_normalised_end_can_not() -> None:
    projector = dino_mlp(32, 12, 6, 3)
    assert first_layers(projector, 2)[0] == (KeptLayer(width=12, norm="none", bias=True, activation="gelu"),) * 2
    with pytest.raises(ConfigError, match="has a Normalise, which can't be kept; keep fewer"):
        first_layers(projector, 3)


@pytest.mark.parametrize(
    ("projector", "said"),
    [
        (mlp([32, 12, 6], "batch", "none"), "--from-projector-layer 3: the projector has 2 layers; use 2 or less"),
        (nn.Linear(32, 6), "the projector has 1 layer; use 1 or less"),
        (nn.Identity(), "the projector has no layer; use 0$"),
    ],
)
def test_more_layers_than_there_are_is_an_error(projector: nn.Module, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        first_layers(projector, 3)


def test_one_layer_more_is_exactly_one_linear_layer_and_one_norm_more() -> None:
    counts = []
    for kept in ((), V2[:1]):
        net = build_backbone(dataclasses.replace(TWO, kept=kept), 3, 16, seed=0)
        parts = [type(part).__name__ for part in net.modules()]
        counts.append({name: parts.count(name) for name in ("Linear", "BatchNorm", "Conv2d", "BatchNorm2d")})
    assert counts[1] == {**counts[0], "Linear": counts[0]["Linear"] + 1, "BatchNorm": counts[0]["BatchNorm"] + 1}


def test_a_backbone_with_kept_layers_is_built_from_its_settings_and_seed() -> None:
    before = torch.get_rng_state()
    one, two, other = (build_backbone(TWO, 3, 16, seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert isinstance(one, WithKept)
    assert one.dim == 6
    assert one.eval()(torch.randn(4, 3, 16, 16)).shape == (4, 6)
    a, b, c = (net.state_dict() for net in (one, two, other))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not torch.equal(a["kept.0.weight"], c["kept.0.weight"])
    plain = build_backbone(dataclasses.replace(TWO, kept=()), 3, 16, seed=0).state_dict()
    assert all(torch.equal(value, a[f"trunk.{name}"]) for name, value in plain.items())


def encoder(config: BackboneConfig = TWO, size: int = 16) -> Encoder:
    return Encoder(shaken(build_backbone(config, 3, size, 0)).eval(), Preprocess(image_size=size), config)


def test_the_file_brings_all_of_it_back(tmp_path: Path) -> None:
    made = encoder()
    save_encoder(tmp_path / "e.safetensors", made.backbone, made.config, made.preprocess)
    found = load_encoder(tmp_path / "e.safetensors")
    assert (found.config, found.dim) == (TWO, 6)
    x = torch.randn(4, 3, 16, 16)
    assert torch.equal(found(x), made(x))
    assert BackboneConfig.from_description(TWO.described()) == TWO
    assert "kept" not in BackboneConfig().described()  # files without are as they were
    assert isinstance(found.fresh(3), WithKept)


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        ({"width": 0}, "width must be 1 to 65536"),
        ({"width": 10**9}, "width must be 1 to 65536"),
        ({"width": 6.5}, "a layer has a width"),
        ({"width": True}, "a layer has a width"),
        ({"width": 6, "bias": 1}, "bias true or false"),
        ({"width": 6, "norm": "none of ours"}, "a norm of"),
        ({"width": 6, "activation": "exec"}, "activation of"),
        ({"width": 6, "more": 1}, "a layer has a width"),
        ("text", "must be a list of at most 16 layers"),
    ],
)
def test_a_description_that_describes_nothing_is_refused(layer: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        BackboneConfig.from_description({**TWO.described(), "kept": [layer]})
    with pytest.raises(ConfigError, match="at most 16"):
        BackboneConfig.from_description({**TWO.described(), "kept": [{"width": 6}] * 17})


def test_widths_that_are_not_those_of_the_weights_are_refused_before_anything_is_made(tmp_path: Path) -> None:
    wide = dataclasses.replace(TWO, kept=(KeptLayer(width=65536), KeptLayer(width=65536)))
    made = encoder()
    save_encoder(tmp_path / "e.safetensors", made.backbone, wide, made.preprocess)
    with pytest.raises(CheckpointError, match=r"widths of the kept layers are \[65536, 65536\], of weights \[12, 6\]"):
        load_encoder(tmp_path / "e.safetensors")
    tensors = {name: value for name, value in made.backbone.state_dict().items() if not name.startswith("kept")}
    save_encoder(tmp_path / "e.safetensors", Stripped(tensors), TWO, PREPROCESS)
    with pytest.raises(CheckpointError, match=r"of weights \[\]"):
        load_encoder(tmp_path / "e.safetensors")


class Stripped(nn.Module):
    """Whatever tensors one likes."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        super().__init__()
        self.tensors = tensors

    def state_dict(self, *_: Any, **__: Any) -> dict[str, Tensor]:  # type: ignore[override]
        return self.tensors


def test_it_is_exported_with_its_layers(tmp_path: Path) -> None:
    pixels = torch.rand(8, 3, 16, 16).mul(255).numpy()
    done = export_encoder(encoder(), tmp_path / "e.safetensors", pixels, "noise")
    assert "tiny with layers of a projector is stopgrad's own architecture" in done.checked
    described = safetensors.torch.load_file(tmp_path / "e.safetensors")
    assert {"trunk.stem.weight", "kept.0.weight", "kept.4.running_var"} <= described.keys()


@pytest.mark.slow
def test_it_is_exported_to_onnx_and_computes_the_same(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    pixels = torch.rand(8, 3, 16, 16).mul(255).numpy()
    assert export_encoder(encoder(), tmp_path / "e.onnx", pixels, "noise").difference is not None


def test_a_vit_below_the_layers_is_made_one_of_one_size() -> None:
    config = BackboneConfig(name="vit_tiny_patch16_224", kept=V2)
    made = encoder(config, 32)
    found = of_one_size(made.backbone, config.name)
    assert isinstance(found, WithKept)
    assert not found.trunk.dynamic_img_size
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(found.eval()(x), made(x))
