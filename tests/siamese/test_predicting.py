"""What a predictor says of views it has not seen: against sums over rows, and left as it was."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from stopgrad.assemble import api
from stopgrad.contracts import ConfigError
from stopgrad.rundir import RunDir
from stopgrad.siamese.family import Siamese
from stopgrad.siamese.predicting import check, matrix_facts, measured
from stopgrad.training.progress import Progress
from tests.methods.small import small
from tests.methods.toy import clock
from tests.siamese.test_reaching import SMALL

FIELDS = {"predictor_view", "predictor_mean", "projection_mean"}
MATRIX = {"predictor_alignment", "predictor_asymmetry"}
QUIET = Progress(quiet=True)


def projections(count: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(5, 12, generator=generator, dtype=torch.float64) for _ in range(count)]


def family(name: str, **changes: Any) -> Siamese:
    return check(small(name, **changes).double())


def by_rows(a: Tensor, b: Tensor) -> float:
    return sum(float(x @ y / (x.norm() * y.norm())) for x, y in zip(a, b)) / len(a)


def test_the_prediction_is_compared_with_a_view_and_with_the_mean_of_unit_vectors() -> None:
    method = family("simsiam")
    first, second, *others = projections(5)
    found = measured(method, first, second, others)
    mean = torch.stack([sum(z[i] / z[i].norm() for z in others) / 3 for i in range(5)])  # type: ignore[misc]
    prediction = method.predictor(first).detach()
    assert set(found) == FIELDS
    assert found["predictor_view"] == pytest.approx(by_rows(prediction, second), rel=1e-9)
    assert found["predictor_mean"] == pytest.approx(by_rows(prediction, mean), rel=1e-9)
    assert found["projection_mean"] == pytest.approx(by_rows(first, mean), rel=1e-9)


def test_without_a_predictor_the_projection_speaks_for_itself() -> None:
    first, second, *others = projections(4)
    found = measured(family("simsiam", predictor="none"), first, second, others)
    assert found["predictor_mean"] == found["projection_mean"]


@pytest.mark.parametrize(
    ("name", "changes"),
    [("byol", {"predictor": "linear"}), ("byol", {"predictor": "symmetric"}), ("directpred", {})],
    ids=["linear", "symmetric", "directpred"],
)
def test_one_matrix_is_held_against_the_correlation_of_its_inputs(name: str, changes: dict[str, Any]) -> None:
    method = family(name, **changes)
    first, second, *others = projections(4)
    before = list(method.state_dict())
    found = measured(method, first, second, others)
    assert set(found) == FIELDS | MATRIX
    w = torch.stack([method.predictor(row.unsqueeze(0))[0] for row in torch.eye(12, dtype=torch.float64)]).T.detach()
    method.discard()
    z = torch.cat([first, second])
    s, u = torch.linalg.eigh(sum(torch.outer(row, row) for row in z) / len(z))  # type: ignore[arg-type]
    along = [float(u[:, j] @ w @ u[:, j] / (w @ u[:, j]).norm()) for j in range(12)]
    expected = sum(float(s[j] / s.sum()) * along[j] for j in range(12))
    assert found["predictor_alignment"] == pytest.approx(expected, abs=1e-9)
    if changes.get("predictor") == "symmetric":
        assert found["predictor_asymmetry"] == 0
    twin = family(name, **changes)
    for one in (method, twin):  # DirectPred's matrix follows what it was called with since
        one.predictor(second)
        one.after_step(clock(1))
    kept = [key for key in before if key.startswith("predictor.")]
    assert kept
    assert all(torch.equal(method.state_dict()[key], twin.state_dict()[key]) for key in kept)


def test_a_matrix_of_the_same_eigenvectors_is_aligned_and_a_turn_is_not() -> None:
    u = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64))[0]
    correlation = u @ torch.diag(torch.tensor([4.0, 2.0, 1.0, 0.5], dtype=torch.float64)) @ u.T
    found = matrix_facts(u @ torch.diag(torch.tensor([0.3, 2.0, 1.0, 0.1], dtype=torch.float64)) @ u.T, correlation)
    assert found["predictor_alignment"] == pytest.approx(1)
    assert found["predictor_asymmetry"] == pytest.approx(0, abs=1e-9)
    quarter = torch.zeros(4, 4, dtype=torch.float64)
    quarter[0, 1], quarter[1, 0], quarter[2, 3], quarter[3, 2] = -1, 1, -1, 1
    found = matrix_facts(u @ quarter @ u.T, correlation)
    assert found["predictor_alignment"] == pytest.approx(0, abs=1e-9)
    assert found["predictor_asymmetry"] == pytest.approx(2)


LINEAR = "method={predictor: linear, projector: {hidden: 16, dim: 8}}"


def test_a_run_measures_it_when_asked_and_learns_the_same(tmp_path: Path) -> None:
    logs = []
    for name, more in (("with", 2), ("without", 0)):
        settings = (*SMALL, LINEAR, f"watch.predictor={more}")
        api.train("byol/scenes", out=tmp_path, name=name, epochs=1, settings=settings, progress=QUIET)
        logs.append(RunDir(tmp_path / name).read_log())
    watched = [line for line in logs[0] if "std_ratio" in line]
    assert len(watched) >= 3
    assert all(math.isfinite(line[field]) for line in watched for field in FIELDS | MATRIX)
    assert not any(field in line for line in logs[1] for field in FIELDS | MATRIX)
    losses = [[line["loss"] for line in log if "loss" in line] for log in logs]
    assert losses[0] == losses[1]
    steep = [line["gradient_first_layer"] for line in logs[0] if "loss" in line]
    assert all(0 < value < line["gradient_norm"] for value, line in zip(steep, watched[1:]))


def test_what_is_no_siamese_network_is_refused() -> None:
    for name in ("cpc", "dino"):
        with pytest.raises(ConfigError, match=r"watch.predictor looks at .* remove it"):
            check(small(name))
