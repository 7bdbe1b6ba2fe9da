"""Recipes of what is taught: fine-tuning with few labels and distillation (SimCLR v2, arXiv:2006.10029), composed from
the run they begin with and from what its images are.

`tiny` has settings of its own, as it has everywhere; any other backbone has the paper's where the paper and the README
of google-research/simclr state them: LARS at 0.005 sqrt(batch), batch 1,024, weight decay 0, no warm-up, 60 epochs with
1 % of the labels and 30 with more, a crop and a flip alone. What they do not state is marked as a guess.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from stopgrad.methods.distill import DistillConfig
from stopgrad.methods.finetune import FinetuneConfig
from stopgrad.nn.config import BackboneConfig
from stopgrad.optim.config import OptimConfig
from stopgrad.recipe import Recipe
from stopgrad.recipes.base import TINY_BATCH
from stopgrad.training.config import LoopConfig, WatchConfig
from stopgrad.views.config import CropConfig, ViewsConfig

PAPER_BATCH, PAPER_RATE = 1024, 0.005  # of fine-tuning; the rate for the square root of the batch
FEW, EPOCHS_OF_FEW, EPOCHS = 0.01, 60, 30  # up to this share of the labels; with more of them
LEAST_STEPS = 720  # those that 60 epochs have with 1 % of ImageNet: 12 an epoch. Sets of some thousand images have less
DISTILL_EPOCHS, DISTILL_EPOCHS_TINY = 400, 15  # the paper's; those of the other presets on scenes
DISTILL_BATCH = 256  # a guess: the paper's is larger
# A rate for 256 images. Guesses, on scenes-v1: with few labels, from weights that are good; from random ones.
TINY_FINETUNED, TINY_SCRATCH = 0.48, 0.96
SUPERVISED = OptimConfig(base_lr=0.1, weight_decay=1e-4)  # of a ResNet from scratch (arXiv:1512.03385, section 3.4)


@dataclass(frozen=True, kw_only=True, slots=True)
class Taken:
    """What is known of the images when a recipe is composed."""

    images: int  # that are trained on
    share: float  # of the labels, 0 to 1
    processes: int = 1


def finetuned(
    run: Recipe, backbone: BackboneConfig, method: FinetuneConfig, taken: Taken
) -> tuple[Recipe, dict[str, str]]:
    """Fine-tuning of `backbone` on the images of `run`, and {setting: why}.

    run: of the pre-training, whose images, size and statistics are kept.  backbone: without `init`, from scratch.
    """
    tiny, scratch = backbone.name == "tiny", not backbone.init
    most = TINY_BATCH if tiny else min(PAPER_BATCH, 2 * run.loop.batch_size)
    batch = _batch(taken, most)
    steps = max(1, taken.images // batch)
    epochs = EPOCHS_OF_FEW if taken.share <= FEW else EPOCHS
    why = {"loop.epochs": f"the paper's with {'1 % of' if epochs == EPOCHS_OF_FEW else 'more'} labels"}
    if epochs * steps < LEAST_STEPS:
        epochs = math.ceil(LEAST_STEPS / steps)
        why["loop.epochs"] = f"{epochs * steps} steps, as many as the paper takes with 1 % of ImageNet"
    why["loop.batch_size"] = f"{taken.images:,} images with a label give {steps} step{'s' * (steps != 1)} an epoch"
    if tiny:
        rate = TINY_SCRATCH if scratch else TINY_FINETUNED
        optim = OptimConfig(base_lr=rate, weight_decay=5e-4 if scratch else 0.0)
    elif scratch:
        optim = SUPERVISED
    else:
        rate = PAPER_RATE * math.sqrt(batch) * 256 / batch
        optim = OptimConfig(name="lars", base_lr=round(rate, 6), weight_decay=0.0, exclude_1d=True)
        why["optim.base_lr"] = f"{PAPER_RATE:g} sqrt(batch), the paper's, for LARS"
    return _composed(run, backbone, method, optim, batch, epochs), why


def distilled(
    run: Recipe, backbone: BackboneConfig, method: DistillConfig, taken: Taken
) -> tuple[Recipe, dict[str, str]]:
    """Distillation into `backbone`, and {setting: why}. run: the teacher's, whose size and statistics are kept."""
    tiny = backbone.name == "tiny"
    batch = _batch(taken, TINY_BATCH if tiny else DISTILL_BATCH)
    optim = OptimConfig(base_lr=TINY_SCRATCH, weight_decay=5e-4) if tiny else SUPERVISED
    epochs = DISTILL_EPOCHS_TINY if tiny else DISTILL_EPOCHS
    why = {} if tiny else {"loop.epochs": "the paper's"}
    # Of a softmax at a temperature the gradient is as much larger as that is below 1 (scaled: smaller), and SGD's steps
    # with it, which the paper's LARS does not see: at 0.1 and the rate of 1 the loss of `tiny` goes to 40.
    steep = method.temperature if method.scaled else 1 / method.temperature
    if steep != 1:
        optim = replace(optim, base_lr=round(optim.base_lr / steep, 6))
        why["optim.base_lr"] = f"as at temperature 1, where the gradient is {1 / steep:.3g} times this one's"
    return _composed(run, backbone, method, optim, batch, epochs), why


def _composed(
    run: Recipe,
    backbone: BackboneConfig,
    method: FinetuneConfig | DistillConfig,
    optim: OptimConfig,
    batch: int,
    epochs: int,
) -> Recipe:
    data, views = run.of_images(f"stopgrad {method.name}")
    return Recipe(
        method=method,
        data=data,
        views=crop_and_flip(views),
        backbone=backbone,
        optim=optim,
        loop=LoopConfig(epochs=epochs, batch_size=batch, view_threads=run.loop.view_threads),
        watch=WatchConfig(images=run.watch.images),
        eval=replace(run.eval, baseline=""),
    )


def crop_and_flip(views: ViewsConfig) -> ViewsConfig:
    """The first crop of these views without any change of colour, blur or turn."""
    first = views.crops[0]
    crop = CropConfig(
        scale=first.scale,
        ratio=first.ratio,
        interpolation=first.interpolation,
        hflip=first.hflip,
        vflip=first.vflip,
        jitter=0.0,
        grayscale=0.0,
        blur=0.0,
    )
    return replace(views, crops=(crop,))


def _batch(taken: Taken, most: int) -> int:
    """At most `most`, shared evenly by processes, so that an epoch leaves out few of few images."""
    steps = math.ceil(taken.images / most)
    return max(2, taken.processes, taken.images // steps // taken.processes * taken.processes)
