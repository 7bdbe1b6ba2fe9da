"""A Recipe and open data become the objects a run works with."""

from __future__ import annotations

import dataclasses
import os
import shlex
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from stopgrad import dist, rng
from stopgrad.assemble.begin import load_start
from stopgrad.assemble.lesson import Lesson, lesson_of
from stopgrad.assemble.towers import text_input
from stopgrad.contracts import Batch, Clock, ConfigError, Images, Maker, Views
from stopgrad.data.loader import Loader, Subset, hold_out
from stopgrad.data.sources import Data
from stopgrad.media import AnyPreprocess, medium_of
from stopgrad.method import Method
from stopgrad.methods import method_named
from stopgrad.nn.backbones import build_backbone, check_sizes
from stopgrad.nn.batch_norm import synchronise
from stopgrad.optim.groups import build_optimiser
from stopgrad.processes import cores
from stopgrad.recipe import Recipe
from stopgrad.recipe.typed import each_setting, plain
from stopgrad.rundir import RunDir
from stopgrad.training import cached
from stopgrad.training.checkpoint import Identity
from stopgrad.training.loop import Job
from stopgrad.training.progress import Progress
from stopgrad.training.watch import Labelled, Watch
from stopgrad.views.sensors import widths

# Settings that change neither a bit of the weights nor a line of the log, so a resumed run may change them.
FREE_TO_CHANGE = {
    "loop": (
        "view_threads",
        "prefetch",
        "checkpoint_every_steps",
        "checkpoint_every_minutes",
        "keep_checkpoints",
        "on_nan",
        "tensorboard",
        "wandb",
    ),
    "eval": ("*",),
}


def pick_device() -> torch.device:
    """This process's GPU where there is one, else the CPU."""
    if torch.cuda.is_available():
        device = torch.device("cuda", dist.device_index())
        torch.cuda.set_device(device)
        return device
    return torch.device("cpu")


def bf16_is_fast(device: torch.device) -> bool:
    """Whether bfloat16 products are native: Ampere and later, or a CPU with AVX512-BF16 or AMX."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def resolve(recipe: Recipe, device: torch.device, say: Callable[[str], None] | None = None) -> Recipe:
    """The recipe with what was left open written out: precision, compute threads, how often the watch measures.

    say: told where fewer threads are used than OMP_NUM_THREADS asks for.
    """
    loop = recipe.loop
    precision = loop.precision
    if precision == "auto":
        precision = "bf16" if bf16_is_fast(device) else "float32"
    # OMP_NUM_THREADS may ask for more than there are; threads that take turns on a core wait for each other
    threads = loop.threads or min(torch.get_num_threads(), cores())
    asked = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]  # not torch: some of it bounds them by itself
    if say is not None and not loop.threads and asked.isdecimal() and int(asked) > cores():
        said = f"OMP_NUM_THREADS={asked} is more than the cores there are: compute threads are {threads} of {cores()}"
        say(f"{said}; --set loop.threads=N takes N all the same")
    loop = dataclasses.replace(loop, precision=precision, threads=threads)
    return dataclasses.replace(recipe, loop=loop, watch=recipe.watch.paced(loop.batch_size))


def identity(recipe: Recipe, data: Data, device: torch.device) -> Identity:
    """What has to be the same for a resumed run to give the same bits, flat, by setting."""
    now: dict[str, Any] = {"data fingerprint": data.fingerprint, "processes": dist.world(), "device": device.type}
    defaults: dict[str, Any] = {}
    for name, value, default in each_setting(recipe):
        section, _, key = name.partition(".")
        free = FREE_TO_CHANGE.get(section, ())
        if "*" not in free and key not in free:
            now[name] = value
            if default is not dataclasses.MISSING:
                defaults[name] = default
    return Identity(now, defaults)


def build_method(recipe: Recipe, images: int, start: Callable[[nn.Module], None] | None = None) -> Method:
    """Backbone and heads, initialised from the recipe's seed; global random state is left alone.

    images: that are trained on.  start: puts weights into the backbone, before a slow copy of it is made.
    """
    builder, _ = method_named(recipe.method.name)
    backbone = fresh_backbone(recipe, recipe.seed)
    known = dataclasses.replace(recipe.known(images), text=text_input(recipe))
    channels, size = input_of(recipe)
    check_sizes(backbone, recipe.backbone.name, channels, sorted(set(known.crops) - {size}))
    if start is not None:
        start(backbone)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(rng.torch_seed(recipe.seed, 1))
        built: Method = builder(backbone, recipe.method, known)
        return built


def fresh_trunk(recipe: Recipe, seed: int) -> nn.Module:
    """The trunk as it is kept and evaluated, with the layers that the method makes a part of it, untrained."""
    return fresh_backbone(dataclasses.replace(recipe, backbone=recipe.method.trunk(recipe.backbone)), seed)


def fresh_backbone(recipe: Recipe, seed: int) -> nn.Module:
    sensors = widths(medium_of(recipe.views).preprocess(recipe.data, recipe.views))
    return build_backbone(recipe.backbone, *input_of(recipe), seed, sensors)


def input_of(recipe: Recipe) -> tuple[int, int]:
    """(channels, size) of what the backbone reads."""
    medium = medium_of(recipe.views)
    return medium.input(medium.preprocess(recipe.data, recipe.views))


@dataclasses.dataclass(frozen=True)
class Built:
    """A run ready for its first step."""

    job: Job
    maker: Maker
    watch: Watch
    preprocess: AnyPreprocess
    lesson: Lesson | None  # of a method that is taught


def build_job(
    recipe: Recipe,
    data: Data,
    run: RunDir,
    device: torch.device,
    progress: Progress,
    write: Callable[[Mapping[str, Any]], None],
) -> Built:
    """Everything the loop needs. Raises DataError where there are fewer images than one batch."""
    medium = medium_of(recipe.views)
    preprocess = medium.preprocess(recipe.data, recipe.views)
    lesson = lesson_of(recipe, data, run)
    kept, held = (lesson.kept, lesson.held) if lesson else split_held(data.train, recipe)
    start = partial(load_start, recipe=recipe, run=run, preprocess=preprocess) if recipe.backbone.init else None
    method = build_method(recipe, len(kept), start)
    if lesson:
        lesson.begin(method)
    cached.check(method, recipe.loop.accumulate)
    tell_groups(method, recipe, data, kept)
    method = method.to(device)
    if recipe.loop.channels_last:
        method = method.to(memory_format=torch.channels_last)
    if dist.world() > 1 and method.syncs_batch_norm:
        synchronise(method)
    parallel: nn.Module = method
    if dist.world() > 1:
        with warnings.catch_warnings():  # the name that torch proposes instead is not in every version we allow
            warnings.simplefilter("ignore", FutureWarning)
            parallel = nn.parallel.DistributedDataParallel(method, broadcast_buffers=False)
    bf16 = recipe.loop.precision == "bf16"
    loader = Loader(kept, recipe.loop.batch_size, recipe.seed, rank=dist.rank(), world=dist.world())
    threads = recipe.loop.view_threads
    maker = medium.maker(recipe.views, preprocess, recipe.seed, device, threads)
    two_views = medium.maker(recipe.views.watched(), preprocess, recipe.seed, device, 1)
    labelled = None
    if kept.labels is not None:
        bank = rng.permutation(len(kept), recipe.seed, epoch=1, purpose=rng.WATCH)[: recipe.watch.knn_bank]
        labelled = Labelled(bank=Subset(kept, bank), queries=held, preprocess=preprocess)
    watch = Watch(
        method=method,
        held=held,
        make_views=two_views,
        labelled=labelled,
        config=recipe.watch,
        recipe=plain(recipe),
        run=run,
        device=device,
        bf16=bf16,
        threads=threads,
        also=lesson.exam(method, device, bf16, threads) if lesson else None,
        reaching=reached(recipe, method, kept, maker) if recipe.watch.gradients else None,
        predicting=predicted(method) if recipe.watch.predictor else None,
    )

    def views_at(step: int) -> Views:
        return maker(loader.batch(step))

    job = Job(
        method=method,
        parallel=parallel,
        optimiser=build_optimiser(
            method, recipe.optim, recipe.loop.batch_size, method.constant_lr(), method.undecayed(), method.rates()
        ),
        views_at=views_at,
        steps_per_epoch=loader.steps_per_epoch,
        seed=recipe.seed,
        device=device,
        bf16=bf16,
        loop=recipe.loop,
        optim=recipe.optim,
        run=run,
        identity=identity(recipe, data, device),
        watch=watch,
        write=write,
        progress=progress,
        resume_command=f"stopgrad train {shlex.quote(str(run.path))} --resume",
    )
    return Built(job, maker, watch, preprocess, lesson)


def reached(recipe: Recipe, method: Method, kept: Images, maker: Maker) -> Callable[[Clock], Mapping[str, float]]:
    """What measures watch.gradients, on one batch of training images, the same for the whole run: those have their row
    in a bank. Raises ConfigError where that is not offered."""
    from stopgrad.siamese.reaching import check, measured

    check(method)
    if dist.world() > 1:
        raise ConfigError("watch.gradients is measured on one process; remove it, or train with one")
    index = rng.permutation(len(kept), recipe.seed, epoch=2, purpose=rng.WATCH)[: recipe.loop.batch_size]
    views = maker(Batch(kept.take(index), index, epoch=rng.key(rng.WATCH) >> 33))
    return partial(measured, method, views)


def predicted(method: Method) -> Callable[[Tensor, Tensor, Sequence[Tensor]], Mapping[str, float]]:
    """What measures watch.predictor. Raises ConfigError where that is not offered."""
    from stopgrad.siamese.predicting import check, measured

    return partial(measured, check(method))


def tell_groups(method: Method, recipe: Recipe, data: Data, kept: Images) -> None:
    """Gives a method that asks for it the user's grouping of the samples (who speaks). It is told by data.group alone.

    Raises ConfigError where no grouping is named, or the data has none of that name.
    """
    if not getattr(recipe.method, "grouped", False):
        return
    name = getattr(recipe.data, "group", "")
    if name not in data.attributes:
        known = (
            ", ".join(data.attributes) or "none; --set data.pattern='(?P<speaker>\\w+)_' names them by the file names"
        )
        raise ConfigError(
            f"method.negatives={getattr(recipe.method, 'negatives', '')} needs data.group, the attribute that says "
            f"which samples are alike, got {name!r}; the data has: {known}"
        )
    own = data.attributes[name].train
    index = kept.index if isinstance(kept, Subset) else np.arange(len(kept))
    cast(Any, method).set_groups(torch.from_numpy(own[index]))


def split_held(images: Images, recipe: Recipe) -> tuple[Images, Images]:
    """(what is trained on, what is watched). Under 160 images all are both: a tenth would say nothing."""
    count = min(recipe.watch.images, len(images) // 10)
    return hold_out(images, count, recipe.seed) if count >= 16 else (images, images)
