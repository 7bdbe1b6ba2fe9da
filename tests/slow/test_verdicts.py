"""The verdict on real runs that no threshold was fitted on: other seeds, batches and widths than in docs/verdict.md."""

from pathlib import Path
from typing import Any

import pytest

from stopgrad.assemble import api
from stopgrad.assemble.train import Finished
from stopgrad.rundir import RunDir
from stopgrad.training.progress import Progress

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

SHORT = ("eval={linear: none, random_seeds: 1, k: [20]}", "seed=11", "loop.batch_size=128", "optim.base_lr=0.12")
BROKEN: dict[str, tuple[tuple[str, ...], set[str], str]] = {
    "no stop-gradient": (("method.target=shared",), {"collapsed"}, "method"),
    "no predictor": (("method.predictor=none",), {"collapsed"}, "method"),
    "frozen predictor": (("method.predictor=frozen",), {"not_learning"}, "method"),
    "learning rate x 100": (
        ("optim.base_lr=6",),
        {"collapsed", "diverged", "partly_collapsed", "not_learning"},
        "optimiser",
    ),
    "batch 2": (
        ("loop.batch_size=2", "data.limit=600", "loop.epochs=2"),
        {"collapsed", "partly_collapsed", "not_learning"},
        "optimiser",
    ),
}
# name: (epochs, settings); long enough that each learns by its labels too
HEALTHY: dict[str, tuple[int, tuple[str, ...]]] = {
    "batch 64": (10, ("loop.batch_size=64", "optim.base_lr=0.24")),
    "batch 128": (15, ()),
    "batch 256": (22, ("loop.batch_size=256",)),
    "batch 512": (30, ("loop.batch_size=512",)),
    "width 16": (20, ("backbone.width=16",)),
    "width 48": (15, ("backbone.width=48",)),
    "three-layer projector": (15, ("method.projector.layers=3",)),
    "narrow heads": (15, ("method.projector={hidden: 256, dim: 256}", "method.predictor_hidden=64")),
    "momentum target": (15, ("method.target=momentum",)),
    "asymmetric": (15, ("method.pairs=asymmetric",)),
    "resnet18": (15, ("backbone={name: resnet18, stem: standard}",)),
    "another seed": (15, ("seed=23",)),
    "the preset": (10, ("loop.batch_size=64", "optim.base_lr=0.96")),
}
ALARMS = {"collapsed", "partly_collapsed", "not_learning", "diverged"}


def run(tmp_path: Path, *settings: str, epochs: int = 8) -> Finished:
    options = api.Options(epochs=epochs, settings=(*SHORT, *settings))
    return api.train("simsiam/scenes", out=tmp_path, name="run", options=options, progress=Progress(quiet=True))


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_run_has_its_verdict_and_its_cause(name: str, tmp_path: Path) -> None:
    settings, verdicts, cause = BROKEN[name]
    said = run(tmp_path, "backbone.width=64", *settings).diagnosis
    assert said.verdict in verdicts, said
    assert said.cause == cause, said


@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_run_raises_no_alarm(name: str, tmp_path: Path) -> None:
    """Healthy by its labels, which the verdict never sees: then it says so at the end, and nothing else on the way."""
    epochs, settings = HEALTHY[name]
    finished = run(tmp_path, *settings, epochs=epochs)
    scores = {row.name: row.value for row in finished.results if isinstance(row.value, float)}
    gain = scores["knn_top1"] - scores["baseline_random_knn_top1"]
    assert gain >= 5, f"kNN is {gain:.1f} points above random weights: this run is no example of a healthy one"
    assert finished.diagnosis.verdict == "healthy", finished.diagnosis
    told = [line["verdict"] for line in RunDir(finished.path).read_log() if "verdict" in line]
    assert not ALARMS & set(told), told


def test_one_epoch_in_it_is_too_early_to_tell(tmp_path: Path) -> None:
    assert run(tmp_path, epochs=1).diagnosis.verdict == "too_early"


def test_a_collapse_is_told_within_200_steps_of_the_step_from_which_the_rule_holds(tmp_path: Path) -> None:
    """Two runs of the same bits: one watched every 5 steps says when it holds, one as by default when it is told."""
    told = {}
    for name, settings in (("fine", ("watch.every_steps=5",)), ("default", ())):
        run(tmp_path / name, "method.target=shared", *settings)
        log: list[dict[str, Any]] = RunDir(tmp_path / name / "run").read_log()
        told[name] = next(line["step"] for line in log if line.get("verdict") == "collapsed")
    assert 0 <= told["default"] - told["fine"] <= 200
