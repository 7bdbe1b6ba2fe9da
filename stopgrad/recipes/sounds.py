"""METHOD on a folder of sounds: the preset `audio` (`audio_small` without a GPU) at the sounds' rate and length."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from stopgrad.contracts import ConfigError
from stopgrad.data.probe import Machine
from stopgrad.data.sound_probe import SoundProbe
from stopgrad.nn.config import SEQUENCES
from stopgrad.recipe import Recipe
from stopgrad.views.audio_config import AudioViewsConfig

LOW, HIGH = 8_000, 16_000  # Hz: what speech is used at
FRAME = 160  # samples a latent of cpc_audio
LONGEST = 1.28  # seconds of a window, CPC's
MOST = 75  # percentile of the lengths that a window holds whole
STEPS = 2_000  # of a run whose length nobody says, on a CPU


def sounds(
    seen: SoundProbe, machine: Machine, presets: Mapping[str, Callable[[], Recipe]], given: Mapping[str, Any]
) -> tuple[Recipe, dict[str, str]]:
    """The recipe, and {setting: why} for what was chosen. Raises ConfigError for a method that reads no sounds.

    given: settings that the user has said; they are left as they are by whoever applies them afterwards.
    """
    if "audio" not in presets:
        raise ConfigError("these are sounds, and only cpc reads sounds; type stopgrad train cpc --data SRC")
    recipe = presets["audio" if machine.gpu else "audio_small"]()
    views = recipe.views
    assert isinstance(views, AudioViewsConfig)
    assert recipe.backbone.name in SEQUENCES
    rate = int(given.get("views.sample_rate") or _rate(seen.rate))
    length = float(np.percentile(seen.seconds, MOST))
    fewest = (getattr(recipe.method, "steps", 0) + 2) * FRAME
    window = max(fewest, FRAME * math.ceil(min(length, LONGEST) * rate / FRAME))
    batch = min(recipe.loop.batch_size, max(2, seen.train // 8))
    epochs = recipe.loop.epochs if machine.gpu else max(1, round(STEPS * batch / max(1, seen.train)))
    reasons = {
        "views.sample_rate": f"{seen.rate:,} Hz is what most of the sounds have",
        "views.window": f"{window / rate:.2f} seconds: {MOST} % of the sounds are {length:.2f} seconds or shorter",
        "loop.batch_size": f"{seen.train:,} training sounds",
        "loop.epochs": "the preset's" if machine.gpu else f"about {STEPS:,} steps; --minutes or --epochs say otherwise",
    }
    return replace(
        recipe,
        views=replace(views, sample_rate=rate, window=window),
        loop=replace(recipe.loop, batch_size=batch, epochs=epochs),
    ), reasons


def _rate(most_have: int) -> int:
    return HIGH if most_have >= HIGH else LOW if most_have >= LOW else max(1_000, most_have)
