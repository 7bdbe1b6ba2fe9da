"""ViTs: crops of other sizes, MoCo v3's positions, patches, heads and initialisation, stochastic depth."""

import math
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

from stopgrad.contracts import ConfigError
from stopgrad.nn.backbones import build_backbone, check_sizes, of_one_size
from stopgrad.nn.config import BackboneConfig
from stopgrad.nn.vit import set_up_vit, sincos, without_drop_path

VIT = "vit_tiny_patch16_224"


def vit(size: int = 64, seed: int = 0, **settings: Any) -> Any:
    return build_backbone(BackboneConfig(name=VIT, **settings), 3, size, seed)


@pytest.mark.parametrize("name", [VIT, "vit_small_patch16_224", "vit_base_patch16_224"])
def test_local_crops_of_96_go_through_a_vit_for_224_and_train_the_same_positions(name: str) -> None:
    model = build_backbone(BackboneConfig(name=name), 3, 224, seed=0)
    features = [model(torch.randn(2, 3, side, side)) for side in (224, 96)]
    assert [tuple(x.shape) for x in features] == [(2, model.dim)] * 2
    (features[1] * torch.randn(2, model.dim)).sum().backward()
    assert float(model.pos_embed.grad.norm()) > 1e-3  # type: ignore[union-attr, operator, arg-type]


def test_at_its_own_size_it_is_timms_model_to_the_bit_and_at_others_positions_are_interpolated() -> None:
    model, x = vit(64).eval(), torch.randn(2, 3, 64, 64)
    assert model.timm_arguments == {"num_classes": 0, "in_chans": 3, "pretrained": False, "img_size": 64}
    plain = timm.create_model(VIT, **model.timm_arguments).eval()
    plain.load_state_dict(model.state_dict())
    small = timm.create_model(VIT, num_classes=0, img_size=32).eval()
    state = dict(model.state_dict())
    grid = state["pos_embed"][:, 1:].reshape(1, 4, 4, -1).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, size=(2, 2), mode="bicubic", antialias=True).permute(0, 2, 3, 1).reshape(1, 4, -1)
    state["pos_embed"] = torch.cat([state["pos_embed"][:, :1], grid], dim=1)
    small.load_state_dict(state)
    with torch.no_grad():
        assert torch.equal(model(x), plain(x))
        torch.testing.assert_close(model(x[:, :, :32, :32]), small(x[:, :, :32, :32]))


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        (VIT, 50, "can't be built for 50-pixel images: its patches are 16 pixels; use --set views.crops.N.size=48"),
        ("cait_xxs24_224", 96, "can't be built for 96-pixel images"),
    ],
)
def test_a_crop_it_can_not_take_is_refused(name: str, size: int, message: str) -> None:
    model = build_backbone(BackboneConfig(name=name), 3, 224, seed=0)
    check_sizes(model, name, 3, [224])
    with pytest.raises(ConfigError, match=message):
        check_sizes(model, name, 3, [224, size])
    assert model.training


def test_an_argument_that_a_model_refuses_late_does_not_change_its_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    real, expected = timm.create_model, vit()

    def late(name: str, **arguments: Any) -> nn.Module:
        if "dynamic_img_size" in arguments:
            torch.rand(3)
            raise TypeError("dynamic_img_size")
        return real(name, **arguments)

    monkeypatch.setattr(timm, "create_model", late)
    found = vit()
    assert not found.dynamic_img_size
    assert all(torch.equal(a, b) for a, b in zip(found.parameters(), expected.parameters()))


def test_check_sizes_takes_what_the_model_takes() -> None:
    check_sizes(vit(64), VIT, 3, [32, 96, 224])
    check_sizes(build_backbone(BackboneConfig(), 3, 32, 0), "tiny", 3, [96, 17])


def test_sincos_is_the_formula_and_the_class_token_stands_at_zero() -> None:
    found, dim = sincos(3, 5, 8), 8
    for row in range(3):
        for column in range(5):
            expected = [
                wave(place / 10_000 ** (i / (dim // 4)))
                for place in (row, column)
                for wave in (math.sin, math.cos)
                for i in range(dim // 4)
            ]
            assert found[row * 5 + column].tolist() == pytest.approx(expected, abs=1e-6)
    model = vit(positions="sincos")
    assert not model.pos_embed.requires_grad
    assert not model.pos_embed[0, 0].any()
    assert torch.equal(model.pos_embed[0, 1:], sincos(4, 4, 192))


def test_frozen_patches_and_fixed_positions_are_the_same_bits_after_training() -> None:
    model = vit(patch_projection="frozen", positions="sincos")
    names = ["patch_embed.proj.weight", "patch_embed.proj.bias", "pos_embed"]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert set(dict(model.named_parameters())) - set(trained) == set(names)
    optimiser = torch.optim.AdamW(trained.values(), lr=0.1, weight_decay=0.1)
    for _ in range(3):
        optimiser.zero_grad()
        model(torch.randn(2, 3, 64, 64)).square().mean().backward()
        optimiser.step()
    after = model.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in names)
    assert not torch.equal(after["blocks.0.attn.qkv.weight"], before["blocks.0.attn.qkv.weight"])


def test_12_heads_have_the_weights_of_3_and_compute_something_else() -> None:
    own, twelve = vit().eval(), vit(heads=12).eval()
    assert [block.attn.num_heads for block in twelve.blocks] == [12] * 12
    assert all(torch.equal(a, b) for a, b in zip(own.parameters(), twelve.parameters()))
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert not torch.allclose(own(x), twelve(x))
        plain = timm.create_model(VIT, **twelve.timm_arguments).eval()
        plain.load_state_dict(twelve.state_dict())
        assert torch.equal(plain(x), twelve(x))


def test_moco_v3s_initialisation_is_xaviers_with_query_key_and_value_apart() -> None:
    model, default = vit(init_scheme="moco_v3"), vit()
    bounds = {
        "blocks.0.attn.qkv": 192 + 192,
        "blocks.0.attn.proj": 192 + 192,
        "blocks.0.mlp.fc1": 192 + 768,
        "patch_embed.proj": 3 * 16 * 16 + 192,
    }
    for name, fans in bounds.items():
        layer, bound = model.get_submodule(name), math.sqrt(6 / fans)
        largest = float(layer.weight.detach().abs().max())
        assert 0.99 * bound < largest <= bound
        assert float(layer.weight.detach().std()) == pytest.approx(bound / math.sqrt(3), rel=0.02)
        assert not layer.bias.any()
        assert not torch.equal(layer.weight, default.get_submodule(name).weight)
    assert torch.equal(model.patch_embed.proj.weight, vit(init_scheme="moco_v3").patch_embed.proj.weight)
    assert not torch.equal(model.patch_embed.proj.weight, vit(init_scheme="moco_v3", seed=1).patch_embed.proj.weight)
    assert 0 < float(model.cls_token.detach().abs().max()) < 1e-5


def test_stochastic_depth_is_of_training_alone_and_a_teacher_has_none() -> None:
    torch.manual_seed(0)
    plain, model = vit(), vit(drop_path=0.5)
    assert "drop_path_rate" not in model.timm_arguments
    x = torch.randn(4, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(model.eval()(x), plain.eval()(x))
        model.train()
        assert not torch.equal(model(x), model(x))
        assert torch.equal(without_drop_path(model)(x), plain.train()(x))
    shallow = build_backbone(BackboneConfig(name="resnet18", drop_path=0.5), 3, 32, 0)
    assert [part.drop_prob for part in shallow.modules() if hasattr(part, "drop_prob")][-1] == 0.5


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"name": "resnet18", "patch_projection": "frozen"}, r"backbone\.patch_projection needs a ViT, got resnet18"),
        ({"name": "resnet18", "positions": "sincos"}, r"backbone\.positions needs a ViT, got resnet18; remove it"),
        ({"name": "resnet18", "init_scheme": "moco_v3"}, r"backbone\.init_scheme needs a ViT"),
        ({"name": "resnet18", "heads": 4}, r"resnet18 can't be built: .*num_heads.*; remove backbone\.heads"),
        ({"name": "vgg11", "drop_path": 0.1}, r"vgg11 can't be built: .*drop_path_rate.*; remove backbone\.drop_path"),
        ({"name": VIT, "heads": 5}, r"divisible by num_heads; backbone\.heads=0 takes the model's own"),
        ({"name": "tiny", "positions": "sincos"}, r"backbone\.positions is read by timm's models.*remove it"),
        ({"name": "tiny", "patch_projection": "frozen"}, r"backbone\.patch_projection is read by timm's models"),
        ({"name": "tiny", "drop_path": 0.1}, r"backbone\.drop_path is read by timm's models"),
        ({"name": VIT, "heads": -1}, r"backbone\.heads must be 0 \(the model's own\) or more, got -1"),
        ({"name": VIT, "drop_path": 1.0}, r"backbone\.drop_path must be in \[0, 1\), got 1\.0; DINO uses 0\.1"),
        ({"name": VIT, "init": f"timm:{VIT}", "positions": "sincos"}, r"positions=sincos is not what timm:vit_tiny"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_a_setting_of_vits_where_it_can_not_be_says_what_to_do(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_backbone(BackboneConfig(**config), 3, 32, 0)


def test_a_vit_without_positions_can_not_have_fixed_ones() -> None:
    model = vit()
    model.pos_embed = None
    with pytest.raises(ConfigError, match=r"positions=sincos needs .* has none; use positions=learned"):
        set_up_vit(model, BackboneConfig(name=VIT, positions="sincos"))


def test_of_one_size_is_the_same_function_with_the_same_weights() -> None:
    model, x = vit().eval(), torch.randn(2, 3, 64, 64)
    before = torch.get_rng_state()
    one = of_one_size(model, VIT)
    assert torch.equal(torch.get_rng_state(), before)
    assert not one.dynamic_img_size
    assert not one.training
    assert one.patch_embed.proj.weight.data_ptr() == model.patch_embed.proj.weight.data_ptr()  # type: ignore[union-attr]
    with torch.no_grad():
        assert torch.equal(one(x), model(x))
    tiny = nn.Identity()
    assert of_one_size(tiny, "tiny") is tiny
