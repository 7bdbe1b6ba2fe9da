"""Whole loops: ours beside lightly's and a plain one, and beside the model's own step; monitors; the curve of the loss.

All sides have the same images, arrays in memory: no disk and no decoder is timed here. They are the embedded scenes,
and CIFAR-10 for the curve where it is there.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from statistics import median

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks import rival_loops
from benchmarks.ours import OurLoop, Side, first_losses, in_turns, losses
from benchmarks.pairs import ROUNDS, Goal, Pair, alone, machine, paired, versions
from stopgrad.assemble.build import bf16_is_fast, build_method, fresh_backbone, pick_device, resolve, split_held
from stopgrad.contracts import Clock
from stopgrad.data import Data, DataConfig, open_data
from stopgrad.nn.config import BackboneConfig
from stopgrad.optim.groups import build_optimiser, set_rates
from stopgrad.recipe import Recipe
from stopgrad.recipe.text import override
from stopgrad.recipes import recipe_named
from stopgrad.siamese.family import Siamese

READY = 4  # batches of views that the model's own step turns over
FEW = 2_000  # scenes rendered above 32 px: what is timed does not depend on how many there are (growth says so)


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How long to measure. `settings` change every recipe: a test takes a small net."""

    seconds: float = 6.0  # of a side's round
    rounds: int = ROUNDS
    images: int = 0  # scenes at 32 px; 0: all 10,000
    settings: tuple[str, ...] = ()
    curve_images: int = 10_000
    curve_steps: int = 150
    curve_batch: int = 128
    equal_steps: int = 20  # of both loops on the same views
    smoothed: int = 20  # steps
    seeds: int = 2
    results: Path = Path(__file__).parent / "results"


FULL = Sizes()


# --- row 3: beside other loops ----------------------------------------------------------------------------------------


def whole_loop_32(sizes: Sizes = FULL) -> list[Pair]:
    """ResNet-18 with the small-image stem, heads and views of `simsiam/cifar10`, batch 256."""
    goal = None
    if pick_device().type == "cpu":
        fast = bf16_is_fast(torch.device("cpu"))
        goal = Goal(floor=1.8, target=2.2) if fast else Goal(floor=1.2, target=1.5)
    return _whole_loop(resnet18(32, 256), 32, sizes, {"lightly": goal, "plain": None})


def whole_loop_96(sizes: Sizes = FULL) -> list[Pair]:
    """ResNet-18 as it is, heads and views of `simsiam/imagenet`, batch 64, crops of 96 px from images of 128."""
    return _whole_loop(resnet18(96, 64), 128, sizes, {"lightly": None, "plain": None})


RIVALS: dict[str, tuple[str, Callable[..., rival_loops.Rival]]] = {
    "lightly": ("lightly's example", rival_loops.lightly),
    "plain": ("plain PyTorch", rival_loops.plain),
}


def _whole_loop(recipe: Recipe, pixels: int, sizes: Sizes, goals: dict[str, Goal | None]) -> list[Pair]:
    device = pick_device()
    recipe = prepared(recipe, sizes)
    data = opened(recipe, pixels, sizes)
    images = pixels_of(data, recipe)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        sides: dict[str, Side] = {}
        for key in goals:
            rival = RIVALS[key][1](recipe, fresh_backbone(recipe, recipe.seed), images, device)
            sides[key] = stack.enter_context(closing(rival))
            rival.steps(1)  # starts its workers: they are forked before we have threads
        ours = stack.enter_context(closing(OurLoop(recipe, data, Path(folder))))
        monitors = median(ours.monitors())
        times = in_turns({"ours": ours, **sides}, sizes.seconds, sizes.rounds)
    batch, size = recipe.loop.batch_size, recipe.views.image_size
    note = (
        f"batch {batch}, crops from {pixels}-px images in memory, SGD; ours {recipe.loop.precision}, channels last; "
        f"the others float32, a DataLoader of {rival_loops.WORKERS} workers; ours with its monitors, "
        f"without them {batch / median(times['ours']):,.1f} images/s; no checkpoint is written"
    )
    return [
        paired(
            f"whole loop, {named(recipe)} at {size} px",
            "images/s",
            [(batch / (mine + monitors), batch / theirs) for mine, theirs in zip(times["ours"], times[key])],
            RIVALS[key][0],
            goal=goal,
            note=note,
        )
        for key, goal in goals.items()
    ]


# --- row 4: beside its own model --------------------------------------------------------------------------------------


class ReadySteps:
    """The model's own step: the loop's method, optimiser and precision, views that lie ready, nothing else."""

    def __init__(self, loop: OurLoop) -> None:
        job = loop.built.job
        self.job = job
        self.method = build_method(loop.recipe, 0).to(job.device)
        if loop.recipe.loop.channels_last:
            self.method = self.method.to(memory_format=torch.channels_last)
        self.optimiser = build_optimiser(self.method, job.optim, job.loop.batch_size, self.method.constant_lr())
        loop.rest()  # one thread at a time makes views
        self.views = [job.views_at(step) for step in range(READY)]
        self.method.train()

    def steps(self, count: int) -> float:
        return rival_loops.seconds_of(self._steps, count, self.job.device)

    def rest(self) -> None:
        """It makes nothing ahead."""

    def _steps(self, count: int) -> None:
        clock = self.job.clock(0)
        for step in range(count):
            self.optimiser.zero_grad(set_to_none=True)
            with torch.autocast(self.job.device.type, dtype=torch.bfloat16, enabled=self.job.bf16):
                out = self.method(self.views[step % READY], clock)
            out.loss.backward()
            self.optimiser.step()


def efficiency_32(sizes: Sizes = FULL) -> list[Pair]:
    """`simsiam/cifar10`: ResNet-18, batch 256."""
    return _efficiency(resnet18(32, 256), 32, sizes, _efficiency_goal())


def efficiency_tiny(sizes: Sizes = FULL) -> list[Pair]:
    """`simsiam/scenes`, for information: its step is so short that everything else shows."""
    return _efficiency(recipe_named("simsiam/scenes"), 32, sizes, None)


def efficiency_224(sizes: Sizes = FULL) -> list[Pair]:
    """`simsiam/imagenet` with ResNet-18, batch 256, on a GPU; nothing on a CPU, where a step takes half a minute."""
    if pick_device().type == "cpu":
        return []
    return _efficiency(resnet18(224, 256), 256, sizes, _efficiency_goal())


def _efficiency_goal() -> Goal:
    return Goal(floor=0.93, target=0.97) if pick_device().type == "cpu" else Goal(floor=0.85, target=0.95)


def _efficiency(recipe: Recipe, pixels: int, sizes: Sizes, goal: Goal | None) -> list[Pair]:
    recipe = prepared(recipe, sizes)
    data = opened(recipe, pixels, sizes)
    with tempfile.TemporaryDirectory() as folder, closing(OurLoop(recipe, data, Path(folder))) as ours:
        ready = ReadySteps(ours)
        monitors = median(ours.monitors())
        times = in_turns({"ours": ours, "ready": ready}, sizes.seconds, sizes.rounds)
    batch = recipe.loop.batch_size
    without = median([theirs / mine for mine, theirs in zip(times["ours"], times["ready"])])
    wanted = _efficiency_goal()
    note = f"batch {batch}, {recipe.loop.precision}; with its monitors; without them the ratio is {without:.3f}"
    if goal is None:
        note += f"; for information: ResNet-18 has to reach {wanted.floor:g} / {wanted.target:g}"
    return [
        paired(
            f"loop efficiency, {named(recipe)} at {recipe.views.image_size} px",
            "images/s",
            [(batch / (mine + monitors), batch / theirs) for mine, theirs in zip(times["ours"], times["ready"])],
            "the model's step alone, on ready views",
            goal=goal,
            note=note,
        )
    ]


def monitors(sizes: Sizes = FULL) -> list[Pair]:
    """Share of a run's seconds that its monitors take: `simsiam/scenes`, and ResNet-18 with the settings of cifar10."""
    pairs = []
    for recipe in (recipe_named("simsiam/scenes"), resnet18(32, 512)):
        recipe = prepared(recipe, sizes)
        data = opened(recipe, 32, sizes)
        with tempfile.TemporaryDirectory() as folder, closing(OurLoop(recipe, data, Path(folder))) as ours:
            step = median(in_turns({"ours": ours}, sizes.seconds, min(3, sizes.rounds))["ours"])
            spread = ours.monitors(min(3, sizes.rounds))
        watch = recipe.watch
        note = (
            f"batch {recipe.loop.batch_size}: {1e3 * median(spread):.2f} ms of watching beside a step of "
            f"{1e3 * step:.1f} ms; measured every {watch.every_steps} steps, with the kNN every {watch.knn_every_steps}"
        )
        name = f"monitors' share of a run, {named(recipe)}, batch {recipe.loop.batch_size}"
        shares = [seconds / (seconds + step) for seconds in spread]
        pairs.append(alone(name, "share", shares, goal=Goal(floor=0.03, target=0.01, at="most"), note=note))
    return pairs


# --- the curve of the loss --------------------------------------------------------------------------------------------


def loss_curve(sizes: Sizes = FULL) -> list[Pair]:
    """Does ours train as lightly's loop does? tiny, equal weights to begin from, schedule, heads, batch; two seeds."""
    recipe, source = curve_recipe(sizes)
    data = open_data(recipe.data, recipe.views.image_size)
    per_epoch = len(split_held(data.train, recipe)[0]) // recipe.loop.batch_size
    epochs = max(1, round(sizes.curve_steps / per_epoch))
    recipe = replace(recipe, loop=replace(recipe.loop, epochs=epochs))
    ours, theirs = [], []
    with tempfile.TemporaryDirectory() as folder:
        mine, views = first_losses(recipe, data, Path(folder), sizes.equal_steps)
    other = lightly_losses(recipe, ((ready.crops, None) for ready in views), len(views), per_epoch)
    on_equal_views = max(abs(a - b) for a, b in zip(mine, other))
    for seed in range(sizes.seeds):
        seeded = replace(recipe, seed=seed)
        with tempfile.TemporaryDirectory() as folder:
            ours.append(losses(seeded, data, Path(folder)))
        torch.manual_seed(seed)  # of their shuffles and workers
        images = rival_loops.lightly_images(seeded, pixels_of(data, seeded))
        with closing(rival_loops.batches(images, recipe.loop.batch_size)) as loader:
            theirs.append(lightly_losses(seeded, loader, epochs * per_epoch, per_epoch))
    smooth_ours, smooth_theirs = ([smoothed(curve, sizes.smoothed) for curve in curves] for curves in (ours, theirs))
    apart = [difference(a, b) for a, b in zip(smooth_ours, smooth_theirs)]
    seeds = [
        (difference(a, b) + difference(c, d)) / 2 for (a, b), (c, d) in zip(ring(smooth_ours), ring(smooth_theirs))
    ]
    facts = {
        "data": source,
        "steps": epochs * per_epoch,
        "batch": recipe.loop.batch_size,
        "smoothed over": sizes.smoothed,
        "ours from lightly, equal seeds": apart,
        "two seeds of one loop": seeds,
        "largest difference on the same views": on_equal_views,
        "machine": machine(),
        "versions": versions(),
        "ours": ours,
        "lightly": theirs,
    }
    sizes.results.mkdir(parents=True, exist_ok=True)
    (sizes.results / "loss_curve.json").write_text(json.dumps(facts) + "\n")
    what = f"tiny, {source}, batch {recipe.loop.batch_size}, float32, {epochs * per_epoch} steps, {sizes.seeds} seeds"
    ends = [(float(a[-1]), float(b[-1])) for a, b in zip(smooth_ours, smooth_theirs)]
    return [
        paired(
            f"loss at the end of equal runs, mean of {sizes.smoothed} steps",
            "loss",
            ends,
            "lightly's example",
            note=f"{what}; equal weights to begin from, heads and learning rates; on the same views too, "
            f"the first {sizes.equal_steps} losses differ by {on_equal_views:.1g} at most; all is in loss_curve.json",
        ),
        paired(
            "distance of the loss curves, ours from lightly's",
            "loss",
            list(zip(apart, seeds)),
            "two seeds of one loop",
            note=f"{what}; mean absolute difference of the curves, smoothed over {sizes.smoothed} steps; 1 or less: "
            "which loop trained says no more than which seed",
        ),
    ]


def curve_recipe(sizes: Sizes) -> tuple[Recipe, str]:
    """tiny as `simsiam/scenes` has it, on CIFAR-10 where that is there; and the name of the images."""
    found = Path(os.environ.get("STOPGRAD_BENCH_DATA", "")) / "cifar10"
    there = "STOPGRAD_BENCH_DATA" in os.environ and found.is_dir()
    recipe = recipe_named("simsiam/scenes")
    recipe = replace(
        recipe,
        data=DataConfig(source=str(found) if there else "scenes-v1", limit=sizes.curve_images),
        views=replace(recipe.views, executor="cpu"),
        loop=replace(recipe.loop, batch_size=sizes.curve_batch, precision="float32", log_every_steps=1),
        watch=replace(recipe.watch, every_steps=10**6, knn_every_steps=10**6),
    )
    return resolve(override(recipe, sizes.settings), pick_device()), "CIFAR-10" if there else "scenes"


def lightly_losses(recipe: Recipe, loader: rival_loops.Batches, steps: int, per_epoch: int) -> list[float]:
    """Of lightly's loop from our weights and with our learning rates, those of a run of loop.epochs."""
    device = pick_device()
    method = build_method(recipe, 0)
    assert isinstance(method, Siamese)
    model = rival_loops.LightlySimSiam(fresh_backbone(recipe, recipe.seed), rival_loops.simsiam(recipe))
    for part, same in (("projection_head", method.projector), ("prediction_head", method.predictor)):
        getattr(model, part).layers.load_state_dict(same.state_dict())
    model = model.to(device)
    batch = recipe.loop.batch_size

    def before(optimiser: torch.optim.Optimizer, step: int) -> None:
        set_rates(optimiser, recipe.optim, batch, Clock(step, recipe.loop.epochs * per_epoch, per_epoch))

    optimiser = build_optimiser(model, recipe.optim, batch, ("prediction_head.",))
    with closing(rival_loops.Rival(rival_loops.lightly_loop(model, loader, optimiser, before), device)) as rival:
        return [float(loss) for loss in islice(rival.loop, steps)]


def smoothed(curve: Sequence[float], over: int) -> NDArray[np.float64]:
    """Mean of each `over` steps that follow each other."""
    over = min(over, len(curve))
    return np.convolve(curve, np.full(over, 1 / over), mode="valid")


def difference(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    return float(np.abs(a - b).mean())


def ring(curves: list[NDArray[np.float64]]) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Each curve and the next, the last and the first."""
    return list(zip(curves, [*curves[1:], curves[0]]))


# --- recipes and images -----------------------------------------------------------------------------------------------


def resnet18(size: int, batch: int) -> Recipe:
    """The CIFAR preset up to 64 px, else ImageNet's, with ResNet-18."""
    small = size <= 64
    start = recipe_named("simsiam/cifar10" if small else "simsiam/imagenet")
    return replace(
        start,
        data=DataConfig(source="scenes-v1"),
        views=replace(start.views, image_size=size),
        backbone=BackboneConfig(name="resnet18", stem="small" if small else "standard"),
        loop=replace(start.loop, batch_size=batch, view_threads=2),
    )


def prepared(recipe: Recipe, sizes: Sizes) -> Recipe:
    """Resolved for this machine and without an end; torch has its threads from here on."""
    loop = replace(recipe.loop, epochs=100_000, checkpoint_every_minutes=0.0)
    recipe = resolve(override(replace(recipe, loop=loop), sizes.settings), pick_device())
    torch.set_num_threads(recipe.loop.threads)
    return recipe


def opened(recipe: Recipe, pixels: int, sizes: Sizes) -> Data:
    """The scenes at `pixels` a side."""
    limit = sizes.images if pixels <= 32 else min(FEW, sizes.images or FEW)
    return open_data(replace(recipe.data, limit=limit), pixels)


def pixels_of(data: Data, recipe: Recipe) -> NDArray[np.uint8]:
    """[N, H, W, 3], what a run of ours trains on: the rivals get no other image."""
    kept, _ = split_held(data.train, recipe)
    return np.asarray(kept.take(np.arange(len(kept))))


def named(recipe: Recipe) -> str:
    return "ResNet-18" if recipe.backbone.name == "resnet18" else recipe.backbone.name


MEASURES: dict[str, Callable[[], list[Pair]]] = {
    "whole_loop_32": whole_loop_32,
    "whole_loop_96": whole_loop_96,
    "efficiency_32": efficiency_32,
    "efficiency_224": efficiency_224,
    "efficiency_tiny": efficiency_tiny,
    "monitors": monitors,
    "loss_curve": loss_curve,
}
