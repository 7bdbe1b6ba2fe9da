"""What training reaches: fast views beside exact ones on real images, and the demo's claim. Minutes each."""

import math
import statistics
from pathlib import Path

import pytest

from stopgrad.assemble import api
from stopgrad.assemble.train import Finished
from stopgrad.training.progress import Progress
from tests.conftest import REAL_DATA

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]

CIFAR10 = REAL_DATA / "cifar10.tar.gz"
needs_cifar10 = pytest.mark.skipif(
    not CIFAR10.is_file(),
    reason=f"{CIFAR10} is not there: this test uses a real data set that is not part of the project",
)


def finished(tmp_path: Path, name: str, preset: str, epochs: int, *settings: str, **options: str) -> Finished:
    chosen = ("eval={linear: none, random_seeds: 1, k: [20]}", *settings)
    asked = api.Options(epochs=epochs, settings=chosen, **options)  # type: ignore[arg-type]
    return api.train(preset, out=tmp_path, name=name, options=asked, progress=Progress(quiet=True))


def scores(run: Finished) -> dict[str, float]:
    return {row.name: row.value for row in run.results if isinstance(row.value, float)}


def on_cifar10(tmp_path: Path, name: str, *settings: str) -> Finished:
    """`tiny` on 10,000 training images of CIFAR-10, as the preset trains it, 8 epochs; 10,000 test images."""
    few = ("data.limit=10000", *settings)
    return finished(tmp_path, name, "simsiam/cifar10", 8, *few, data=str(CIFAR10), backbone="tiny")


@needs_cifar10
@pytest.mark.real_data
def test_fast_views_train_as_well_as_exact_ones(tmp_path: Path) -> None:
    """kNN by the CPU executor is not more than 1 point under exact's: 5 paired seeds, lower 95 % limit."""
    differences = []
    for seed in range(5):
        fast, exact = (
            scores(on_cifar10(tmp_path, f"{executor}-{seed}", f"views.executor={executor}", f"seed={seed}"))["knn_top1"]
            for executor in ("cpu", "exact")
        )
        differences.append(fast - exact)
    mean, deviation = statistics.mean(differences), statistics.stdev(differences)
    lower = mean - 2.132 * deviation / math.sqrt(5)  # Student's t, one-sided 95 %, 4 degrees of freedom
    print(f"fast minus exact: {differences}, mean {mean:.2f}, lower limit {lower:.2f}")
    assert lower > -1


@needs_cifar10
@pytest.mark.real_data
@pytest.mark.parametrize(
    ("target", "verdict", "cause"), [("stop_gradient", "healthy", ""), ("shared", "collapsed", "method")]
)
def test_the_verdict_on_real_images(tmp_path: Path, target: str, verdict: str, cause: str) -> None:
    """On CIFAR-10, whose runs the thresholds were fitted with at another width, rate and length."""
    said = on_cifar10(tmp_path, target, f"method.target={target}", "seed=5").diagnosis
    assert (said.verdict, said.cause) == (verdict, cause), said


def test_the_demo_preset_gains_15_points_over_random_weights(tmp_path: Path) -> None:
    from stopgrad.recipes import recipe_named

    epochs = recipe_named("simsiam/scenes").loop.epochs
    found = scores(finished(tmp_path, "demo", "simsiam/scenes", epochs))
    assert found["knn_top1"] - found["baseline_random_knn_top1"] >= 15
