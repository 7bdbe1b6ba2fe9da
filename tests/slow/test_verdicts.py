"""The verdict on real runs that no threshold was fitted on: other seeds, batches and widths than in docs/verdict.md."""

from pathlib import Path
from typing import Any

import pytest

from stopgrad.assemble import api
from stopgrad.assemble.train import Finished
from stopgrad.rundir import RunDir
from stopgrad.training.progress import Progress

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

SHORT = ("eval={linear: none, random_seeds: 1, k: [20]}", "seed=11")
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
HEALTHY: dict[str, tuple[str, ...]] = {
    "batch 64": ("loop.batch_size=64", "loop.epochs=4"),
    "batch 128": ("loop.batch_size=128", "loop.epochs=5"),
    "batch 256": (),
    "batch 512": ("loop.batch_size=512", "loop.epochs=14"),
    "width 32": ("backbone.width=32",),
    "width 48": ("backbone.width=48",),
    "three-layer projector": ("method.projector.layers=3",),
    "narrow heads": ("method.projector={hidden: 256, dim: 256}", "method.predictor_hidden=64"),
    "momentum target": ("method.target=momentum",),
    "asymmetric": ("method.pairs=asymmetric", "loop.epochs=10"),
    "resnet18": ("backbone.name=resnet18", "loop.epochs=4", "data.limit=4000"),
    "another seed": ("seed=23",),
}


def run(tmp_path: Path, *settings: str, epochs: int = 8) -> Finished:
    options = api.Options(epochs=epochs, settings=(*SHORT, *settings))
    return api.train("simsiam/scenes", out=tmp_path, name="run", options=options, progress=Progress(quiet=True))


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_run_has_its_verdict_and_its_cause(name: str, tmp_path: Path) -> None:
    settings, verdicts, cause = BROKEN[name]
    said = run(tmp_path, *settings).diagnosis
    assert said.verdict in verdicts, said
    assert said.cause == cause, said


@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_run_raises_no_alarm_at_its_end_and_no_collapse_on_the_way(name: str, tmp_path: Path) -> None:
    finished = run(tmp_path, *HEALTHY[name])
    assert finished.diagnosis.verdict == "healthy", finished.diagnosis
    told = [line["verdict"] for line in RunDir(finished.path).read_log() if "verdict" in line]
    assert not {"collapsed", "diverged"} & set(told)


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
