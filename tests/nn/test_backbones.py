"""Backbones: one vector an image, seeded, small stems, and errors that name the nearest model."""

import pytest
import torch
from torch import nn

from stopgrad.contracts import ConfigError
from stopgrad.nn.backbones import build_backbone
from stopgrad.nn.config import BackboneConfig
from stopgrad.nn.heads import mlp


@pytest.mark.parametrize(("name", "size", "channels"), [("tiny", 32, 3), ("tiny", 48, 1), ("resnet18", 32, 3)])
def test_a_backbone_gives_one_vector_of_its_dim(name: str, size: int, channels: int) -> None:
    backbone = build_backbone(BackboneConfig(name=name), channels, size, seed=0)
    out = backbone(torch.randn(2, channels, size, size))
    assert out.shape == (2, backbone.dim)


def test_a_vit_takes_the_size_of_the_run() -> None:
    backbone = build_backbone(BackboneConfig(name="vit_tiny_patch16_224"), 3, 64, seed=0)
    assert backbone(torch.randn(1, 3, 64, 64)).shape == (1, 192)


def test_a_size_the_patch_does_not_divide_is_refused() -> None:
    with pytest.raises(ConfigError, match="vit_tiny_patch16_224 can't be built for 50-pixel"):
        build_backbone(BackboneConfig(name="vit_tiny_patch16_224"), 3, 50, seed=0)


def test_the_seed_decides_the_weights_and_the_global_state_is_left_alone() -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    a, b, c = (build_backbone(BackboneConfig(), 3, 32, seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters()))
    assert not torch.equal(a.stem.weight, c.stem.weight)  # type: ignore[union-attr, arg-type]


def test_small_images_get_the_small_stem_and_large_ones_the_standard_one() -> None:
    small = build_backbone(BackboneConfig(name="resnet18"), 3, 32, 0)
    large = build_backbone(BackboneConfig(name="resnet18"), 3, 96, 0)
    assert small.conv1.stride == (1, 1)  # type: ignore[union-attr]
    assert isinstance(small.maxpool, nn.Identity)
    assert large.conv1.stride == (2, 2)  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["tiny", "resnet18"])
def test_every_residual_block_starts_as_the_identity(name: str) -> None:
    backbone = build_backbone(BackboneConfig(name=name), 3, 32, 0)
    last = [bn for key, bn in backbone.named_modules() if key.endswith("bn2")]
    assert last
    assert all(torch.count_nonzero(bn.weight) == 0 for bn in last)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"name": "resnet19"}, "did you mean 'resnet1"),
        ({"name": "tiny", "stem": "small"}, "tiny has one stem"),
        ({"name": "vit_tiny_patch16_224", "stem": "small"}, "needs a ResNet"),
    ],
)
def test_a_wrong_backbone_says_what_to_do(config: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_backbone(BackboneConfig(**config), 3, 32, 0)  # type: ignore[arg-type]


@pytest.mark.parametrize("config", [{"width": 30}, {"name": "resnet18", "width": 64}])
def test_a_width_that_nobody_could_use_is_refused(config: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"backbone\.width"):
        BackboneConfig(**config)  # type: ignore[arg-type]


def test_heads_have_a_bias_only_where_no_norm_would_take_it_away() -> None:
    head = mlp([4, 8, 3], hidden_norm="batch", output_norm="none")
    linear = [module for module in head if isinstance(module, nn.Linear)]
    assert [layer.bias is not None for layer in linear] == [False, True]
    assert [type(module).__name__ for module in head] == ["Linear", "BatchNorm", "ReLU", "Linear"]


def test_the_projectors_last_norm_has_no_affine_part_and_computes_in_float32() -> None:
    head = mlp([4, 3], hidden_norm="batch", output_norm="batch_no_affine")
    assert head[-1].weight is None
    with torch.autocast("cpu", dtype=torch.bfloat16):
        z = head(torch.randn(16, 4))
    assert z.dtype == torch.float32
    torch.testing.assert_close(z.mean(0), torch.zeros(3), atol=1e-5, rtol=0)
