"""`stopgrad views`: a picture of what a method would see of some images, before anything is trained."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from stopgrad import rng
from stopgrad.assemble.api import Options, choose
from stopgrad.assemble.pictured_views import pictured_views
from stopgrad.assemble.text_views import page, text_views
from stopgrad.assemble.train import measured
from stopgrad.contracts import ConfigError
from stopgrad.data.probe import this_machine
from stopgrad.media import medium_of
from stopgrad.recipe import Recipe
from stopgrad.rundir import write_bytes
from stopgrad.training.progress import Progress
from stopgrad.views.config import ViewsConfig
from stopgrad.views.maker import ViewMaker
from stopgrad.views.sensors import normals_at
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
    title = f"{recipe.method.name} on {data.name}{' (synthetic)' if data.synthetic else ''}"
    if recipe.views.kind == "text":
        lines = text_views(recipe, data, images, epochs)
        for line in lines:
            progress.say(line)
        return as_picture(np.asarray(page(title, lines)), output), min(images, len(data.train))
    if recipe.views.kind != "image":
        rows = pictured_views(recipe, data, images, epochs)
        return as_picture(rows, output), min(images, len(data.train))
    config, shown = recipe.of_images("stopgrad views")
    # Drawn on the CPU also where training draws on a GPU: the same law and the same parameters.
    views = dataclasses.replace(shown, executor="exact" if shown.executor == "exact" else "cpu")
    sensors, threads = config.scene_sensors(), max(1, this_machine().cores)
    maker = ViewMaker(views, config.channels, recipe.seed, torch.device("cpu"), threads, normals_at(sensors))
    chosen = np.sort(rng.permutation(len(data.train), recipe.seed, epoch=0)[:images])
    try:
        picture = sheet(
            data.train,
            chosen.tolist(),
            maker,
            maker.mean,
            maker.std,
            epochs=epochs,
            title=title,
            notes=[laws(views)],
            names=[data.train.name(int(i)) for i in chosen],
            sensors=sensors,
        )
    finally:
        maker.close()
    return as_picture(picture, output), len(chosen)


def as_picture(pixels: NDArray[np.uint8], output: Path) -> Path:
    """Writes [H, W, 3] as what its suffix says, one of SUFFIXES; returns the path."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format=Image.registered_extensions()[output.suffix.lower()])
    write_bytes(output, file.getvalue())
    return output


def laws(views: ViewsConfig) -> str:
    """The law of the first view in words, and how many there are."""
    crop = views.crops[0]
    said = [
        f"{len(views.crops)} views of {views.side(crop)} pixels, area {100 * crop.scale[0]:.0f} to "
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
    differ = "; the other views have laws of their own" if len(set(views.crops)) > 1 else ""
    return ", ".join(said) + differ
