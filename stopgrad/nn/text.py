"""Backbones of text: token ids [B, L] -> [B, dim]. Token 0 fills up, to the right, and what stands there has no say.

`text_transformer` is a transformer with its layer norms in front (as GPT-2 and CLIP's text tower have them), learned
positions and GELU, initialised as CLIP's (arXiv:2103.00020; openai/CLIP clip/model.py). `text_gru` is an embedding and
a GRU that reads from left to right. The feature is the mean over the tokens that are there (`pool: mean`), or what
stands at the last of them, the end of the text (`pool: end`). There is no batch norm in either.

Letters: B texts, L tokens, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stopgrad.contracts import ConfigError
from stopgrad.nn.config import BackboneConfig
from stopgrad.nn.heads import LayerNorm, wide
from stopgrad.nn.sequence import NO_TOKEN
from stopgrad.nn.text_config import HF, Pool, heads_for


def tokens_there(ids: Tensor) -> Tensor:
    """ids: [B, L] -> [B, L], True where a token stands; a text of none counts as one of its first place."""
    first = torch.arange(ids.shape[1], device=ids.device) == 0
    return (ids != NO_TOKEN) | first


def pooled(states: Tensor, there: Tensor, pool: Pool) -> Tensor:
    """states: [B, L, D], there: [B, L] -> [B, D], the mean over what is there, or its last."""
    if pool == "end":
        places = torch.arange(there.shape[1], device=there.device)
        last = torch.where(there, places, 0).amax(dim=1)  # [B]
        return states.gather(1, last[:, None, None].expand(-1, 1, states.shape[2])).squeeze(1)
    weight = there.unsqueeze(2).to(states.dtype)
    return (states * weight).sum(dim=1) / weight.sum(dim=1)


class Block(nn.Module):
    """Attention and an MLP of four times the width, each behind a layer norm and beside a shortcut."""

    def __init__(self, width: int, heads: int, layers: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = LayerNorm(width), LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        small = width**-0.5 * (2 * layers) ** -0.5  # so that the sum over all blocks keeps its size
        stds = {self.qkv: width**-0.5, self.out: small, self.up: (2 * width) ** -0.5, self.down: small}
        for layer, std in stds.items():
            nn.init.normal_(layer.weight, std=std)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        """x: [B, L, D].  seen: [B, 1, L or 1, L], which tokens each may look at."""
        three = self.qkv(self.norm1(x)).unflatten(2, (3, self.heads, -1))  # [B, L, 3, heads, D / heads]
        q, k, v = three.permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=seen)
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        out: Tensor = x + self.down(F.gelu(self.up(self.norm2(x))))
        return out


def without_padding(ids: Tensor) -> Tensor:
    """ids: [B, L] -> [B, longest], without what fills up behind the longest text of the batch: it is in no mean and
    nothing looks at it, so captions of ten tokens need not cost what 32 do. An exported graph keeps all of them."""
    if torch.compiler.is_compiling():
        return ids
    columns = (ids != NO_TOKEN).any(dim=0).nonzero()
    return ids[:, : int(columns[-1]) + 1] if len(columns) else ids[:, :1]


class TextTransformer(nn.Module):
    """Token ids [B, L] -> [B, width], L up to the `length` that it was built for.

    causal: a token looks at itself and at those before it, as in CLIP; else at the whole text.
    """

    def __init__(
        self, vocabulary: int, length: int, width: int, layers: int, heads: int, pool: Pool, causal: bool = False
    ) -> None:
        super().__init__()
        self.pool, self.causal, self.dim = pool, causal, width
        self.embedding = nn.Embedding(vocabulary, width, padding_idx=NO_TOKEN)
        self.positions = nn.Parameter(torch.empty(length, width))
        self.blocks = nn.ModuleList(Block(width, heads, layers) for _ in range(layers))
        self.norm = LayerNorm(width)
        nn.init.normal_(self.embedding.weight, std=0.02)
        nn.init.normal_(self.positions, std=0.01)
        with torch.no_grad():
            self.embedding.weight[NO_TOKEN].zero_()

    def states(self, ids: Tensor) -> Tensor:
        """ids: [B, L], L no more than it was built for -> [B, L, width], what stands at each token."""
        length = ids.shape[1]
        seen = tokens_there(ids)[:, None, None, :]  # [B, 1, 1, L]
        if self.causal:
            seen = seen & torch.ones(length, length, dtype=torch.bool, device=ids.device).tril()  # [B, 1, L, L]
        x = self.embedding(ids) + self.positions[:length]
        for block in self.blocks:
            x = block(x, seen)
        out: Tensor = self.norm(x)
        return out

    def forward(self, ids: Tensor) -> Tensor:
        if ids.shape[1] > len(self.positions):
            raise ConfigError(
                f"text_transformer was built for {len(self.positions)} tokens, got {ids.shape[1]}; views.length says "
                "how many"
            )
        ids = without_padding(ids)
        return pooled(self.states(ids), tokens_there(ids), self.pool)


class TextGRU(nn.Module):
    """Token ids [B, L] -> [B, width]. It reads from the left, so what fills up to the right reaches no token."""

    def __init__(self, vocabulary: int, width: int, layers: int, pool: Pool) -> None:
        super().__init__()
        self.pool, self.dim = pool, width
        self.embedding = nn.Embedding(vocabulary, width, padding_idx=NO_TOKEN)
        self.gru = nn.GRU(width, width, layers, batch_first=True)

    def forward(self, ids: Tensor) -> Tensor:
        ids = without_padding(ids)
        x = self.embedding(ids)
        half = torch.is_autocast_enabled(x.device.type)  # asked first, since an exported graph has no word for it
        with torch.autocast(x.device.type, enabled=False) if half else nullcontext():
            states: Tensor = self.gru(wide(x))[0]  # [B, L, width]
        return pooled(states, tokens_there(ids), self.pool)


def text_trunk(config: BackboneConfig, vocabulary: int, length: int) -> nn.Module:
    """The trunk that the settings name.  vocabulary: kinds of token, with 0.  length: tokens of a text at most."""
    if vocabulary < 2 or length < 1:
        raise ConfigError(
            f"{config.name} needs 2 kinds of token or more (0 fills up) and texts of 1 token or more, got {vocabulary} "
            f"and {length}; it is for text: data.kind=text"
        )
    if config.name == HF:
        from stopgrad.nn.hugging_face import hugging_face_trunk

        return hugging_face_trunk(config, vocabulary, length)
    if config.name == "text_gru":
        return TextGRU(vocabulary, config.width, config.layers, config.pool)
    heads = config.heads or heads_for(config.width)
    return TextTransformer(vocabulary, length, config.width, config.layers, heads, config.pool, config.causal)


def check_shapes(config: BackboneConfig, vocabulary: int, length: int, found: Mapping[str, tuple[int, ...]]) -> None:
    """Raises ConfigError where the trunk has tensors of other shapes than `found`; no memory is taken for them.

    A few bytes of a stranger's file could ask for all there is.
    """
    with torch.device("meta"):
        state = text_trunk(config, vocabulary, length).state_dict()
    for name, tensor in state.items():
        if found.get(name) != tuple(tensor.shape):
            raise ConfigError(f"{name} has shape {list(tensor.shape)}, of weights {found.get(name)}")
