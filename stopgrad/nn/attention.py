"""Where a ViT looks: the attention of its class token to the patches, in the last block (DINO, arXiv:2104.14294,
figure 1)."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from stopgrad.contracts import ConfigError


@torch.no_grad()
def class_attention(backbone: nn.Module, x: Tensor) -> Tensor:
    """x: [B, C, S, S], as the backbone takes it.  Returns [B, heads, rows, columns], shares of each head's attention
    that go to the patches: below 1 in sum, since the class token attends to itself as well.

    Raises ConfigError for a backbone that is no ViT of timm's with a class token.
    """
    vit = cast(Any, vit_of(backbone))
    attention = vit.blocks[-1].attn
    given: list[Tensor] = []
    handle = attention.register_forward_pre_hook(lambda _, args: given.append(args[0]))
    try:
        backbone(x)
    finally:
        handle.remove()
    tokens = given[0]  # [B, T, D]; the attention's own product is fused and hands out no shares
    batch, count, width = tokens.shape
    qkv = attention.qkv(tokens).view(batch, count, 3, attention.num_heads, width // attention.num_heads)
    query, key = attention.q_norm(qkv[:, :1, 0]), attention.k_norm(qkv[:, :, 1])  # [B, 1 or T, heads, D / heads]
    scores = torch.einsum("bqhd,bkhd->bhqk", query * attention.scale, key)[:, :, 0]
    shares: Tensor = scores.softmax(dim=2)[:, :, vit.num_prefix_tokens :].contiguous()
    patch = vit.patch_embed.patch_size
    return shares.view(batch, attention.num_heads, x.shape[-2] // patch[0], x.shape[-1] // patch[1])


def vit_of(backbone: nn.Module) -> nn.Module:
    """timm's VisionTransformer inside. Raises ConfigError where there is none with a class token."""
    for module in backbone.modules():
        blocks = getattr(module, "blocks", None)
        if isinstance(blocks, nn.Sequential) and hasattr(blocks[-1], "attn") and hasattr(module, "patch_embed"):
            if getattr(module, "cls_token", None) is not None and hasattr(blocks[-1].attn, "qkv"):
                return module
            break
    raise ConfigError(
        "attention is drawn of ViTs with a class token, and this encoder has none; train one, as in "
        "--set backbone.name=vit_tiny_patch16_224"
    )
