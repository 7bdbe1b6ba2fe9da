"""An image as overlapping patches: the grid, patches that know nothing of each other, the masked context, the file."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from stopgrad.contracts import ConfigError, Preprocess
from stopgrad.encoder import Encoder, load_encoder, save_encoder
from stopgrad.nn.backbones import build_backbone
from stopgrad.nn.config import BackboneConfig
from stopgrad.nn.patches import Patches, RowContext, grid_of

TINY = BackboneConfig(width=8, norm="layer", patches=8)
RESNET = BackboneConfig(name="resnet18", norm="layer", patches=16, stages=3)


def trunk(config: BackboneConfig = TINY, size: int = 32, seed: int = 0) -> Patches:
    """Its residual branches do something: at scale 0 they would hide what stands before them."""
    made = build_backbone(config, 3, size, seed)
    assert isinstance(made, Patches)
    generator = torch.Generator().manual_seed(1)
    for module in made.modules():
        if isinstance(module, nn.GroupNorm):
            module.weight.data.uniform_(0.5, 1.5, generator=generator)
    return made


@pytest.mark.parametrize(
    ("size", "side", "grid"), [(256, 64, 7), (32, 8, 7), (30, 10, 5), (64, 64, 1), (224, 64, 6), (33, 8, 7), (7, 8, 0)]
)
def test_patches_overlap_by_half(size: int, side: int, grid: int) -> None:
    assert grid_of(size, side) == grid


@pytest.mark.parametrize(("size", "margin"), [(32, 0), (35, 1), (34, 1)])
def test_a_patch_is_the_pixels_of_its_place(size: int, margin: int) -> None:
    x = torch.randn(2, 3, size, size)
    cut = trunk().cut(x)
    assert cut.shape == (2, 7, 7, 3, 8, 8)
    for r in range(7):
        for c in range(7):
            top, left = margin + 4 * r, margin + 4 * c
            assert torch.equal(cut[:, r, c], x[:, :, top : top + 8, left : left + 8])


@pytest.mark.parametrize(("config", "dim"), [(TINY, 32), (RESNET, 256)])
def test_the_features_are_the_mean_over_the_grid_of_what_each_patch_gives_alone(
    config: BackboneConfig, dim: int
) -> None:
    backbone, x = trunk(config).eval(), torch.randn(2, 3, 32, 32)
    assert backbone.dim == dim
    with torch.no_grad():
        cut = backbone.cut(x)
        alone = torch.stack([backbone.encoder(cut[:, r, c]) for r in range(cut.shape[1]) for c in range(cut.shape[1])])
        torch.testing.assert_close(backbone(x), alone.mean(dim=0), rtol=1e-4, atol=1e-5)


def test_a_patch_does_not_know_of_the_others_in_training_either() -> None:
    backbone, x = trunk().train(), torch.randn(2, 3, 32, 32)
    before = backbone.latents(backbone.cut(x))
    x[:, :, 12:16, :] += 1.0  # in the patches of rows 2 and 3
    after = backbone.latents(backbone.cut(x))
    changed = (before - after).abs().amax(dim=(0, 2, 3))
    assert (changed > 1e-4).tolist() == [False, False, True, True, False, False, False]


def test_stages_that_are_left_out_have_no_weights() -> None:
    assert not [name for name in trunk(RESNET).state_dict() if "layer4" in name]
    whole = BackboneConfig(name="resnet18", norm="layer", patches=16)
    assert trunk(whole).dim == 512


@pytest.mark.parametrize("config", [TINY, RESNET, BackboneConfig(width=8, norm="layer")])
def test_norm_layer_leaves_no_batch_norm_and_sees_a_sample_by_itself(config: BackboneConfig) -> None:
    backbone = build_backbone(config, 3, 32, 0).train()
    assert not [module for module in backbone.modules() if isinstance(module, _BatchNorm)]
    x = torch.randn(4, 3, 32, 32)
    torch.testing.assert_close(backbone(x)[:2], backbone(x[:2]), rtol=1e-4, atol=1e-5)


def test_plain_timm_builds_a_resnet_with_layer_norm_from_its_arguments() -> None:
    timm = pytest.importorskip("timm")
    model: Any = build_backbone(BackboneConfig(name="resnet18", norm="layer", stem="standard"), 3, 64, 0)
    again = timm.create_model("resnet18", **model.timm_arguments)
    again.load_state_dict(model.state_dict())
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(model.eval()(x), again.eval()(x))


@pytest.mark.parametrize("row", [0, 3, 6])
def test_a_row_that_changes_leaves_the_contexts_above_it_as_they_were_to_the_bit(row: int) -> None:
    torch.manual_seed(0)
    context = RowContext(16, 32, 4)
    z = torch.randn(3, 7, 7, 16)
    before = context(z)
    z[:, row] = torch.randn(3, 7, 16)
    after = context(z)
    assert before.shape == (3, 7, 7, 32)
    assert torch.equal(before[:, :row], after[:, :row])
    assert not (before[:, row] == after[:, row]).any()


def test_a_context_sees_as_many_rows_above_it_as_there_are_layers() -> None:
    torch.manual_seed(0)
    context, z = RowContext(4, 8, 3).double(), torch.randn(1, 9, 9, 4, dtype=torch.float64)
    before = context(z)
    z[:, 2] += 1.0
    changed = (context(z) - before).abs().amax(dim=(0, 2, 3)) > 1e-12
    assert changed.tolist() == [False, False, True, True, True, True, False, False, False]


@pytest.mark.parametrize("config", [TINY, RESNET])
def test_it_is_described_and_loaded_and_fresh(config: BackboneConfig, tmp_path: Path) -> None:
    described = config.described()
    assert described["patches"] == config.patches
    assert described["norm"] == "layer"
    assert BackboneConfig.from_description(described) == config
    backbone = trunk(config, seed=3).eval()
    preprocess = Preprocess(image_size=32)
    save_encoder(tmp_path / "encoder.safetensors", backbone, config, preprocess)
    found = load_encoder(tmp_path / "encoder.safetensors")
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(found(x), backbone(x))
    assert found.config == config
    assert found.fresh(0).state_dict().keys() == backbone.state_dict().keys()


def test_what_was_there_before_cpc_is_described_as_it_was() -> None:
    assert BackboneConfig().described() == {"name": "tiny", "stem": "auto", "width": 32}
    audio = BackboneConfig(name="cpc_audio", width=64, context=32, norm="none")
    assert audio.described() == {"name": "cpc_audio", "stem": "auto", "width": 64, "norm": "none", "context": 32}
    assert BackboneConfig.from_description(audio.described()) == audio


def test_onnx_gives_torchs_features_at_any_batch() -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from stopgrad.encoder.graph import onnx_bytes
    from stopgrad.encoder.pixels import FromPixels

    encoder = Encoder(trunk().eval(), Preprocess(image_size=32), TINY)
    session = onnxruntime.InferenceSession(io.BytesIO(onnx_bytes(encoder)).getvalue())
    for b in (1, 3):
        pixels = np.random.default_rng(b).uniform(0, 255, (b, 3, 32, 32)).astype(np.float32)
        (found,) = session.run(["features"], {"pixels": pixels})
        with torch.no_grad():
            expected = FromPixels(encoder).eval()(torch.from_numpy(pixels)).numpy()
        np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"patches": 7}, "backbone.patches must be 0 .* even side of 4 pixels or more, got 7"),
        ({"patches": 2}, "even side of 4 pixels or more, got 2"),
        ({"patches": -8}, "got -8"),
        ({"norm": "none"}, "norm=none is for cpc_audio, the backbone is tiny; use norm=layer"),
        ({"name": "cpc_text", "norm": "layer"}, "norm=layer is read by backbones of images and cpc_audio"),
        ({"name": "cpc_audio", "patches": 8}, "patches=8 is read by backbones of images, the backbone is cpc_audio"),
        ({"name": "cpc_audio", "stem": "small"}, "stem=small is read by backbones of images"),
        ({"name": "cpc_audio", "heads": 4}, "heads is read by timm's models, the backbone is cpc_audio"),
        ({"stages": 3, "patches": 8}, "stages=3 is read by timm's ResNets .* backbone is tiny on patches of 8"),
        ({"name": "resnet18", "stages": 3}, "stages=3 is read by timm's ResNets on backbone.patches"),
        ({"name": "resnet18", "patches": 8, "stages": 5}, "stages must be 1 to 4, got 5"),
        ({"context": 64}, "context=64 is read by cpc_audio and cpc_text, the backbone is tiny; remove it"),
        ({"name": "cpc_audio", "context": 0}, "context at least 1, got 32 and 0"),
        ({"name": "cpc_audio", "width": 8000}, "at most 4096, .* got 8000 and 256"),
        ({"patches": 8, "split": "lab"}, "split=lab is read by backbones of whole images"),
        ({"name": "resnet18", "norm": "layer", "init": "timm:resnet18"}, "norm=layer is not what timm:resnet18"),
    ],
)
def test_a_setting_that_nobody_reads_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        BackboneConfig(**settings)


@pytest.mark.parametrize(
    ("config", "size", "message"),
    [
        (BackboneConfig(patches=8), 32, "needs a backbone without batch norm, .* type --set backbone.norm=layer"),
        (BackboneConfig(name="resnet18", patches=8), 32, "without batch norm"),
        (TINY, 6, "patches=8 is larger than the images, which have 6 pixels; use backbone.patches=4"),
        (BackboneConfig(name="vit_tiny_patch16_224", norm="layer"), 32, "norm=layer needs tiny or a ResNet, got vit_t"),
        (BackboneConfig(name="vit_tiny_patch16_224", patches=16, stages=3), 32, "stages=3 needs a ResNet, got vit_t"),
    ],
)
def test_a_trunk_that_can_not_be_is_refused(config: BackboneConfig, size: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_backbone(config, 3, size, 0)


def test_a_smaller_crop_than_a_patch_is_refused() -> None:
    with pytest.raises(ConfigError, match="larger than the crop, which has 6 pixels"):
        trunk().cut(torch.zeros(1, 3, 6, 6))


def test_a_strangers_description_asks_for_no_more_than_numbers_it_may_have() -> None:
    for change in ({"norm": "weight"}, {"patches": "8"}, {"context": 1e9}, {"patches": True}):
        with pytest.raises(ConfigError, match="norm must be of"):
            BackboneConfig.from_description({**TINY.described(), **change})
    with pytest.raises(ConfigError, match="at most 4096"):
        BackboneConfig.from_description({"name": "cpc_audio", "stem": "auto", "width": 10**6})
