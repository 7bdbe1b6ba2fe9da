"""What a run would cost on this machine: its steps, monitors, evaluation and gallery, rehearsed for some seconds.

Everything is done on a copy or read only; nothing of it is kept.
"""

from __future__ import annotations

import dataclasses
import math
import tempfile
import time
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from stopgrad import dist, rng
from stopgrad.assemble.build import build_job, fresh_trunk, pick_device, resolve
from stopgrad.assemble.minutes import epochs_at, step_seconds, watch_seconds
from stopgrad.assemble.report import keep_gallery
from stopgrad.assemble.towers import seen_by_trunk
from stopgrad.assemble.train import measured, nobody, peak_memory_mb
from stopgrad.contracts import Images, Preprocess
from stopgrad.data import Data
from stopgrad.data.loader import Subset
from stopgrad.eval import evaluate
from stopgrad.eval.extract import BATCH_NORM_IMAGES
from stopgrad.media import AnyPreprocess
from stopgrad.recipe import Recipe
from stopgrad.rundir import RunDir
from stopgrad.training.progress import Progress

WARMING = 100  # images of the evaluations before those that count
REHEARSED = (400, 1_600)  # images of the two evaluations that are timed, at most
PATIENCE = 60.0  # seconds that these two should take together; a slow machine times fewer images
ENDING_SECONDS = 4.0  # checkpoints, the encoder, the page of the report: small beside the rest, and guessed


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """Of a whole run whose images are stored; seconds."""

    epochs: int
    steps: int
    step: float  # one, with its views
    watching: float  # a step's share of it
    evaluation: float
    report: float
    memory: float  # bytes at its peak
    on_gpu: bool

    @property
    def training(self) -> float:
        return self.steps * (self.step + self.watching)

    @property
    def seconds(self) -> float:
        return self.training + self.evaluation + self.report


def rehearse(recipe: Recipe, data: Data, minutes: float, progress: Progress) -> Cost:
    """minutes: how long it may train; 0: loop.epochs. Raises DataError where there are fewer images than a batch."""
    device = pick_device()
    dist.start(device.type)
    recipe = resolve(recipe, device)
    torch.set_num_threads(recipe.loop.threads)
    recipe = measured(recipe, data, Progress(quiet=True))
    with tempfile.TemporaryDirectory() as folder:
        built = build_job(recipe, data, RunDir(Path(folder), writes=False), device, progress, nobody)
        try:
            progress.say("timing some steps")
            step, watching = step_seconds(recipe, built), watch_seconds(recipe, built)
            epochs = epochs_at(minutes, step, watching, built)[0] if minutes else recipe.loop.epochs
            backbone = built.job.method.trunks()["backbone"]
            progress.say("timing an evaluation")
            evaluation = _scoring_seconds(recipe, data, backbone, built.preprocess, device)
            progress.say("timing the report")
            begin = time.monotonic()
            run = RunDir(Path(folder) / "run")
            keep_gallery(run, backbone, data, built.preprocess, recipe, device, None, trained_here=False)
            report = time.monotonic() - begin + ENDING_SECONDS
        finally:
            built.maker.close()
    # features of all images, as they are and normalised; the rehearsal held those of a part
    features = (len(data.train) + len(data.test)) * _width(backbone) * 4 * 2
    return Cost(
        epochs=epochs,
        steps=epochs * built.job.steps_per_epoch,
        step=step,
        watching=watching,
        evaluation=evaluation,
        report=report,
        memory=peak_memory_mb(device) * 1e6 + features,
        on_gpu=device.type == "cuda",
    )


def _width(backbone: torch.nn.Module) -> int:
    return int(cast(Any, backbone).dim)


def _scoring_seconds(
    recipe: Recipe, data: Data, backbone: torch.nn.Module, preprocess: AnyPreprocess, device: torch.device
) -> float:
    """What the evaluation at the end will take: two parts of the images are evaluated, and tell apart what grows with
    their number and what does not. Neighbours grow with training times test images: counted in products of matrices.
    """
    config = recipe.eval

    def timed(part: Data, seeds: int) -> list[float]:
        marks: list[float] = []
        evaluate(
            backbone,
            lambda seed: fresh_trunk(recipe, seed),
            *seen_by_trunk(part, preprocess, recipe.views),
            dataclasses.replace(config, random_seeds=seeds),
            seed=recipe.seed,
            device=device,
            threads=recipe.loop.view_threads,
            say=lambda _: marks.append(time.monotonic()),  # called before each encoder
        )
        return [float(seconds) for seconds in np.diff([*marks, time.monotonic()])]

    def forwards(of: Data) -> int:
        return len(of.train) + len(of.test) + 2 * min(config.retrieval_images, len(of.test))

    total = len(data.train) + len(data.test)
    seeds = min(1, config.random_seeds)
    warming = _part(data, WARMING / total, recipe.seed)
    timed(warming, 0)  # kernels are chosen, threads are started
    each = sum(timed(warming, 0)) / WARMING  # seconds an image, of the backbone and the pixels
    share = rehearsed_share(each * (REHEARSED[0] + REHEARSED[1] * (1 + seeds)))
    few, many = (_part(data, share * count / total, recipe.seed) for count in REHEARSED)
    small, large = timed(few, 0), timed(many, seeds)  # the backbone, perhaps one untrained, the pixels
    growth = (forwards(data) - forwards(many)) / max(1, forwards(many) - forwards(few))
    own, pixels = (large[i] + max(large[i] - small[i], 0.5 * large[i]) * growth for i in (0, -1))
    fitting = max(0.0, large[1] - large[0]) if seeds else 0.0  # the untrained one's batch norm is measured first
    fitting *= min(BATCH_NORM_IMAGES, len(data.train)) / min(BATCH_NORM_IMAGES, len(many.train))
    products = 0.0
    if data.train.labels is not None and growth:
        raw = preprocess.channels * preprocess.image_size**2 if isinstance(preprocess, Preprocess) else 0
        width = _width(backbone) * (1 + config.random_seeds) + raw
        products = 2.0 * len(data.train) * len(data.test) * width / _operations_per_second()
    return own * (1 + config.random_seeds) + fitting * config.random_seeds + pixels + products


def rehearsed_share(seconds: float) -> float:
    """How much of REHEARSED to time, where all of it takes about `seconds`; never fewer images than warmed up with."""
    return min(1.0, max(WARMING / REHEARSED[0], PATIENCE / max(seconds, 1e-9)))


def _operations_per_second() -> float:
    """Of a product of float32 matrices on the CPU, where neighbours are looked for."""
    x = torch.ones(1024, 1024)
    torch.mm(x, x)
    begin = time.monotonic()
    for _ in range(4):
        torch.mm(x, x)
    return 4 * 2 * 1024.0**3 / (time.monotonic() - begin)


def _part(data: Data, share: float, seed: int) -> Data:
    """A share of both splits, chosen by a shuffle so that all classes are in it."""

    def some(images: Images) -> Subset:
        count = max(1, min(len(images), math.ceil(share * len(images))))
        order = rng.permutation(len(images), seed, epoch=2, purpose=rng.EVAL)
        return Subset(images, np.sort(order[:count]))

    train, test = some(data.train), some(data.test)
    known = {
        name: dataclasses.replace(one, train=one.train[train.index], test=one.test[test.index])
        for name, one in data.attributes.items()
    }
    occurring = data.occurring
    if occurring is not None:
        has = occurring.train[train.index], occurring.test[test.index]
        occurring = dataclasses.replace(occurring, train=has[0], test=has[1])
    return dataclasses.replace(data, train=train, test=test, attributes=known, occurring=occurring)
