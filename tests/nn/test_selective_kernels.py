"""timm's ResNets with selective kernels are ResNets here: stem, sizes, first weights, norms, files."""

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn

from stopgrad.contracts import Preprocess
from stopgrad.encoder import Encoder, export_encoder, load_encoder
from stopgrad.encoder.pixels import as_pixels
from stopgrad.nn.backbones import build_backbone
from stopgrad.nn.batch_norm import SplitBatchNorm, SyncBatchNorm, split, synchronise
from stopgrad.nn.config import BackboneConfig
from stopgrad.views import preprocess_batch

NAMES = {"skresnet18": 512, "skresnet34": 512, "skresnet50": 2048, "skresnet50d": 2048}
SIDE = 32


def made(name: str = "skresnet18", side: int = SIDE, channels: int = 3) -> nn.Module:
    return build_backbone(BackboneConfig(name=name), channels, side, seed=0)


def awake(backbone: nn.Module) -> nn.Module:
    """With branches that count, and other scales in each norm; the same each time."""
    torch.manual_seed(3)
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    return backbone


def images(b: int = 6, side: int = SIDE) -> Tensor:
    return torch.randn(b, 3, side, side, generator=torch.Generator().manual_seed(1))


def timms(backbone: nn.Module, small_stem: bool) -> nn.Module:
    """Plain timm's skresnet18 with the weights of ours and, for small images, with our stem."""
    model: nn.Module = timm.create_model("skresnet18", num_classes=0)
    if small_stem:
        model.conv1, model.maxpool = nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.Identity()
    model.load_state_dict(backbone.state_dict())  # the names of tensors are timm's
    return model


@pytest.mark.parametrize("name", NAMES)
def test_small_images_get_the_small_stem_and_one_vector_through_blocks_that_begin_as_the_identity(name: str) -> None:
    backbone = made(name, channels=1)
    assert backbone.conv1.weight.shape == (64, 1, 3, 3)  # type: ignore[union-attr]
    assert backbone.conv1.stride == (1, 1)
    assert isinstance(backbone.maxpool, nn.Identity)
    assert backbone(torch.randn(2, 1, SIDE, SIDE)).shape == (2, NAMES[name])
    assert backbone.dim == NAMES[name]
    blocks = [block for i in range(1, 5) for block in backbone.get_submodule(f"layer{i}").children()]
    assert len(blocks) == (8 if name == "skresnet18" else 16)
    last = [getattr(block, "conv3" if NAMES[name] == 2048 else "conv2").bn for block in blocks]
    assert all(torch.count_nonzero(norm.weight) == 0 for norm in last)


def test_large_images_get_the_standard_stem() -> None:
    plain, deep = made("skresnet18", 96), made("skresnet50d", 96)
    assert plain.conv1.stride == (2, 2)
    assert isinstance(plain.maxpool, nn.MaxPool2d)
    assert [part.kernel_size for part in deep.conv1.children() if isinstance(part, nn.Conv2d)] == [(3, 3)] * 3  # type: ignore[union-attr]
    assert plain(images(2, 96)).shape == (2, 512)


@pytest.mark.parametrize("side", [SIDE, 80])
def test_plain_timm_computes_the_same_from_the_same_tensors(side: int) -> None:
    ours = awake(made(side=side))
    theirs = timms(ours, side == SIDE)
    x = images(3, side)
    torch.testing.assert_close(ours(x), theirs(x))
    for (name, moved), other in zip(ours.state_dict().items(), theirs.state_dict().values()):
        torch.testing.assert_close(moved, other, msg=name)
    ours.zero_grad()
    (ours.train()(x).square().sum()).backward()
    (theirs.train()(x).square().sum()).backward()
    for (name, parameter), other in zip(ours.named_parameters(), theirs.parameters()):
        torch.testing.assert_close(parameter.grad, other.grad, msg=name, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))


def test_its_norms_are_plain_so_that_processes_can_share_them_and_one_can_split_them() -> None:
    assert not [part for part in made().modules() if isinstance(part, BatchNormAct2d)]
    for change, kind in ((synchronise, SyncBatchNorm), (lambda module: split(module, 2), SplitBatchNorm)):
        changed = change(awake(made()))
        norms = [part for part in changed.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
        assert all(type(norm) is kind for norm in norms)
        assert len(norms) == len([key for key in changed.state_dict() if key.endswith("running_mean")])
    x = images(4)
    plain = awake(made())
    torch.testing.assert_close(synchronise(awake(made()))(x), plain(x), rtol=1e-4, atol=1e-5)
    halves = torch.cat([plain(part) for part in x.chunk(2)])
    torch.testing.assert_close(split(awake(made()), 2)(x), halves, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("suffix", [".onnx", ".safetensors"])
def test_a_file_of_it_gives_the_same_features(suffix: str, tmp_path: Path) -> None:
    if suffix == ".onnx":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    backbone = awake(made())
    with torch.no_grad():
        backbone(images(16))
    preprocess = Preprocess(image_size=SIDE, crop_fraction=0.875)
    one = Encoder(backbone.eval(), preprocess, BackboneConfig(name="skresnet18"))
    shown = list(np.random.default_rng(0).integers(0, 256, (8, 40, 50, 3), dtype=np.uint8))
    path = tmp_path / f"encoder{suffix}"
    done = export_encoder(one, path, as_pixels(shown, preprocess), "noise")
    assert done.difference is not None
    if suffix == ".safetensors":
        assert "plain timm" in done.checked
        again, x = load_encoder(path), preprocess_batch(shown, preprocess)
        np.testing.assert_allclose(again(x).numpy(), one(x).numpy(), atol=1e-5)
