"""The examples run, need nothing that a user does not have, and each loss in them learns."""

import ast
import importlib.util
import math
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from stopgrad import losses

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_an_example_needs_nothing_but_torch_and_stopgrad(path: Path) -> None:
    tree = ast.parse(path.read_text())
    names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "." for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    roots = {name.split(".")[0] for name in names}
    assert roots <= {"torch", "stopgrad", *sys.stdlib_module_names}


def test_every_loss_brings_the_views_of_a_thing_together_and_keeps_the_things_apart(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with torch.random.fork_rng(devices=[]):
        outcomes = load("losses").main(steps=100)
    lines = capsys.readouterr().out.splitlines()[1:]
    assert [line.split()[0] for line in lines] == [outcome.name for outcome in outcomes]
    for outcome in outcomes:
        # What falls is the value: unigrad's too here, though it is not what its gradient belongs to.
        assert all(map(math.isfinite, outcome.value)), outcome
        assert outcome.value[1] < outcome.value[0] - 0.01, outcome
        assert outcome.cosine[1] > max(0.8, outcome.cosine[0]), outcome
        assert outcome.spread[1] > 0.5, outcome
        assert outcome.found[1] > 2 * outcome.found[0], outcome


def test_no_public_loss_is_missing_from_the_example() -> None:
    source = (EXAMPLES / "losses.py").read_text()
    assert set(re.findall(r"\blosses\.(\w+)", source)) >= set(losses.__all__)
