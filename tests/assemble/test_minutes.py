"""`--minutes` that come to few epochs: what a run begins with is shortened, said, and in the recipe that runs again."""

import dataclasses
import io
from pathlib import Path

import pytest

from stopgrad.assemble import api
from stopgrad.recipe.text import dump
from stopgrad.recipe.text import load as load_recipe
from stopgrad.training.progress import Progress
from tests.training.small_run import SETTINGS

OURS = tuple(setting for setting in SETTINGS if "predictor" not in setting)


@pytest.mark.parametrize("written", [False, True], ids=["a preset", "a recipe of the user's"])
def test_minutes_that_are_one_epoch(written: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stopgrad.assemble.train.epochs_in", lambda *_: (1, "one epoch"))
    queue = ("method.queue_size=60", "method.queue_from_epoch=4", "method.frozen_epochs=1", "optim.warmup_epochs=2")
    options = api.Options(settings=(*OURS, *queue))
    recipe = api.compose("swav/scenes", options)
    (tmp_path / "mine.yaml").write_text(dump(recipe))
    out = io.StringIO()
    start: str | Path = tmp_path / "mine.yaml" if written else "swav/scenes"
    run = api.train(
        start,
        out=tmp_path,
        name="a",
        minutes=1,
        progress=Progress(out),
        options=api.Options() if written else options,
    )
    kept = load_recipe(run.path / "recipe.yaml")
    assert (kept.loop.epochs, kept.optim.warmup_epochs) == (1, 0.1)
    assert dataclasses.replace(recipe.method, frozen_epochs=0, queue_from_epoch=0) == kept.method  # type: ignore[call-arg]
    for line in (
        "optim.warmup_epochs 0.1: no more than a tenth of the epochs, 1; it was 2 of 8",
        "method.frozen_epochs 0: no more than a tenth of the epochs, 1; it was 1 of 8",
        "method.queue_from_epoch 0: no more than a fifth of the epochs, 1; it was 4 of 8",
    ):
        assert line in out.getvalue()
        assert f"# {line}\n" in (run.path / "recipe.yaml").read_text()
