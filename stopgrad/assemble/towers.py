"""A method with a tower beside its backbone (CLIP): its file, what it reads, and what both are worth together."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch

from stopgrad.contracts import Preprocess, Result
from stopgrad.data import Data
from stopgrad.data.captioned import CAPTION, IMAGE, CaptionedDataConfig, has_captions, images_of
from stopgrad.encoder import Encoder, save_encoder
from stopgrad.eval import evaluate
from stopgrad.eval.pairs import Towers, evaluate_pairs
from stopgrad.media import AnyPreprocess, AnyViews, medium_of
from stopgrad.method import Method
from stopgrad.methods.clip import TEXT_TOWER
from stopgrad.recipe import Recipe
from stopgrad.rundir import RunDir
from stopgrad.training.progress import Progress
from stopgrad.views.captioned_config import CaptionedPreprocess, CaptionedViewsConfig
from stopgrad.views.config import ViewsConfig
from stopgrad.views.text_config import TextPreprocess

if TYPE_CHECKING:
    from stopgrad.eval.suite import Other


def text_input(recipe: Recipe) -> tuple[int, int] | None:
    """(kinds of token, tokens) of captions; None where there are none."""
    if not isinstance(recipe.views, CaptionedViewsConfig):
        return None
    preprocess = medium_of(recipe.views).preprocess(recipe.data, recipe.views).text
    return medium_of(preprocess).input(preprocess)


def save_towers(run: RunDir, recipe: Recipe, method: Method, preprocess: AnyPreprocess) -> None:
    """encoder.safetensors, and TOWER_encoder.safetensors of every other, each with the preprocessing it needs."""
    trunks = method.trunks()
    save_encoder(run.encoder, trunks["backbone"], recipe.method.trunk(recipe.backbone), image_part(preprocess))
    for name, config in recipe.method.towers().items():
        assert isinstance(preprocess, CaptionedPreprocess)
        save_encoder(run.tower(name), trunks[name], config, preprocess.text)


def seen_by_trunk(data: Data, preprocess: AnyPreprocess, views: AnyViews) -> tuple[Data, AnyPreprocess, AnyViews]:
    """What the trunk that is kept reads of samples with several parts: of images with captions, the images."""
    if isinstance(preprocess, CaptionedPreprocess) and isinstance(views, CaptionedViewsConfig):
        return images_of(data), preprocess.image, two_views(views)
    return data, preprocess, views


def two_views(views: CaptionedViewsConfig) -> ViewsConfig:
    """How an image's second view is made for the evaluation: as SimSiam does. CLIP's own crop of a square image is the
    image, and every encoder would find it."""
    return dataclasses.replace(views.image(), crops=ViewsConfig().crops)


def image_part(preprocess: AnyPreprocess) -> AnyPreprocess:
    """The preprocessing of the trunk that is kept."""
    return preprocess.image if isinstance(preprocess, CaptionedPreprocess) else preprocess


def both_read(image: AnyPreprocess, text: AnyPreprocess) -> CaptionedPreprocess:
    """What the encoders of a run with two read together."""
    assert isinstance(image, Preprocess)
    assert isinstance(text, TextPreprocess)
    return CaptionedPreprocess(image=image, text=text)


def of_kind(sample: Any, preprocess: AnyPreprocess) -> Any:
    """The part of a sample that an encoder of this preprocessing reads."""
    if not isinstance(sample, tuple):
        return sample
    return sample[CAPTION if preprocess.kind == "text" else IMAGE]


def pair_rows(
    recipe: Recipe,
    data: Data,
    method: Method,
    fresh: Callable[[int], Method],
    preprocess: AnyPreprocess,
    device: torch.device,
    progress: Progress,
) -> list[Result]:
    """What both towers are worth together; nothing of a method that has one. fresh: seed -> the method, untrained."""
    if not isinstance(preprocess, CaptionedPreprocess):
        return []
    return evaluate_pairs(
        _both(method),
        lambda seed: _both(fresh(seed)),
        data,
        preprocess,
        recipe.eval,
        seed=recipe.seed,
        device=device,
        threads=recipe.loop.view_threads,
        say=progress.say,
    )


def _both(method: Method) -> Towers:
    trunks = method.trunks()
    return trunks["backbone"], trunks[TEXT_TOWER]


def score_both(
    image: Encoder,
    text: Encoder,
    recipe: Recipe,
    others: Mapping[str, Other],
    *,
    seed: int,
    device: torch.device,
    progress: Progress,
) -> list[Result]:
    """Both encoders of a run, from their files, on the recipe's data: images with captions, or with labels alone."""
    assert isinstance(recipe.views, CaptionedViewsConfig)
    assert isinstance(recipe.data, CaptionedDataConfig)
    preprocess = both_read(image.preprocess, text.preprocess)
    views = medium_of(preprocess).refitted(recipe.views, preprocess)
    config = medium_of(preprocess).wanted(recipe.data, preprocess)
    captioned = has_captions(config.source)
    if captioned:
        data = medium_of(preprocess).open(config, views, progress.reading)
    else:
        data = medium_of(preprocess.image).open(config.images(), views.image(), progress.reading)
    for note in data.notes:
        progress.say(note)
    rows = evaluate_pairs(
        (image.backbone, text.backbone),
        lambda one: (image.fresh(one), text.fresh(one)),
        data,
        preprocess,
        recipe.eval,
        seed=seed,
        device=device,
        threads=recipe.loop.view_threads,
        say=progress.say,
    )
    return rows + evaluate(
        image.backbone.to(device),
        image.fresh,
        images_of(data) if captioned else data,
        preprocess.image,
        two_views(views),
        recipe.eval,
        seed=seed,
        device=device,
        threads=recipe.loop.view_threads,
        say=progress.say,
        others=others,
    )
