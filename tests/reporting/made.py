"""Run folders made without training: a log, results, a gallery of coloured noise, names that try to break out."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from stopgrad.contracts import Preprocess
from stopgrad.data import Data
from stopgrad.eval.gallery import write_gallery
from stopgrad.recipe.text import dump, override
from stopgrad.recipes import recipe_named
from stopgrad.rundir import RunDir
from stopgrad.views import ViewsConfig
from tests.eval import fakes

EVIL_CLASS = "<img src=x onerror=alert(1)>"
EVIL_NAMES = (
    "</script><script>alert(2)</script>.png",
    '" onload="alert(3)" x=".png',
    "'><svg onload=alert(4)>.png",
    "line\nbreak.png",
    "\u202egnp.exe",
    "]]> --> {{ 7 * 7 }} &lt;b&gt;.png",
)
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
PREPROCESS = Preprocess(image_size=fakes.SIDE, mean=MEAN, std=STD)
VIEWS = ViewsConfig(image_size=fakes.SIDE, mean=MEAN, std=STD)


class EvilSplit(fakes.Split):
    """Images whose names are what a stranger may call a file."""

    def name(self, index: int) -> str:
        return EVIL_NAMES[index % len(EVIL_NAMES)]


def evil_data(labelled: bool = True) -> Data:
    plain = fakes.data(labelled=labelled)
    train, test = (EvilSplit(part.images, part.labels) for part in (plain.train, plain.test))  # type: ignore[attr-defined]
    classes = (EVIL_CLASS, '"quoted"', "&amp;") if labelled else ()
    return Data(
        name="evil",
        synthetic=False,
        classes=classes,
        train=train,
        test=test,
        fingerprint="f" * 16,
        bad=(),
        ignored=0,
        notes=(),
        split_rule="as made",
    )


def gallery(folder: Path, data: Data | None = None) -> dict[str, Any]:
    """Writes a gallery and returns its index."""
    write_gallery(folder, fakes.Net(), data or fakes.data(), PREPROCESS, VIEWS, seed=0, device="cpu", threads=1)
    found: dict[str, Any] = json.loads((folder / "gallery.json").read_text())
    return found


def line(step: int, **fields: Any) -> dict[str, Any]:
    """A line of the log with everything a verdict reads."""
    measured = {
        "std_ratio": 0.98,
        "rank_z": 100.0 + step,
        "rank_h": 60.0 + step,
        "alignment": 1.0,
        "uniformity": -3.0,
        "cosine_positive": 0.4,
        "cosine_random": 0.0,
        "agreement": 0.5,
        "separation_h": 64.0 + step / 100,
        "retrieval_h": 3.0,
        "retrieval_z": 3.0,
        "pixel_retrieval": 5.0,
        "knn_top1": 20.0 + step / 100,
        "images_per_second": 500.0,
        "held_images": 100,
        "held_distinct": 100,
        "pixel_std": 0.8,
    }
    loss = {} if step == 0 else {"loss": -step / 1000}
    return {"step": step, "epoch": step / 40, **loss, **measured, **fields}


def row(name: str, value: float | str | None, n: int = 10_000) -> dict[str, Any]:
    protocol = "stopgrad-eval-1; data photos, 0123456789ab; 60 training images, test reports; more"
    return {"name": name, "value": value, "n": n, "split": "test", "seed": 0, "protocol": protocol}


RESULTS = (
    row("verdict", "healthy"),
    row("peak_memory_mb", 1234.5),
    row("knn_top1", 40.0),
    row("knn_top1_k200", 38.0),
    row("linear_top1", 55.0),
    row("effective_rank", 100.0),
    row("baseline_random_knn_top1", 25.0),
    row("baseline_random_linear_top1", 39.0),
    row("baseline_random_effective_rank", 120.0),
    row("baseline_pixels_knn_top1", 27.0),
    row("baseline_pixels_linear_top1", 15.0),
)


def run(
    path: Path,
    *settings: str,
    log: list[dict[str, Any]] | None = None,
    results: tuple[dict[str, Any], ...] | None = RESULTS,
    state: str = "finished",
    message: str = "",
    data: Data | None = None,
    pictures: bool = True,
) -> Path:
    """A run folder; `results` None and `pictures` False leave those out."""
    folder = RunDir(path)
    path.mkdir(parents=True)
    recipe = override(recipe_named("simsiam"), ["data.source=photos", *settings])
    folder.recipe.write_text(dump(recipe))
    for each in log if log is not None else [line(step) for step in range(0, 500, 50)]:
        folder.append_log(each)
    folder.set_status(state, **({"message": message} if message else {}))
    if results is not None:
        folder.results.write_text(json.dumps(results))
    if pictures:
        gallery(folder.gallery, data)
    return path


def constant(count: int) -> Data:
    """Images that are all the same."""
    plain = fakes.data(train=count, test=count)
    same = np.repeat(plain.test[0][None], count, axis=0)
    both = fakes.Split(same, np.zeros(count, np.int64))
    return Data(
        name="flat",
        synthetic=True,
        classes=("only",),
        train=both,
        test=both,
        fingerprint="a" * 16,
        bad=(),
        ignored=0,
        notes=(),
        split_rule="as made",
    )
