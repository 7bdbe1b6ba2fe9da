"""A step that memory does not hold: what took it, and what fits."""

from __future__ import annotations

import torch
from torch import nn

from stopgrad import dist
from stopgrad.contracts import Clock, Views
from stopgrad.method import Method
from stopgrad.nn.batch_norm import untouched_statistics
from stopgrad.training.cached import batch_norm_in

CPU_WORDS = ("can't allocate memory", "not enough memory", "DefaultCPUAllocator")  # torch has no class for it


def is_it(error: BaseException) -> bool:
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in CPU_WORDS)
    )


def told(
    method: Method,
    optimiser: torch.optim.Optimizer,
    views: Views,
    clock: Clock,
    batch: int,
    parts: int,
    bf16: bool,
) -> str:
    """A sentence for the user. views: of this process, the step's; batch: images over all processes; parts: micro-
    batches of a step. Several processes are not tried: one that ran out would leave the others waiting."""
    optimiser.zero_grad(set_to_none=True)
    method.discard()
    sizes = ", ".join(f"{crop.shape[-1]}" for crop in views.crops)
    held = sum(p.numel() * p.element_size() for p in method.parameters()) / 1e6
    took = (
        f"out of memory at step {clock.step}: {len(views.index) // parts} images at a time, {len(views.crops)} views "
        f"of {sizes} pixels each; weights are {held:,.0f} MB, what took it is what is kept of the images for gradients"
    )
    fits = 0 if dist.world() > 1 else largest(method, views, clock, len(views.index) // parts, bf16)
    smaller = fits * parts or max(2, batch // 2)
    lower = f"--batch-size {smaller} {'fits' if fits else 'may fit'}"
    if method.compares_images and batch_norm_in(method.encoders()):
        return f"{took}. {lower}"  # parts of a batch would be another loss
    at_once = smaller // parts
    count = next((n for n in range(2, batch + 1) if batch % n == 0 and batch // n <= at_once), 0)
    return f"{took}. {lower}" + (f", or the same batch in parts: --set loop.accumulate={count}" if count else "")


def largest(method: Method, views: Views, clock: Clock, size: int, bf16: bool) -> int:
    """Images that a forward and backward fit for, halving; 0 where two do not. Nothing is learnt or remembered."""
    while (size := size // 2) >= 2:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        part = Views(tuple(crop[:size] for crop in views.crops), views.index[:size])
        try:
            with untouched_statistics(method), torch.random.fork_rng():
                with torch.autocast(part.index.device.type, dtype=torch.bfloat16, enabled=bf16):
                    loss = method(part, clock).loss
                loss.backward()
            return size
        except (RuntimeError, MemoryError) as error:
            if not is_it(error):
                raise
        finally:
            method.discard()
            _forget_gradients(method)
    return 0


def _forget_gradients(method: nn.Module) -> None:
    for parameter in method.parameters():
        parameter.grad = None
