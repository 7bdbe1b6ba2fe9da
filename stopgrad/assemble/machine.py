"""The machine before the first step: whether there is room for what a run writes, and what would slow or end it.

Two checks stand elsewhere, where they come earlier: a run's folder that can't be written is refused when it is locked
(`rundir`), a store that will not fit the cache while its first images are decoded (`data.pack`); compute threads are
bounded where the recipe is resolved (`build`). Shared memory matters to one thing alone, processes of one machine that
train together through NCCL: nothing of stopgrad's own uses it, since images are decoded and views made in threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import torch

from stopgrad import dist
from stopgrad.assemble.begin import kept_start
from stopgrad.assemble.build import build_method
from stopgrad.contracts import StorageError
from stopgrad.recipe import Recipe
from stopgrad.rundir import RunDir, as_size, free_bytes

# Bytes besides the weights. Of 30 runs here, gallery and report took up to 2.7 MB and a line of the log 0.36 kB: the
# rest is a million steps of the usual ten a line.
BESIDES = 40e6
SHARED_MEMORY = 64e6  # bytes; a container has a little more where nobody said less


def check_machine(
    run: RunDir, recipe: Recipe, device: torch.device, say: Callable[[str], None], images: int = 0
) -> None:
    """To be called before the first step, and once the images are stored, which may have taken of the same disk.

    Raises StorageError where the disk could not hold the run; what may go well all the same is said.
    """
    if run.writes:
        check_space(run, needed_bytes(recipe, images))
    if note := shared_memory_note(device):
        say(f"warning: {note}")


def needed_bytes(recipe: Recipe, images: int = 0) -> int:
    """What a run's folder holds at most, while a checkpoint is written beside those that are kept.

    images: that are trained on; some methods keep a row for each.
    """
    method = build_method(recipe, images)
    copies = 2 if recipe.optim.name == "adamw" else bool(recipe.optim.momentum)
    moments = copies * _nbytes(p for p in method.parameters() if p.requires_grad)
    checkpoint = _nbytes(method.state_dict().values()) + moments
    encoder = _nbytes(method.backbone.state_dict().values()) * (2 if recipe.backbone.init else 1)  # with the start's
    return (recipe.loop.keep_checkpoints + 1) * checkpoint + encoder + int(BESIDES)


def _nbytes(tensors: Iterable[torch.Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)


def check_space(run: RunDir, needed: int) -> None:
    """Raises StorageError where less is free than `needed` bytes without those that a resumed run has there already."""
    there = [*run.checkpoints.glob("step*.ckpt"), *([kept_start(run)] if kept_start(run).exists() else [])]
    missing = needed - sum(file.stat().st_size for file in there)
    free = free_bytes(run.path)
    if free is not None and free < missing:
        raise StorageError(
            f"{run.path}: the run needs {as_size(missing)} for its checkpoints, encoder and report, and "
            f"{as_size(free)} are free; free some, or {run.elsewhere()}"
        )


def shared_memory_note(device: torch.device, place: Path = Path("/dev/shm")) -> str:
    """Says where NCCL would have too little shared memory; "" where it is not used, or there is enough."""
    free = free_bytes(place) if place.exists() else 0
    if dist.world() == 1 or device.type != "cuda" or free is None or free >= SHARED_MEMORY:
        return ""
    return (
        f"{place} has {as_size(free)} free, and processes that train together on one machine (NCCL) need "
        f"{as_size(SHARED_MEMORY)} or more; in a container: docker run --shm-size=1g"
    )
