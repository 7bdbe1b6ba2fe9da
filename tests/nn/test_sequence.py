"""Sound and text as sequences: frames, causality, norms, and sentences that are filled up."""

from typing import Any

import pytest
import torch
from torch import nn

from stopgrad.contracts import ConfigError
from stopgrad.nn.backbones import build_backbone
from stopgrad.nn.config import BackboneConfig, Norm
from stopgrad.nn.sequence import AudioTrunk, TextTrunk, frames, samples_for


def audio(norm: Norm = "layer", seed: int = 0) -> AudioTrunk:
    made = build_backbone(BackboneConfig(name="cpc_audio", width=8, context=6, norm=norm), 1, 4000, seed)
    assert isinstance(made, AudioTrunk)
    return made


def text(seed: int = 0) -> TextTrunk:
    made = build_backbone(BackboneConfig(name="cpc_text", width=8, context=6), 11, 7, seed)
    assert isinstance(made, TextTrunk)
    return made


def waves(samples: int, b: int = 2) -> torch.Tensor:
    return torch.randn(b, samples, generator=torch.Generator().manual_seed(samples))


@pytest.mark.parametrize(("samples", "count"), [(20480, 128), (4000, 25), (10240, 64), (160, 1), (1, 0), (0, 0)])
def test_frames_are_counted_as_the_convolutions_make_them(samples: int, count: int) -> None:
    assert frames(samples) == count
    if count:
        trunk = audio()
        assert trunk.latents(waves(samples)).shape == (2, count, 8)
        assert trunk.context(waves(samples)).shape == (2, count, 6)
        assert trunk(waves(samples)).shape == (2, trunk.dim)


@pytest.mark.parametrize("count", [1, 2, 13, 128])
def test_samples_for_is_the_fewest_that_give_so_many_frames(count: int) -> None:
    assert frames(samples_for(count)) == count
    assert frames(samples_for(count) - 1) == count - 1


def test_the_feature_is_the_mean_of_the_context_over_time() -> None:
    trunk = audio()
    torch.testing.assert_close(trunk(waves(4000)), trunk.context(waves(4000)).mean(dim=1))


@pytest.mark.parametrize("t", [0, 7, 23])
def test_what_comes_later_leaves_the_context_as_it_was_to_the_bit(t: int) -> None:
    trunk = audio()
    z = torch.randn(2, 25, 8)
    before = trunk.contexts(z)
    z[:, t + 1 :] = torch.randn(2, 24 - t, 8)
    after = trunk.contexts(z)
    assert torch.equal(before[:, : t + 1], after[:, : t + 1])
    assert not torch.equal(before[:, t + 1], after[:, t + 1])


@pytest.mark.parametrize("norm", ["layer", "none"])
def test_a_context_knows_no_sample_that_lies_beyond_its_frames_own(norm: Norm) -> None:
    """A frame sees 465 samples: from 153 before its 160 to 152 after them."""
    trunk, x, t = audio(norm), waves(4000), 10
    before = trunk.context(x)
    later, last = x.clone(), x.clone()
    later[:, 160 * t + 312 :] += 1.0
    last[:, 160 * t + 311] += 1.0
    assert torch.equal(trunk.context(later)[:, : t + 1], before[:, : t + 1])
    assert not torch.equal(trunk.context(last)[:, t], before[:, t])
    assert torch.equal(trunk.context(last)[:, :t], before[:, :t])


@pytest.mark.parametrize(("norm", "kind"), [("batch", nn.BatchNorm1d), ("layer", nn.LayerNorm), ("none", None)])
def test_the_norm_stands_behind_each_convolution_or_nowhere(norm: Norm, kind: Any) -> None:
    trunk = audio(norm)
    norms = [module for module in trunk.modules() if isinstance(module, nn.BatchNorm1d | nn.LayerNorm)]
    assert len(norms) == (5 if kind else 0)
    assert all(isinstance(module, kind) for module in norms)
    z = trunk.latents(waves(4000))
    assert (z >= 0).all()  # ReLU comes last


def test_a_layer_norm_is_a_frames_own() -> None:
    z = audio("layer").convolutions[:2](waves(4000).unsqueeze(1))
    torch.testing.assert_close(z.mean(dim=1), torch.zeros(2, 800), atol=1e-5, rtol=0)
    torch.testing.assert_close(z.std(dim=1, correction=0), torch.ones(2, 800), atol=1e-2, rtol=0)


def test_half_precision_leaves_the_context_in_full() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        c = audio().context(waves(4000))
    assert c.dtype == torch.float32
    assert c.isfinite().all()


def test_tokens_that_fill_a_sentence_up_change_nothing() -> None:
    trunk = text()
    ids = torch.tensor([[[3, 1, 4, 1], [5, 9, 2, 0]]])
    filled = torch.cat([ids, torch.zeros(1, 2, 3, dtype=torch.long)], dim=2)
    torch.testing.assert_close(trunk.latents(filled), trunk.latents(ids))
    assert trunk.latents(ids).shape == (1, 2, 8)
    # a sentence of nothing is in no mean
    more = torch.cat([ids, torch.zeros(1, 1, 4, dtype=torch.long)], dim=1)
    torch.testing.assert_close(trunk(more), trunk.context(ids).mean(dim=1))


def test_a_sentence_is_the_mean_of_its_tokens_by_hand() -> None:
    trunk, ids = text().double(), torch.tensor([[[3, 1, 4, 0]]])
    e, w, bias = trunk.embedding.weight, trunk.convolution.weight, trunk.convolution.bias
    assert bias is not None
    total = torch.zeros(8, dtype=torch.float64)
    for i in range(3):
        y = bias.clone()
        for offset in (-1, 0, 1):
            if 0 <= i + offset < 4:
                y = y + w[:, :, offset + 1] @ e[ids[0, 0, i + offset]]
        total = total + y.clamp_min(0)
    torch.testing.assert_close(trunk.latents(ids)[0, 0], total / 3)
    assert trunk(ids).shape == (1, 6)


def test_of_one_sentence_each_token_is_a_step_that_knows_of_no_other() -> None:
    trunk, ids = text(), torch.tensor([[3, 1, 4, 0], [5, 9, 0, 0]])
    assert trunk.latents(ids).shape == (2, 4, 8)
    assert torch.equal(trunk.latents(ids)[0, 1], trunk.latents(torch.tensor([[7, 1, 7]]))[0, 1])
    assert torch.equal(trunk.there(ids), ids != 0)
    torch.testing.assert_close(trunk(ids)[1], trunk.context(ids)[1, :2].mean(dim=0))


def test_the_seed_decides_the_weights() -> None:
    a, b, c = audio(), audio(), audio(seed=1)
    assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters()))
    assert not torch.equal(a.gru.weight_hh_l0, c.gru.weight_hh_l0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: audio().latents(waves(100)), r"cpc_audio needs waveforms \[B, samples\] of 159 samples or more"),
        (lambda: audio().latents(torch.zeros(2, 1, 4000)), r"got \[2, 1, 4000\]; use longer windows"),
        (lambda: build_backbone(BackboneConfig(name="cpc_audio"), 2, 4000, 0), "1 channel, got 2; use mono"),
        (lambda: build_backbone(BackboneConfig(name="cpc_audio"), 1, 80, 0), "159 samples or more, got 80"),
        (lambda: build_backbone(BackboneConfig(name="cpc_text"), 1, 9, 0), "a vocabulary of 1"),
    ],
)
def test_what_can_not_be_read_is_refused(call: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        call()
