"""The verdict from numbers alone: tokens, causes and next commands on histories small enough to read."""

import math
from typing import Any

import pytest

from stopgrad.diagnose import EARLY_STEPS, PATIENCE_STEPS, VERDICTS, by_luck, diagnose, verdict
from stopgrad.recipe.text import override
from stopgrad.recipe.typed import plain
from stopgrad.recipes import recipe_named

START: dict[str, Any] = {
    "step": 0, "loss": None, "std_ratio": 0.98, "rank_z": 100.0, "rank_h": 60.0, "retrieval_h": 10.0,
    "separation_h": 80.0, "cosine_positive": 0.3, "cosine_random": 0.0, "epoch": 0.0,
    "pixel_retrieval": 12.0, "pixel_std": 1.0, "held_images": 512, "held_distinct": 512,
}  # fmt: skip
HEALTHY = {
    "loss": -0.5, "std_ratio": 0.95, "rank_z": 60.0, "rank_h": 50.0, "retrieval_h": 30.0,
    "epoch": 5.0, "separation_h": 90.0, "cosine_positive": 0.5, "cosine_random": 0.1, "agreement": 0.5,
}  # fmt: skip
COLLAPSED = {**HEALTHY, "loss": -0.99, "std_ratio": 0.3, "rank_z": 1.5, "rank_h": 5.0, "agreement": 0.99}
POINT = {**COLLAPSED, "std_ratio": 0.01, "rank_z": 50.0, "rank_h": 50.0, "agreement": 0.0}
STILL = {**HEALTHY, "separation_h": 81.0}
UNLEARNT = {**COLLAPSED, "agreement": 0.15}  # a frozen predictor: few directions are left, and nothing is predicted


def said(line: dict[str, Any], *settings: str, start: dict[str, Any] | None = None, step: int = PATIENCE_STEPS) -> Any:
    recipe = plain(override(recipe_named("simsiam"), settings))
    return diagnose([start or START, {**line, "step": step}], recipe)


@pytest.mark.parametrize(
    ("line", "token"),
    [
        (HEALTHY, "healthy"),
        (COLLAPSED, "collapsed"),
        (POINT, "collapsed"),
        (STILL, "not_learning"),
        (UNLEARNT, "not_learning"),
        ({**HEALTHY, "separation_h": 80.0, "rank_h": 70.0}, "healthy"),
        ({**HEALTHY, "rank_z": 5.0, "std_ratio": 0.4}, "partly_collapsed"),
        ({**HEALTHY, "rank_h": 20.0}, "partly_collapsed"),
        ({**HEALTHY, "std_ratio": None}, "diverged"),
        ({**HEALTHY, "loss": None}, "diverged"),
    ],
)
def test_each_pattern_has_its_token(line: dict[str, Any], token: str) -> None:
    assert token in VERDICTS
    assert said(line).verdict == token


def test_early_on_only_a_collapse_or_a_divergence_is_told() -> None:
    assert said(STILL, step=EARLY_STEPS - 1).verdict == "too_early"
    assert said(HEALTHY, step=EARLY_STEPS - 1).verdict == "too_early"
    assert said({**STILL, "epoch": 0.9}).verdict == "too_early"
    assert said(COLLAPSED, step=EARLY_STEPS - 1).verdict == "collapsed"
    assert said({**HEALTHY, "loss": None}, step=1).verdict == "diverged"


def test_features_that_have_not_moved_yet_are_given_time() -> None:
    assert said(STILL, step=PATIENCE_STEPS - 1).verdict == "too_early"
    assert said(HEALTHY, step=PATIENCE_STEPS - 1).verdict == "healthy"
    assert said(UNLEARNT, step=PATIENCE_STEPS - 1).verdict == "not_learning"


def test_a_backbone_that_loses_directions_while_the_projection_keeps_them_is_given_time() -> None:
    shrunk = {**HEALTHY, "rank_h": 20.0}
    assert said(shrunk, step=PATIENCE_STEPS - 1).verdict == "healthy"
    assert said({**shrunk, "separation_h": 80.0}, step=PATIENCE_STEPS - 1).verdict == "too_early"
    assert said({**shrunk, "rank_z": 10.0}, step=PATIENCE_STEPS - 1).verdict == "partly_collapsed"


def test_a_label_does_not_change_what_is_said() -> None:
    assert said({**STILL, "knn_top1": 99.0}) == said({**STILL, "knn_top1": 1.0})


@pytest.mark.parametrize(
    ("settings", "cause", "command"),
    [
        (["method.target=shared"], "method", "method.target=stop_gradient"),
        (["method.predictor=none"], "method", "method.predictor=mlp"),
        (["optim.base_lr=6"], "optimiser", "optim.base_lr=0.05"),
        (["loop.batch_size=2"], "optimiser", "--batch-size 64"),
    ],
)
def test_a_collapse_names_its_cause_and_what_to_type(settings: list[str], cause: str, command: str) -> None:
    found = said(COLLAPSED, *settings)
    assert (found.verdict, found.cause) == ("collapsed", cause)
    assert command in found.next_command


@pytest.mark.parametrize(
    ("method", "said_of_it", "rate"), [("simsiam", "the paper uses 0.05", 0.05), ("byol", "high", 0.6)]
)
def test_the_rate_of_a_paper_is_quoted_to_its_own_method_alone(method: str, said_of_it: str, rate: float) -> None:
    found = diagnose([START, {**COLLAPSED, "step": 500}], plain(override(recipe_named(method), ["optim.base_lr=6"])))
    assert (found.cause, said_of_it in found.explanation) == ("optimiser", True)
    assert ("paper" in found.explanation) == (method == "simsiam")
    assert found.next_command.endswith(f"optim.base_lr={rate:g}")


@pytest.mark.parametrize(
    ("batch", "splits", "accumulate", "sees", "enough"), [(32, 8, 1, 4, 64), (64, 8, 2, 4, 128), (24, 6, 1, 4, 66)]
)
def test_groups_of_batch_norm_are_counted_and_what_is_proposed_can_be_typed(
    batch: int, splits: int, accumulate: int, sees: int, enough: int
) -> None:
    settings = [f"loop.batch_size={batch}", f"method.bn_splits={splits}", f"loop.accumulate={accumulate}"]
    recipe = override(recipe_named("moco_v2"), settings)
    found = diagnose([START, {**COLLAPSED, "step": 500}], plain(recipe))
    assert found.explanation == f"batch norm sees {sees} images at a time"
    assert found.next_command.endswith(f"--batch-size {enough}")
    again = plain(override(recipe, [f"loop.batch_size={enough}"]))
    assert "batch norm" not in diagnose([START, {**COLLAPSED, "step": 500}], again).explanation


@pytest.mark.parametrize("facts", [{"held_distinct": 1}, {"held_distinct": 100}, {"pixel_std": 0.0}])
def test_the_data_is_named_before_the_method(facts: dict[str, Any]) -> None:
    found = said(COLLAPSED, "method.target=shared", start={**START, **facts})
    assert found.cause == "data"


def test_a_frozen_predictor_is_named_when_nothing_is_learned() -> None:
    found = said(STILL, "method.predictor=frozen")
    assert (found.verdict, found.cause) == ("not_learning", "method")
    assert "frozen" in found.explanation


def test_it_says_since_when() -> None:
    recipe = plain(recipe_named("simsiam"))
    steps = [START, {**HEALTHY, "step": 100}, {**COLLAPSED, "step": 150}, {**COLLAPSED, "step": 200}]
    assert diagnose(steps, recipe).since_step == 150
    assert diagnose(steps[:2], recipe).since_step == 100


def test_no_measurement_yet_is_too_early_and_skipped_steps_are_counted() -> None:
    recipe = plain(recipe_named("simsiam"))
    assert diagnose([], recipe).verdict == "too_early"
    assert diagnose([{"step": 3, "epoch": 0.1, "loss": None, "skipped": True}], recipe).verdict == "too_early"
    found = diagnose([START, {"step": 3, "epoch": 0.1, "loss": None, "skipped": True}], recipe)
    assert found.verdict == "diverged"
    assert "1 logged steps were not finite" in found.evidence


def test_the_verdict_is_a_function_of_one_line_and_the_start() -> None:
    assert verdict({**HEALTHY, "step": 500}, START) == "healthy"


# --- runs that are taught ---------------------------------------------------------------------------------------------

TAUGHT = {**START, "accuracy": 10.0, "chance": 12.0, "examined": 500}


def taught(line: dict[str, Any], step: int = EARLY_STEPS, **changes: Any) -> Any:
    method = {"name": "finetune", "labels": "1%", "classes": 10, "from_projector_layer": 1, **changes}
    recipe = {
        "method": method,
        "backbone": {"name": "tiny", "init": "/runs/a b/encoder.safetensors"},
        "data": {"source": "photos"},
        "optim": {"base_lr": 0.2},
        "loop": {"epochs": 8, "batch_size": 64, "accumulate": 1},
    }
    return diagnose([TAUGHT, {**TAUGHT, **COLLAPSED, **line, "step": step}], recipe)


@pytest.mark.parametrize(
    ("line", "token"),
    [
        ({"accuracy": 90.0}, "healthy"),  # on features that would be called collapsed of a pre-training
        ({"accuracy": 17.0}, "healthy"),
        ({"accuracy": 14.0}, "not_learning"),
        ({"accuracy": 0.0}, "not_learning"),
        ({"accuracy": 90.0, "loss": None}, "diverged"),
        ({"accuracy": 90.0, "skipped": True}, "diverged"),
        ({"accuracy": 90.0, "chance": 100.0}, "not_learning"),
    ],
)
def test_a_run_that_is_taught_is_judged_by_held_out_accuracy_alone(line: dict[str, Any], token: str) -> None:
    assert taught(line).verdict == token


def test_what_is_above_chance_is_so_early_on_and_what_is_not_is_given_time() -> None:
    assert taught({"accuracy": 50.0}, step=1).verdict == "healthy"
    assert taught({"accuracy": 12.0}, step=EARLY_STEPS - 1).verdict == "too_early"
    assert taught({"accuracy": 12.0, "epoch": 1.0}).verdict == "too_early"


@pytest.mark.parametrize(("n", "k", "p"), [(20, 6, 0.1), (500, 85, 0.12), (7, 7, 0.5), (9, 1, 0.3), (5, 0, 0.3)])
def test_luck_is_the_tail_of_a_binomial(n: int, k: int, p: float) -> None:
    line = {"examined": n, "chance": 100 * p, "accuracy": 100 * k / n}
    assert by_luck(line) == pytest.approx(sum(math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k, n + 1)))


def test_of_a_taught_run_cause_command_and_evidence_are_told() -> None:
    said = taught({"accuracy": 12.0})
    assert (said.cause, said.since_step) == ("optimiser", EARLY_STEPS)
    assert said.explanation.startswith("accuracy on held-out images is 12.0 %, always the commonest class is right in")
    assert said.next_command == (
        "stopgrad finetune '/runs/a b' --from-projector-layer 1 --data photos --labels 1% --epochs 16"
    )
    assert said.evidence[0] == (
        f"accuracy on held-out images 12.0 % at step {EARLY_STEPS}, at the start 10.0 %; of 500 images, 12.0 % are of "
        "the commonest class"
    )
    assert "--set optim.base_lr=0.02" in taught({"loss": None}).next_command
    student = taught({"same_as_teacher": 40.0}, name="distill", teacher="/runs/t")
    assert student.evidence[1] == "the teacher's answer was given for 40.0 % of them"
    line = {"same_as_teacher": 12.0, "chance": 12.0, "examined": 500}
    without = {**START, "same_as_teacher": 10.0, "chance": 12.0, "examined": 500}
    recipe = {"method": {"name": "distill", "teacher": "/runs/t"}, "backbone": {}, "data": {"source": "d"},
              "optim": {"base_lr": 1}, "loop": {"epochs": 2}}  # fmt: skip
    said = diagnose([without, {**without, "loss": 1.0, "step": 100, "epoch": 3.0, **line}], recipe)
    assert said.explanation.startswith("agreement with the teacher on held-out images is 12.0 %")
    assert said.next_command == "stopgrad distill /runs/t --data d --epochs 4"


def test_samples_of_another_kind_are_called_by_their_name() -> None:
    whole = plain(recipe_named("simsiam"))
    last = {**HEALTHY, "step": PATIENCE_STEPS}
    said = {kind: diagnose([START, last], {**whole, "views": {"kind": kind}}) for kind in ("image", "audio", "text")}
    assert "tell images apart" in said["image"].explanation
    assert "tell sounds apart" in said["audio"].explanation
    assert "tell texts apart" in said["text"].explanation
    assert any("of other texts" in line and "without a network" in line for line in said["text"].evidence)
    assert not any("images" in line or "pixels" in line for line in said["text"].evidence)


def test_where_nothing_was_found_by_pixels_nothing_is_said_of_them() -> None:
    first = {key: value for key, value in START.items() if key != "pixel_retrieval"}
    silent = diagnose([first, {**HEALTHY, "step": PATIENCE_STEPS}], plain(recipe_named("simsiam")))
    assert not any("pixels" in line for line in silent.evidence)
