"""`stopgrad views`: a picture of what a method would see of some images, before anything is trained."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from stopgrad import rng
from stopgrad.assemble.api import Options, choose
from stopgrad.assemble.train import measured
from stopgrad.contracts import ConfigError
from stopgrad.data.probe import this_machine
from stopgrad.media import medium_of
from stopgrad.recipe import Recipe
from stopgrad.rundir import write_bytes
from stopgrad.training.progress import Progress
from stopgrad.views.maker import ViewMaker
from stopgrad.views.sheet import sheet

MOST = 64  # rows of a picture
SUFFIXES = (".png", ".jpg", ".webp")


def draw_views(
    method: str | Path | Recipe,
    output: str | Path,
    *,
    options: Options | None = None,
    images: int = 8,
    epochs: int = 3,
    minutes: float = 0.0,
    progress: Progress | None = None,
) -> tuple[Path, int]:
    """Draws `images` training images, chosen by the seed, and their views of the first `epochs` epochs into `output`.

    minutes: how long the run may train, which decides the size of a view where the images choose it; 0: nobody said.
    Returns (the picture's path, its rows). Raises ConfigError, and what opening the data raises.
    """
    progress = progress or Progress()
    output = Path(output)
    if output.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"--output {output}: a picture is drawn as one of {', '.join(SUFFIXES)}; write views.png")
    if not 1 <= images <= MOST:
        raise ConfigError(f"--images must be from 1 to {MOST}, got {images}")
    recipe, reasons = choose(method, options or Options(), minutes)
    for line in reasons:
        progress.say(f"  {line}")
    data = medium_of(recipe.views).open(recipe.data, recipe.views, progress.reading)
    recipe = measured(recipe, data, progress)
    # Drawn on the CPU also where training draws on a GPU: the same law and the same parameters.
    views = dataclasses.replace(recipe.views, executor="exact" if recipe.views.executor == "exact" else "cpu")
    maker = ViewMaker(views, recipe.data.channels, recipe.seed, torch.device("cpu"), max(1, this_machine().cores))
    chosen = np.sort(rng.permutation(len(data.train), recipe.seed, epoch=0)[:images])
    try:
        picture = sheet(
            data.train,
            chosen.tolist(),
            maker,
            maker.mean,
            maker.std,
            epochs=epochs,
            title=f"{recipe.method.name} on {data.name}{' (synthetic)' if data.synthetic else ''}",
            notes=[laws(recipe)],
            names=[data.train.name(int(i)) for i in chosen],
        )
    finally:
        maker.close()
    file = io.BytesIO()
    Image.fromarray(picture).save(file, format=Image.registered_extensions()[output.suffix.lower()])
    write_bytes(output, file.getvalue())
    return output, len(chosen)


def laws(recipe: Recipe) -> str:
    """The law of the first view in words, and how many there are."""
    crop = recipe.views.crops[0]
    said = [
        f"{len(recipe.views.crops)} views of {recipe.views.side(crop)} pixels, area {100 * crop.scale[0]:.0f} to "
        f"{100 * crop.scale[1]:.0f} %"
    ]
    for name, share in (("flipped", crop.hflip), ("turned", crop.rotation), ("blurred", crop.blur)):
        if share:
            said.append(f"{name} {100 * share:.0f} %")
    if crop.jitter:
        said.append(
            f"colours changed {100 * crop.jitter:.0f} % (brightness {crop.brightness:g}, contrast {crop.contrast:g}, "
            f"saturation {crop.saturation:g}, hue {crop.hue:g})"
        )
    if crop.grayscale:
        said.append(f"gray {100 * crop.grayscale:.0f} %")
    differ = "; the other views have laws of their own" if len(set(recipe.views.crops)) > 1 else ""
    return ", ".join(said) + differ
