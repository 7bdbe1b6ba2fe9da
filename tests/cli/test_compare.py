"""`stopgrad compare` as a person types it: which of its two forms, mistakes, and what is printed and written."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from stopgrad import cli
from tests.study.fakes import Trainer, finished, two_methods

SMALL = ("--epochs", "1", "--methods", "simsiam,second", "--seeds", "2", "--set", "data.limit=200")


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = cli.run(["compare", *words], debug=False)
    out, err = capsys.readouterr()
    return code, out, err


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch) -> Trainer:
    from stopgrad.study import compare

    two_methods(monkeypatch)
    made = Trainer({"second-0": (65, "step 3: loss nan\x1b[2J")})
    monkeypatch.setattr(compare, "in_a_process", made)
    return made


def test_training_prints_the_table_and_what_is_to_be_known(
    trainer: Trainer, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    code, out, err = run(capsys, *SMALL)
    assert code == 0, err
    assert trainer.names == ["simsiam-0", "second-0", "simsiam-1", "second-1"]
    head, simsiam, second = out.splitlines()[:3]
    assert head.split()[:4] == ["method", "verdict", "kNN", "%"]
    assert simsiam.startswith("simsiam  2 healthy            41.0 ± 1.4")
    assert second.startswith("second   1 healthy, 1 failed")
    assert "second: seed 0 failed: step 3: loss nan\\x1b[2J" in out
    assert "\x1b" not in out + err
    assert "Labels were used for kNN and the linear probe alone" in out
    assert "runs/compare-scenes-v1/: compare.md, compare.json" in out
    assert (tmp_path / "runs" / "compare-scenes-v1" / "compare.md").exists()
    assert "run 1 of 4: simsiam, seed 0" in err


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ([], 2, "nothing to compare"),
        (["--methods", "simsiam"], 2, "say how long each run trains"),
        (["--methods", "simsam", "--minutes", "1"], 2, "did you mean 'simsiam'"),
        (["--seeds", "0", "--minutes", "1"], 2, "--seeds must be 1 or more"),
        (["--epochs", "1", "--minutes", "1"], 2, "give one of them"),
        (["--views", "some", "--minutes", "1"], 2, "--views"),
        (["--minutes", "1", "-o", "x.md"], 2, "--out names the folder"),
        (["--minutes", "1", "--data", "nowhere", "--methods", "simsiam", "--out", "c"], 66, "no such folder"),
        (["a"], 2, "name two or more run folders"),
        (["a", "b"], 66, "a: no run there"),
        (["a", "b", "--minutes", "1"], 2, "--minutes is for training, and 2 runs are named"),
        (["a", "b", "--set", "seed=1"], 2, "--set is for training"),
        (["a", "b", "--seeds", "3"], 2, "--seeds is for training"),
        (["a", "b", "-o", "x.html"], 2, "must be a file that ends in .md or .json"),
    ],
)
def test_a_mistake_is_one_line_with_its_exit_code(
    words: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    found, out, err = run(capsys, *words)
    assert found == code, err
    assert message in err
    assert "Traceback" not in out + err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "runs").exists()


def test_finished_runs_are_printed_and_written(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    runs = [str(finished(tmp_path / name, f"seed={seed}")) for seed, name in enumerate("ab")]
    code, out, err = run(capsys, *runs, "-o", str(tmp_path / "x.md"))
    assert code == 0, err
    assert out.startswith("run  verdict")
    assert "Settings that differ:\nsetting  a  b\nseed     0  1\n" in out
    assert "| a | healthy | 40.0 |" in (tmp_path / "x.md").read_text()
    code, out, err = run(capsys, *runs, "--output", str(tmp_path / "x.json"))
    assert code == 0, err
    assert json.loads((tmp_path / "x.json").read_text())["differences"] == {"seed": [0, 1]}


PARENT = """
import sys
from pathlib import Path
from stopgrad.cli import run
from stopgrad.contracts import DataError
assert run(["compare", "--help"], False) == 0
from stopgrad.study import side_by_side
from stopgrad.study.compare import compare
from stopgrad.study.plan import Plan
plan = Plan(epochs=1, methods=("simsiam",), seeds=1, settings=("data.limit=200",))
try:
    compare(plan, Path(sys.argv[1]), train=lambda *_: (65, "not trained"))
except DataError as error:
    print(error)
assert "torch" not in sys.modules, "torch was imported"
"""


def test_neither_help_nor_what_starts_the_runs_imports_torch(tmp_path: Path) -> None:
    words = [sys.executable, "-c", PARENT, str(tmp_path / "c")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "stopgrad compare runs/A runs/B" in done.stdout
    assert "failed: not trained" in done.stdout
