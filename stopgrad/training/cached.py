"""A large batch in parts, for losses that compare its images: the gradient of the whole, in a part's memory.

Three passes (GradCache, arXiv:2101.06983): every part is encoded without a graph; the loss of all is taken, and its
gradient by what was encoded; every part is encoded again with a graph, which that gradient is sent back through. It is
the large batch's gradient wherever an image is encoded by itself: not through a batch norm, which is refused.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from stopgrad import dist
from stopgrad.contracts import Clock, ConfigError, Output, Views
from stopgrad.method import Method


def check(method: Method, accumulate: int) -> None:
    """Raises ConfigError where parts of a batch would be another loss and can't be made the same."""
    if accumulate == 1 or not method.compares_images:
        return
    if dist.world() > 1:
        raise ConfigError(
            f"loop.accumulate={accumulate}: this loss compares the images of a batch, and is taken in parts on one "
            "process alone; use loop.accumulate=1, and more processes instead"
        )
    if norm := batch_norm_in(method.encoders()):
        raise ConfigError(
            f"loop.accumulate={accumulate}: this loss compares the images of a batch, and a batch norm ({norm}) sees "
            "those of a part alone, so that parts are not the large batch; use a backbone and projector without "
            "(backbone.norm=layer method.projector.norm=layer, or a ViT), a method with a queue (moco_v2), or "
            "loop.accumulate=1"
        )


def batch_norm_in(modules: Sequence[nn.Module]) -> str:
    """The name of the first, below the module it is in; "" where there is none."""
    for module in modules:
        for name, part in module.named_modules():
            if isinstance(part, _BatchNorm):
                return name or type(part).__name__
    return ""


def backward(method: Method, parts: Sequence[Views], views: Views, clock: Clock, bf16: bool) -> Output:
    """Puts the gradient of the whole batch into the parameters, and returns what the loss was of it."""
    autocast = torch.autocast(views.index.device.type, dtype=torch.bfloat16, enabled=bf16)
    drawn, made = [], []
    with torch.no_grad(), autocast:
        for part in parts:
            drawn.append(_random_state())
            made.append(method.encoded(part))
    leaves = tuple(torch.cat(same).detach().requires_grad_() for same in zip(*made))
    with autocast:
        out = method.loss_of(leaves, views, clock)
    out.loss.backward()  # type: ignore[no-untyped-call]
    back = [leaf.grad if leaf.grad is not None else torch.zeros_like(leaf) for leaf in leaves]
    pieces = [torch.split(gradient, [len(part.index) for part in parts]) for gradient in back]
    end = _random_state()
    for i, part in enumerate(parts):
        _set_random_state(drawn[i])  # dropout leaves out the same units again
        with autocast:
            again = method.encoded(part)
        torch.autograd.backward(again, [piece[i] for piece in pieces])
    _set_random_state(end)
    return out


def _random_state() -> list[Tensor]:
    return [torch.get_rng_state(), *(torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [])]


def _set_random_state(state: list[Tensor]) -> None:
    torch.set_rng_state(state[0])
    if state[1:]:
        torch.cuda.set_rng_state_all(state[1:])
