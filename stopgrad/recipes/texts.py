"""METHOD/text: a method that compares views, on sentences: its heads as METHOD/scenes has them, a small transformer.

No paper of the family has trained on text, so nothing here is a paper's but the method. Optimiser, width and length are
a first guess that nobody has measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any

from stopgrad.contracts import ConfigError, DataError, MissingInputError
from stopgrad.data.sources import SCENES
from stopgrad.data.texts import TextDataConfig, open_texts
from stopgrad.optim.config import OptimConfig
from stopgrad.recipe import Recipe
from stopgrad.recipes.base import TINY_BATCH
from stopgrad.recipes.fitted import of_batch, of_length
from stopgrad.recipes.text_backbones import small_text
from stopgrad.training.config import LoopConfig, WatchConfig
from stopgrad.views.text_config import TextViewsConfig

ON_TEXT = "text"  # the preset's name
RATE, DECAY = 4e-3, 0.01  # of AdamW, for 256 texts a step: 1e-3 for the 64 there are
STEPS, MOST_EPOCHS, LEAST_EPOCHS = 2_000, 100, 5  # of a run whose length nobody says
EPOCHS = 15  # where nobody has counted the texts; as METHOD/scenes
SMALLEST_BATCH = 4  # below, batch norm and negatives say little

Presets = Mapping[str, Callable[[], Recipe]]


def reads_text(presets: Presets) -> bool:
    """Whether a method of these presets compares views of one sample, whatever the samples are."""
    if "scenes" not in presets:
        return False
    recipe = presets["scenes"]()
    return recipe.views.kind == "image" and recipe.backbone.split == "none" and not recipe.backbone.patches


def text(presets: Presets) -> Recipe:
    """Sentences, by a small transformer: the captions of the embedded scenes, or --data captions.csv. A first guess."""
    recipe = presets["scenes"]()
    return Recipe(
        method=recipe.method,
        data=TextDataConfig(),
        views=TextViewsConfig(views=len(recipe.views.sides)),
        backbone=small_text("text_transformer"),
        optim=OptimConfig(name="adamw", base_lr=RATE, weight_decay=DECAY, exclude_1d=True, warmup_epochs=1.0),
        loop=LoopConfig(epochs=EPOCHS, batch_size=TINY_BATCH),
    )


def texts(
    method: str, source: str, presets: Presets, given: Mapping[str, Any], minutes: float = 0.0
) -> tuple[Recipe, dict[str, str]]:
    """METHOD/text for the texts of `source`: the recipe, and {setting: why} for what they decided.

    given: settings that the user has said.  minutes: how long training may take; 0 where nobody said. What is wrong
    with the texts is left to whoever opens them. Raises ConfigError for a method that reads none.
    """
    if ON_TEXT not in presets:
        raise ConfigError(f"{method} reads no texts; `stopgrad recipes` lists the presets, METHOD/text those that do")
    recipe = presets[ON_TEXT]()
    if not source or source in SCENES:
        return recipe, {}
    names = [field.name for field in fields(TextDataConfig)]
    said = {name: given[f"data.{name}"] for name in names if f"data.{name}" in given}
    try:
        count = len(open_texts(TextDataConfig(**{**said, "source": source})).train)
    except (DataError, MissingInputError):
        return recipe, {}
    held = min(WatchConfig().images, count // 10)
    usable = max(2, count - held if held >= 16 else count)  # as build.split_held
    few = 1 << max(0, int(math.log2(usable / 4))) if usable >= 4 else 1  # the power of two at or below a quarter
    batch = int(given.get("loop.batch_size") or max(SMALLEST_BATCH, min(TINY_BATCH, few)))
    steps = max(1, usable // batch)
    epochs = int(given.get("loop.epochs") or min(MOST_EPOCHS, max(LEAST_EPOCHS, math.ceil(STEPS / steps))))
    fitted, reasons = of_batch(recipe.method, batch, given.get("loop.accumulate") or 1, usable)
    recipe = replace(recipe, method=fitted, loop=replace(recipe.loop, batch_size=batch))
    if batch != TINY_BATCH:
        reasons["loop.batch_size"] = f"{usable:,} texts are trained on"
    if not minutes:
        recipe, shortened = of_length(recipe, epochs)
        reasons |= shortened
        reasons["loop.epochs"] = f"{steps * epochs:,} steps; --minutes or --epochs say otherwise"
    return recipe, {key: why for key, why in reasons.items() if key not in given}
