"""Where a ViT looks: the shares its own last block would have mixed values by."""

import pytest
import torch
from torch import nn

from stopgrad.contracts import ConfigError
from stopgrad.nn.attention import class_attention, vit_of
from stopgrad.nn.backbones import build_backbone
from stopgrad.nn.config import BackboneConfig


def vit(**changes: str) -> nn.Module:
    return build_backbone(BackboneConfig(name="test_vit", **changes), 3, 64, seed=0).eval()  # type: ignore[arg-type]


@pytest.mark.parametrize("side", [64, 48])
def test_shares_mix_values_to_what_the_block_says(side: int) -> None:
    backbone = vit()
    x = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    shares = class_attention(backbone, x)
    attention = vit_of(backbone).blocks[-1].attn  # type: ignore[index,union-attr]
    assert shares.shape == (2, attention.num_heads, side // 16, side // 16)
    caught: dict[str, torch.Tensor] = {}
    handle = attention.register_forward_hook(lambda _, args, out: caught.update(given=args[0], out=out))
    with torch.no_grad():
        backbone(x)
        handle.remove()
        tokens = caught["given"]
        width = tokens.shape[2]
        values = attention.qkv(tokens)[:, :, 2 * width :].unflatten(2, (attention.num_heads, -1))  # [B, T, heads, D]
        flat = shares.flatten(2)
        whole = torch.cat([1 - flat.sum(dim=2, keepdim=True), flat], dim=2)  # the class token's share of itself first
        mixed = torch.einsum("bht,bthd->bhd", whole, values).flatten(1)
        torch.testing.assert_close(attention.proj(mixed), caught["out"][:, 0], rtol=1e-4, atol=1e-5)
    assert (flat >= 0).all()
    assert (flat.sum(dim=2) < 1).all()


def test_what_is_no_vit_is_refused_with_what_to_type() -> None:
    with pytest.raises(ConfigError, match=r"ViTs with a class token, .* backbone.name=vit_tiny_patch16_224"):
        class_attention(build_backbone(BackboneConfig(), 3, 32, seed=0), torch.zeros(1, 3, 32, 32))
