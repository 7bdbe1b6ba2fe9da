"""Settings of the evaluation refuse what can't be meant, and the table lays rows beside their baselines."""

import subprocess
import sys

import pytest

from stopgrad.contracts import ConfigError, Result
from stopgrad.eval import EvalConfig, rows


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"k": ()}, "eval.k"),
        ({"k": (0,)}, "eval.k"),
        ({"k": (20, 20)}, "eval.k"),
        ({"temperature": 0.0}, "eval.temperature"),
        ({"temperature": float("nan")}, "eval.temperature"),
        ({"linear": "ridge"}, "eval.linear"),
        ({"linear_epochs": 0}, "eval.linear_epochs"),
        ({"linear_lr": -1.0}, "eval.linear_lr"),
        ({"random_seeds": -1}, "eval.random_seeds"),
        ({"retrieval_images": 1}, "eval.retrieval_images"),
        ({"precision": "float16"}, "eval.precision"),
        ({"batch_size": 0}, "eval.batch_size"),
    ],
)
def test_a_wrong_setting_is_named_with_what_is_needed(wrong: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError, match=rf"{named} must be .*, got .*; the default is"):
        EvalConfig(**wrong)  # type: ignore[arg-type]


def test_settings_and_table_import_without_torch() -> None:
    code = "import sys, stopgrad.eval; assert 'torch' not in sys.modules; stopgrad.eval.EvalConfig()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_an_unknown_name_of_the_package_is_an_attribute_error() -> None:
    import stopgrad.eval

    with pytest.raises(AttributeError, match="knnn"):
        _ = stopgrad.eval.knnn


def row(name: str, value: float | str | None) -> Result:
    return Result(name, value, 10, "test", 0, "p")


def test_scores_stand_beside_their_baselines_and_nothing_else_is_a_row() -> None:
    results = [
        row("verdict", "healthy"),
        row("knn_top1", 60.0),
        row("alignment", None),
        row("images_per_second", 900.0),
        row("linear_top1", 70.0),
        row("baseline_random_knn_top1", 30.0),
        row("baseline_random_alignment", 0.5),
        row("baseline_pixels_knn_top1", 25.0),
        row("baseline_pixels_linear_top1", 38.0),
    ]
    assert rows(results) == [
        ("knn_top1", [60.0, 30.0, 25.0]),
        ("alignment", [None, 0.5, None]),
        ("linear_top1", [70.0, None, 38.0]),
    ]
