"""Every method learns on the embedded images: healthy, and well over random weights, after a minute and a half."""

from pathlib import Path

import pytest

from stopgrad.assemble import api
from stopgrad.methods import METHODS
from stopgrad.training.progress import Progress

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

MINUTES = 1.5  # of `tiny` on two cores; none is so slow a starter that it needs five
OVER_RANDOM = 8.0  # points of kNN, k = 20


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_healthy_and_well_over_random_weights(name: str, tmp_path: Path) -> None:
    options = api.Options(settings=("eval={linear: none, k: [20]}",))
    run = api.train(f"{name}/scenes", out=tmp_path, minutes=MINUTES, options=options, progress=Progress(quiet=True))
    scores = {row.name: row.value for row in run.results if isinstance(row.value, float)}
    print(f"{name}: {run.diagnosis.verdict}, kNN {scores['knn_top1']}, random {scores['baseline_random_knn_top1']}")
    assert run.diagnosis.verdict == "healthy", run.diagnosis
    assert scores["knn_top1"] >= scores["baseline_random_knn_top1"] + OVER_RANDOM
