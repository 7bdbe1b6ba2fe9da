"""What training reaches on the embedded data set: fast views beside exact ones, and the demo's claim. Minutes each."""

import math
import statistics
from pathlib import Path

import pytest

from stopgrad.assemble import api
from stopgrad.training.progress import Progress

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]


def scores(tmp_path: Path, name: str, *settings: str, epochs: int = 8) -> dict[str, float]:
    options = api.Options(epochs=epochs, settings=("eval={linear: none, random_seeds: 1, k: [20]}", *settings))
    finished = api.train("simsiam/scenes", out=tmp_path, name=name, options=options, progress=Progress(quiet=True))
    return {row.name: row.value for row in finished.results if isinstance(row.value, float)}


def test_fast_views_train_as_well_as_exact_ones(tmp_path: Path) -> None:
    """kNN by the CPU executor is not more than 1 point under exact's: 5 paired seeds, lower 95 % limit."""
    differences = []
    for seed in range(5):
        fast, exact = (
            scores(tmp_path, f"{executor}-{seed}", f"views.executor={executor}", f"seed={seed}")["knn_top1"]
            for executor in ("cpu", "exact")
        )
        differences.append(fast - exact)
    mean, deviation = statistics.mean(differences), statistics.stdev(differences)
    lower = mean - 2.132 * deviation / math.sqrt(5)  # Student's t, one-sided 95 %, 4 degrees of freedom
    print(f"fast minus exact: {differences}, mean {mean:.2f}, lower limit {lower:.2f}")
    assert lower > -1


def test_the_demo_preset_gains_15_points_over_random_weights(tmp_path: Path) -> None:
    from stopgrad.recipes import recipe_named

    found = scores(tmp_path, "demo", epochs=recipe_named("simsiam/scenes").loop.epochs)
    assert found["knn_top1"] - found["baseline_random_knn_top1"] >= 15
