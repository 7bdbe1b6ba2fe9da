"""`stopgrad finetune`, `distill` and `fewlabels` as a person types them."""

import subprocess
import sys
from pathlib import Path

import pytest

from stopgrad import cli
from stopgrad.rundir import RunDir
from tests.assemble.few import QUICK, place


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = cli.run(list(words), debug=False)
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["finetune"], 2, "finetune: how many labels? Add --labels 1%"),
        (["finetune", "nowhere"], 2, "how many labels?"),
        (["finetune", "nowhere", "--labels", "1%"], 66, "nowhere: no run there"),
        (["finetune", "--labels", "1%"], 2, "name the run whose weights it begins from, or add --from-scratch"),
        (["finetune", "x", "--labels", "five"], 2, "needs a share such as 1%"),
        (["finetune", "x", "--labels", "1%", "--from-projector-layer", "one"], 2, "one"),
        (["finetune", "x", "--labels", "1%", "--epochs", "1", "--minutes", "1"], 2, "give one of them"),
        (["finetune", "x", "--labels", "1%", "--minutes", "0"], 2, "--minutes must be above 0"),
        (["finetune", "--from-scratch", "--labels", "1%", "--data", "nowhere"], 66, "no such folder"),
        (["finetune", "--resume"], 2, "--resume: name the run that goes on, such as runs/finetune-NAME"),
        (["finetune", "x", "--resume", "--labels", "1%"], 2, "leave out the other options"),
        (["finetune", "x", "--resume", "--epochs", "1"], 2, "leave out the other options"),
        (["finetune", "x", "--resume"], 66, "no run to resume"),
        (["distill"], 2, "requires an argument"),
        (["distill", "nowhere"], 66, "nowhere: no run there"),
        (["distill", "x", "--temperature", "hot"], 2, "hot"),
        (["distill", "x", "--minutes", "-1"], 2, "--minutes must be above 0"),
        (["distill", "x", "--resume", "--alpha", "0.5"], 2, "leave out the other options"),
        (["fewlabels", "--minutes", "1"], 2, "fewlabels: name a finished run"),
        (["fewlabels", "x"], 2, "say how long each run trains"),
        (["fewlabels", "x", "--epochs", "1", "--minutes", "1"], 2, "and not both"),
        (["fewlabels", "x", "--epochs", "1", "--labels", "1%,1.0%"], 2, "needs amounts that differ"),
        (["fewlabels", "x", "y", "--epochs", "1"], 2, "2 runs for 3 seeds; name one for all, or one a seed"),
        (["fewlabels", "x", "--epochs", "1", "--student", "none"], 2, "student"),
        (["fewlabels", "x", "--epochs", "1"], 66, "no run there"),
        (["fewlabels", "x", "--epochs", "0"], 2, "--epochs must be 1 or more"),
        (["fewlabels", "x", "--minutes", "0"], 2, "--minutes must be above 0"),
        (["fewlabels", "x", "--minutes", "1", "--seeds", "0"], 2, "--seeds must be 1 or more"),
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


def test_help_does_not_import_torch() -> None:
    code = (
        "import sys; from stopgrad.cli import run\n"
        "for word in ('finetune', 'distill', 'fewlabels'): assert run([word, '--help'], False) == 0\n"
        "import stopgrad.assemble.finetune, stopgrad.study.fewlabels\n"
        "assert 'torch' not in sys.modules, 'torch was imported'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "stopgrad finetune runs/NAME --labels 1%" in done.stdout


def test_the_three_stages_as_they_are_typed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pre, plain = place() / "pre", place() / "plain"
    settings = [word for setting in (*QUICK, "loop.epochs=1") for word in ("--set", setting)]
    code, out, err = run(
        capsys, "finetune", str(pre), "--labels", "10%", "--from-projector-layer", "1", "--seed", "2", *settings
    )
    assert code == 0, err
    assert "labels of 10 of 96 images" in err
    assert out.startswith("Verdict: ")
    head = next(line for line in out.splitlines() if "this run" in line)
    assert head.split() == ["this", "run", "chance", "random", "pixels", "start"]
    assert next(line for line in out.splitlines() if line.startswith("classifier_top1")).split()[2] == "33.33"
    assert (tmp_path / "runs" / "finetune-photos" / "labels.csv").exists()
    code, out, err = run(
        capsys, "distill", "runs/finetune-photos", "--data", str(plain), "--batch-size", "24", "--name", "s", *settings
    )
    assert code == 0, err
    assert "method.temperature 0.1" in err
    assert "same_as_teacher" in out
    code, out, err = run(capsys, "finetune", "runs/s", "--resume")
    assert code == 0, err
    assert "is finished; nothing to do" in err
    assert run(capsys, "diagnose", "runs/s")[0] == 0
    assert RunDir(tmp_path / "runs" / "s").state()["state"] == "finished"
