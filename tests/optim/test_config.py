"""Settings of the optimiser: what is out of range, and what is set but read by nobody, is named."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import pytest

from stopgrad.contracts import ConfigError
from stopgrad.optim.config import OptimConfig

STEPS = ((0.6, 0.1), (0.8, 0.01))


def refused(**settings: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        OptimConfig(**settings)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_the_defaults_are_simsiams() -> None:
    config = OptimConfig()
    assert (config.name, config.base_lr, config.momentum, config.weight_decay) == ("sgd", 0.05, 0.9, 1e-4)
    assert (config.warmup_epochs, config.clip_norm, config.schedule, config.end) == (0, 0, "cosine", 0)


@pytest.mark.parametrize("name", ["sgd", "lars", "adamw"])
def test_the_rate_is_scaled_with_the_batch_for_every_optimiser(name: Any) -> None:
    assert OptimConfig(name=name, base_lr=0.05).peak_lr(512) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("field", "value", "rest"),
    [
        ("base_lr", 0.0, {}),
        ("momentum", 1.0, {}),
        ("momentum", -0.1, {}),
        ("weight_decay", -1.0, {}),
        ("weight_decay_end", -1.0, {}),
        ("warmup_epochs", -1.0, {}),
        ("warmup_from", 1.0, {"warmup_epochs": 1}),
        ("warmup_from", -0.1, {"warmup_epochs": 1}),
        ("clip_norm", -0.1, {}),
        ("rate_1d", 0.0, {}),
        ("end", 1.1, {}),
        ("end", -0.1, {}),
        ("trust", 0.0, {"name": "lars"}),
        ("betas", (0.9, 1.0), {"name": "adamw"}),
        ("betas", (-0.1, 0.9), {"name": "adamw"}),
    ],
)
def test_a_setting_out_of_range_is_named(field: str, value: Any, rest: dict[str, Any]) -> None:
    assert re.match(rf"optim\.{field} must .*got {re.escape(str(value))}", refused(**rest, **{field: value}))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "larz"}, "optim.name: 'larz' is not a choice; did you mean 'lars'?"),
        ({"name": "lion"}, "optim.name: 'lion' is not a choice; allowed: adamw, lars, sgd"),
        ({"schedule": "step"}, "optim.schedule: 'step' is not a choice; did you mean 'steps'?"),
        ({"clip_scope": "all"}, "optim.clip_scope: 'all' is not a choice; allowed: model, tensor"),
    ],
)
def test_a_choice_that_is_none_is_named_with_those_there_are(settings: dict[str, Any], message: str) -> None:
    assert refused(**settings) == message


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"betas": (0.8, 0.9)},
            "optim.betas=(0.8, 0.9) is read by adamw alone, optim.name is sgd; remove it or use optim.name=adamw",
        ),
        (
            {"name": "adamw", "momentum": 0.5},
            "optim.momentum=0.5 is read by sgd and lars alone, optim.name is adamw; remove it or use optim.name=sgd",
        ),
        ({"name": "lars", "betas": (0.8, 0.9)}, "optim.betas=(0.8, 0.9) is read by adamw alone, optim.name is lars;"),
        (
            {"trust": 0.02},
            "optim.trust=0.02 is read by lars alone, optim.name is sgd; remove it or use optim.name=lars",
        ),
        ({"name": "adamw", "trust": 0.02}, "optim.trust=0.02 is read by lars alone, optim.name is adamw"),
        ({"trust_clip": True}, "optim.trust_clip=True is read by lars alone, optim.name is sgd"),
        ({"name": "adamw", "trust_clip": True}, "optim.trust_clip=True is read by lars alone, optim.name is adamw"),
        ({"steps": STEPS}, "optim.steps=((0.6, 0.1), (0.8, 0.01)) is read by steps alone, optim.schedule is cosine;"),
        (
            {"schedule": "steps", "steps": STEPS, "end": 0.1},
            "optim.end=0.1 is read by cosine alone, optim.schedule is steps; remove it or use optim.schedule=cosine",
        ),
        ({"warmup_from": 0.1}, "optim.warmup_from=0.1 is read where optim.warmup_epochs is above 0, which it is not;"),
        (
            {"clip_scope": "tensor"},
            "optim.clip_scope=tensor is read where optim.clip_norm is above 0, which it is not; "
            "remove it or set optim.clip_norm=3",
        ),
    ],
)
def test_a_setting_that_nobody_reads_is_refused_with_what_to_do(settings: dict[str, Any], message: str) -> None:
    assert refused(**settings).startswith(message)


def test_steps_have_to_be_told() -> None:
    assert refused(schedule="steps") == (
        "optim.steps is empty and optim.schedule is steps: say when the rate drops; "
        "MoCo's are optim.steps=[[0.6, 0.1], [0.8, 0.01]]"
    )


@pytest.mark.parametrize(
    "steps",
    [((0.8, 0.1), (0.6, 0.01)), ((0.6, 0.1), (0.6, 0.01)), ((0.0, 0.1),), ((1.0, 0.1),), ((0.5, 0.0),), ((0.5, 1.5),)],
)
def test_steps_that_can_not_be_taken_are_named(steps: tuple[tuple[float, float], ...]) -> None:
    found = [list(pair) for pair in steps]
    assert re.match(
        rf"optim\.steps must be pairs.*got {re.escape(str(found))}; MoCo's", refused(schedule="steps", steps=steps)
    )


def test_what_the_papers_use_can_be_said() -> None:
    OptimConfig(name="lars", base_lr=0.2, weight_decay=1.5e-6, exclude_1d=True, warmup_epochs=10)  # BYOL
    OptimConfig(name="lars", base_lr=0.2, rate_1d=0.024, exclude_1d=True, end=1e-3, warmup_epochs=10)  # Barlow Twins
    OptimConfig(name="lars", base_lr=0.3, weight_decay=1e-6, warmup_epochs=10, warmup_from=0.0625, end=1e-3)  # SwAV
    OptimConfig(
        name="adamw", base_lr=5e-4, weight_decay=0.04, weight_decay_end=0.4, exclude_1d=True, warmup_epochs=10,
        end=2e-3, clip_norm=3, clip_scope="tensor",
    )  # DINO  # fmt: skip
    OptimConfig(base_lr=0.03, schedule="steps", steps=STEPS)  # MoCo
    OptimConfig(name="lars", base_lr=0.4, trust=0.02, trust_clip=True, exclude_1d=True, warmup_epochs=10)  # CIFAR


def test_settings_and_schedules_need_no_torch() -> None:
    code = "import sys, stopgrad.optim.config, stopgrad.optim.schedules; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
