"""A folder of coloured noise with three classes, and small runs on it: what fine-tuning and distillation begin with."""

import functools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from stopgrad.assemble import api
from stopgrad.assemble.finetune import Where, finetune
from stopgrad.training.progress import Progress

CLASSES = ("blue", "green", "red")
COLOURS = ((60, 60, 200), (60, 200, 60), (200, 60, 60))
SIDE, TRAIN, TEST = 16, 32, 8  # pixels, images a class
QUICK = (
    "loop.threads=1",
    "loop.view_threads=1",
    "loop.precision=float32",
    "loop.log_every_steps=3",
    "loop.checkpoint_every_steps=3",
    "watch={every_steps: 4, images: 24, knn_every_steps: 100, knn_bank: 24}",
    "eval={k: [5], linear: none, random_seeds: 1, retrieval_images: 8, batch_size: 32}",
)
THREE = "method.projector={layers: 3, hidden: 16, dim: 8, norm: batch, output_norm: batch}"
QUIET = Progress(quiet=True)


def colours(folder: Path, seed: int = 0, counts: tuple[int, ...] = (TRAIN, TRAIN, TRAIN), flat: bool = False) -> Path:
    """train/CLASS/N.png and test/CLASS/N.png; flat: all in one folder, without labels."""
    draw = np.random.default_rng(seed)
    for split, many in (("train", counts), ("test", (TEST,) * len(counts))):
        for name, colour, count in zip(CLASSES, COLOURS, many):
            place = folder / split / ("" if flat else name)
            place.mkdir(parents=True, exist_ok=True)
            for i in range(count):
                pixels = np.array(colour) + draw.integers(-50, 50, (SIDE, SIDE, 3))
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(place / f"{name}{i}.png")
    return folder


def pretrained(out: Path, name: str, data: Path, method: str = "simclr", *settings: str) -> Path:
    """A finished pre-training of some steps, with `tiny` at width 8."""
    asked = ("backbone.width=8", "loop.epochs=1", "loop.batch_size=24", *settings, *QUICK)
    options = api.Options(data=str(data), image_size=SIDE, settings=asked)
    return api.train(f"{method}/scenes", out=out, name=name, options=options, progress=QUIET).path


def few(*settings: str, **rest: Any) -> api.Options:
    return api.Options(settings=(*QUICK, *settings), **rest)


def into(out: Path, name: str) -> Where:
    return Where(out=out, name=name, progress=QUIET)


_FOLDER = tempfile.TemporaryDirectory(prefix="stopgrad-few-")  # gone when the tests are


@functools.cache
def place() -> Path:
    """photos/ with labels, plain/ without; `pre`, a pre-training with a projector of three layers; `tuned`, that with
    one of these layers, fine-tuned with four labels a class. Made once for all tests, which leave it as it is."""
    out = Path(_FOLDER.name)
    colours(out / "photos")
    colours(out / "plain", seed=1, flat=True)
    pretrained(out, "pre", out / "photos", "simclr", THREE)
    options = few("loop.epochs=8", seed=3)
    finetune(out / "pre", "4-per-class", from_projector_layer=1, options=options, where=into(out, "tuned"))
    return out
