"""Samples -> features: of a frozen backbone, of an untrained one whose batch norm has been measured, of no network.

Samples come in the order of their split, through the test transform. A backbone is put into eval mode for the forward
and every module gets its own mode back after; parameters and buffers do not change (a test hashes them).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from stopgrad import rng
from stopgrad.contracts import DataError, Images
from stopgrad.media import AnyPreprocess, medium_of

Encode = Callable[[Tensor], Tensor]  # what an encoder takes, [B, ...] -> [B, D], float32, on the CPU

BATCH_NORM_IMAGES = 4096  # training images looked at; twice as many move no statistic by more than a few percent


@contextmanager
def frozen(backbone: nn.Module, device: torch.device, bf16: bool = False) -> Iterator[Encode]:
    """The backbone as a function of images, in eval mode and without gradient while the `with` lasts."""
    modes = {module: module.training for module in backbone.modules()}
    backbone.eval()

    @torch.no_grad()
    def encode(images: Tensor) -> Tensor:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
            out: Tensor = backbone(images.to(device))
        return out.float().cpu()

    try:
        yield encode
    finally:
        for module, training in modes.items():
            module.training = training


def through(
    encode: Encode, images: Images, index: NDArray[np.int64], preprocess: AnyPreprocess, batch_size: int, threads: int
) -> Tensor:
    """The images at `index` [N], through the test transform and `encode`: [N, D], float32, on the CPU."""
    if len(index) == 0:
        raise DataError("evaluation: the split has no images; give --data with at least one image in each split")
    out: Tensor | None = None
    clean = medium_of(preprocess).clean
    for start in range(0, len(index), batch_size):
        part = encode(clean(images.take(index[start : start + batch_size]), preprocess, threads))
        if out is None:  # filled in place, so that a large bank is never held twice
            out = part.new_empty(len(index), *part.shape[1:])
        out[start : start + len(part)] = part
    assert out is not None
    return out


def features(
    backbone: nn.Module,
    images: Images,
    preprocess: AnyPreprocess,
    *,
    device: torch.device | str,
    batch_size: int = 256,
    threads: int = 2,
    bf16: bool = False,
) -> Tensor:
    """What the backbone says about every image of a split: [N, D], float32, on the CPU, in the split's order."""
    with frozen(backbone, torch.device(device), bf16) as encode:
        return through(encode, images, np.arange(len(images)), preprocess, batch_size, threads)


def without_network(images: Images, preprocess: AnyPreprocess, *, batch_size: int = 256, threads: int = 2) -> Tensor:
    """The baseline without a network, raw pixels of images: [N, D], float32, on the CPU, in the split's order."""
    encode = medium_of(preprocess).raw(preprocess).encode
    return through(encode, images, np.arange(len(images)), preprocess, batch_size, threads)


@torch.no_grad()
def measure_batch_norm(
    backbone: nn.Module,
    images: Images,
    preprocess: AnyPreprocess,
    *,
    device: torch.device | str,
    batch_size: int = 256,
    threads: int = 2,
    bf16: bool = False,
) -> None:
    """Set the running statistics of every batch norm to their mean over batches of (up to 4,096) training images.

    An untrained backbone whose statistics are still 0 and 1 is a weaker baseline than it has to be. Only batch-norm
    layers are in train mode, so dropout draws nothing; the order is a fixed shuffle, since class folders in order
    would make batches of one class; batches differ by at most one image, so their plain mean weighs images equally.
    """
    layers = [m for m in backbone.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    if not layers:
        return
    order = rng.permutation(len(images), seed=0, epoch=0, purpose=rng.EVAL)[:BATCH_NORM_IMAGES]
    if len(order) == 1:
        order = order.repeat(2)  # one value a channel has no variance, and torch refuses it: two images a batch or more
    momenta = [layer.momentum for layer in layers]
    with frozen(backbone, torch.device(device), bf16) as encode:
        for layer in layers:
            layer.reset_running_stats()
            layer.momentum = None  # cumulative average
            layer.training = True
        batches = min(-(-len(order) // batch_size), len(order) // 2)
        for part in np.array_split(order, batches):
            encode(medium_of(preprocess).clean(images.take(part), preprocess, threads))
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
