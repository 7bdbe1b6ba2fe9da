"""Backbones of sequences: frames of sound or sentences become latents, and a GRU sums up what came before.

CPC, arXiv:1807.03748, sections 3.1 (audio) and 3.3 (text). What is kept is the context: its mean over time is the
feature vector of a clip, `context` has every frame's.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stopgrad.contracts import ConfigError
from stopgrad.nn.config import BackboneConfig, Norm
from stopgrad.nn.heads import LayerNorm, wide

# facebookresearch/CPC_audio: 160 samples a frame, and 20,480 of them are exactly 128 frames
KERNELS, STRIDES, PADDING = (10, 8, 4, 4, 4), (5, 4, 2, 2, 2), (3, 2, 1, 1, 1)
NO_TOKEN = 0  # fills a sentence up


def frames(samples: int) -> int:
    """How many latents a waveform of so many samples has."""
    for kernel, stride, padding in zip(KERNELS, STRIDES, PADDING):
        samples = (samples + 2 * padding - kernel) // stride + 1
    return max(0, samples)


def samples_for(count: int) -> int:
    """The fewest samples that have so many frames, 1 or more."""
    for kernel, stride, padding in zip(KERNELS[::-1], STRIDES[::-1], PADDING[::-1]):
        count = (count - 1) * stride + kernel - 2 * padding
    return count


class SequenceTrunk(nn.Module, ABC):
    """Latents of each step and the GRU's context: [B, ...] -> [B, dim], the mean of the context over time."""

    padded = False  # whether sequences of a batch differ in length, `there` says how

    def __init__(self, width: int, context: int) -> None:
        super().__init__()
        self.width = width  # of a latent
        self.dim = context
        self.gru = nn.GRU(width, context, batch_first=True)

    @abstractmethod
    def latents(self, x: Tensor) -> Tensor:
        """x: [B, ...] -> [B, T, width], each step's own."""

    @abstractmethod
    def in_words(self, needed: int) -> tuple[str, str]:
        """What a step is called, and what gives a sequence `needed` of them."""

    def there(self, x: Tensor) -> Tensor | None:
        """x: [B, ...] -> bool, [B, T]: which steps are no padding; None: all of them."""
        return None

    def contexts(self, z: Tensor) -> Tensor:
        """z: [B, T, width] -> [B, T, dim], float32: what each step knows of itself and of those before it."""
        half = torch.is_autocast_enabled(z.device.type)  # asked first, since an exported graph has no word for it
        with torch.autocast(z.device.type, enabled=False) if half else nullcontext():
            out: Tensor = self.gru(wide(z))[0]
        return out

    def context(self, x: Tensor) -> Tensor:
        """x: [B, ...] -> [B, T, dim]"""
        return self.contexts(self.latents(x))

    def pooled(self, c: Tensor, x: Tensor) -> Tensor:
        """c: [B, T, dim], the context of x [B, ...] -> [B, dim]"""
        return c.mean(dim=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.pooled(self.context(x), x)


class AudioTrunk(SequenceTrunk):
    """A waveform [B, samples] -> [B, dim]: five strided convolutions with ReLU, 160 samples a latent, and the GRU.

    norm: `batch` and `layer` stand between convolution and ReLU, as CPC_audio has them; a layer norm sees the channels
    of one frame. The paper names none.
    """

    def __init__(self, width: int, context: int, norm: Norm) -> None:
        super().__init__(width, context)
        layers: list[nn.Module] = []
        for i, (kernel, stride, padding) in enumerate(zip(KERNELS, STRIDES, PADDING)):
            layers.append(nn.Conv1d(1 if i == 0 else width, width, kernel, stride, padding, bias=norm == "none"))
            if norm == "batch":
                layers.append(nn.BatchNorm1d(width))
            elif norm == "layer":
                layers.append(ChannelNorm(width))
            layers.append(nn.ReLU())
        self.convolutions = nn.Sequential(*layers)

    def length(self, size: int) -> int:
        """Frames of a waveform of `size` samples."""
        return frames(size)

    def in_words(self, needed: int) -> tuple[str, str]:
        return "frames", f"use windows of {samples_for(needed)} samples or more"

    def latents(self, x: Tensor) -> Tensor:
        if x.dim() != 2 or not frames(x.shape[1]):
            raise ConfigError(
                f"cpc_audio needs waveforms [B, samples] of {samples_for(1)} samples or more, got {list(x.shape)}; use "
                "longer windows"
            )
        out: Tensor = self.convolutions(x.unsqueeze(1))  # [B, width, T]
        return out.transpose(1, 2)


class ChannelNorm(LayerNorm):
    """Layer norm over the channels of each frame by itself, so that no frame knows of another."""

    def forward(self, x: Tensor) -> Tensor:  # [B, D, T] -> [B, D, T]
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


class TextTrunk(SequenceTrunk):
    """Sentences of token ids [B, S, L], as in the paper, or the tokens of one [B, L] -> [B, dim].

    A sentence is the mean over its tokens of an embedding, a convolution of 3 tokens and ReLU; the GRU reads sentence
    by sentence. Of one sentence each token is a step by itself, so that no latent knows of the token after it. Token 0
    fills up: it counts in no mean, and what is made of nothing else is no step.
    """

    padded = True

    def __init__(self, vocabulary: int, width: int, context: int) -> None:
        super().__init__(width, context)
        self.embedding = nn.Embedding(vocabulary, width, padding_idx=NO_TOKEN)
        self.convolution = nn.Conv1d(width, width, 3, padding=1)

    def latents(self, x: Tensor) -> Tensor:  # ids [B, S, L] or [B, S] -> [B, S, width]
        ids = in_steps(x)
        tokens = self.embedding(ids.flatten(0, 1)).transpose(1, 2)  # [B * S, width, L]
        there = (ids.flatten(0, 1) != NO_TOKEN).unsqueeze(1)  # [B * S, 1, L]
        seen = F.relu(self.convolution(tokens)) * there
        mean = seen.sum(dim=2) / there.sum(dim=2).clamp_min(1)
        return mean.reshape(*ids.shape[:2], self.width)

    def pooled(self, c: Tensor, x: Tensor) -> Tensor:
        there = self.there(x).unsqueeze(2)  # [B, S, 1]
        return (c * there).sum(dim=1) / there.sum(dim=1).clamp_min(1)

    def there(self, x: Tensor) -> Tensor:
        return (in_steps(x) != NO_TOKEN).any(dim=2)

    def in_words(self, needed: int) -> tuple[str, str]:
        return "tokens or sentences", f"--set views.length={needed} (tokens)"


def in_steps(ids: Tensor) -> Tensor:
    """Ids [B, S, L] as they are; of one sentence, [B, S], each token for itself, [B, S, 1]."""
    return ids.unsqueeze(2) if ids.dim() == 2 else ids


def sequence_trunk(config: BackboneConfig, channels: int, size: int) -> SequenceTrunk:
    """The trunk that the settings name.  channels: 1 of a waveform; how many kinds of token of text.  size: samples of
    a waveform, 0 where nobody knows."""
    if config.name == "cpc_text":
        if channels < 2:
            raise ConfigError(f"cpc_text needs 2 kinds of token or more (0 fills up), got a vocabulary of {channels}")
        return TextTrunk(channels, config.width, config.context)
    if channels != 1:
        raise ConfigError(f"cpc_audio needs waveforms of 1 channel, got {channels}; use mono")
    if size and not frames(size):
        raise ConfigError(f"cpc_audio needs windows of {samples_for(1)} samples or more, got {size}; use longer ones")
    return AudioTrunk(config.width, config.context, config.norm)
