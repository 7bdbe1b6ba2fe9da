"""The command as a person types it: codes, one-line errors, no traceback, no torch for what needs none."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from stopgrad import cli
from stopgrad.cli import printable
from stopgrad.contracts import ConfigError
from tests.training.small_run import SETTINGS, start


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = cli.run(list(words), debug=False)
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["recipes"], ["recipes", "byol/cifar10"]])
def test_what_only_prints_does_not_import_torch(words: list[str]) -> None:
    code = (
        "import sys; from stopgrad.cli import run; code = run(sys.argv[1:], False);"
        "assert 'torch' not in sys.modules, 'torch was imported'; sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["trian"], 2, 'Did you mean "train"'),
        (["train"], 2, "requires an argument"),
        (["train", "simsam"], 2, "did you mean 'simsiam'"),
        (["train", "simsiam", "--epoch", "1"], 2, "Did you mean --epochs"),
        (["train", "simsiam", "--epochs", "seven"], 2, "seven"),
        (["train", "simsiam", "--epochs", "0"], 2, "loop.epochs must be at least 1, got 0"),
        (["train", "simsiam", "--epochs", "1", "--minutes", "1"], 2, "give one of them"),
        (["train", "simsiam", "--minutes", "-1"], 2, "--minutes must be above 0"),
        (["train", "simsiam", "--batch-size", "1"], 2, "loop.batch_size must be at least 2"),
        (["train", "simsiam", "--set", "optim.base_lrr=1"], 2, "did you mean 'base_lr'"),
        (["train", "simsiam", "--name", "a/b"], 2, "--out says where runs go"),
        (["train", "none.yaml"], 66, "no such recipe"),
        (["train", "nowhere", "--resume"], 66, "no run to resume"),
        (["train", "simsiam", "--resume", "--epochs", "3"], 2, "leave out the other options"),
        (["eval", "nowhere"], 66, "no such run or encoder"),
        (["eval", "nowhere", "--data", "scenes"], 66, "no such run or encoder"),
        (["eval", "x.safetensors"], 2, "add --data SRC"),
        (["eval", "x" * 300], 74, "name too long"),
        (["train", "simsiam", "--init", "~no such user/x.safetensors"], 66, "no such encoder"),
        (["train", "simsiam", "--init", "timm:resnet18.nope"], 2, "timm has no weights of it"),
        (["train", "simsiam", "--init", "timm:nope"], 2, "timm has no weights of it"),
        (["eval", "nowhere.safetensors", "--data", "scenes"], 66, "no such encoder"),
        (["eval", "weights.pth", "--data", "scenes"], 2, "other formats can run code"),
        (["diagnose", "nowhere"], 66, "no run there"),
        (["methods", "simclrr"], 2, "unknown method 'simclrr'; did you mean 'simclr'"),
        (["recipes", "simsiam/scene"], 2, "did you mean 'simsiam/scenes'"),
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


@pytest.mark.parametrize(
    ("make", "code", "message"),
    [
        (lambda folder: None, 66, "no such folder"),
        (lambda folder: folder.mkdir(), 66, "no image"),
        (lambda folder: (folder.mkdir(), (folder / "a.jpg").write_text("<html>")), 65, "a.jpg"),
    ],
)
def test_a_folder_that_can_not_be_used_is_one_line(
    make: object, code: int, message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    make(tmp_path / "images")  # type: ignore[operator]
    words = ["train", "simsiam", "--data", str(tmp_path / "images"), "--out", str(tmp_path / "runs"), "--name", "a"]
    found, out, err = run(capsys, *words)
    assert found == code, err
    assert message in err
    assert "Traceback" not in out + err
    assert json.loads((tmp_path / "runs" / "a" / "status.json").read_text())["exit_code"] == code
    assert "Traceback" in (tmp_path / "runs" / "a" / "error.log").read_text()


def test_train_eval_and_diagnose_print_verdict_and_scores(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    words = ["train", "simsiam", "--epochs", "1", "--out", str(tmp_path), "--name", "a", *settings]
    words += ["--set", "loop.epochs=1"]
    code, out, err = run(capsys, *words)
    assert code == 0, err
    assert "Verdict: too_early" in out
    assert "knn_top1" in out
    assert "synthetic" in out
    assert f"{tmp_path}/a/: encoder.safetensors" in out
    for target in ("a", "a/encoder.safetensors"):
        output = tmp_path / "rows.json"
        again = ["eval", str(tmp_path / target), "--data", "scenes", "--output", str(output)]
        code, out, err = run(capsys, *again, "--set", "data.limit=100", "eval.linear=none", "eval.random_seeds=1")
        assert code == 0, err
        assert "baseline_pixels_knn_top1" in {row["name"] for row in json.loads(output.read_text())}
    code, out, err = run(capsys, "diagnose", str(tmp_path / "a"))
    assert code == 0, err
    assert out.startswith("Verdict: too_early")
    code, _, err = run(capsys, "train", str(tmp_path / "a"), "--resume")
    assert code == 0
    assert "is finished; nothing to do" in err


def test_a_recipe_that_is_printed_can_be_trained(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from stopgrad.recipe.text import load
    from stopgrad.recipes import RECIPES

    _, out, _ = run(capsys, "recipes", "simsiam/cifar10")
    (tmp_path / "my.yaml").write_text(out)
    assert load(tmp_path / "my.yaml") == RECIPES["simsiam/cifar10"]()


def test_a_name_is_found_for_a_run_that_was_given_none(tmp_path: Path) -> None:
    first = start(tmp_path, "", "loop.epochs=1")
    second = start(tmp_path, "", "loop.epochs=1")
    assert [first.path.name, second.path.name] == ["simsiam-scenes-v1", "simsiam-scenes-v1-2"]


def test_control_characters_in_names_do_not_reach_the_terminal() -> None:
    assert printable("a\x1b[2Jb\x07") == r"a\x1b[2Jb\x07"
    assert printable("größe 3\n") == "größe 3\n"


def test_the_python_names_are_there_and_load_gives_an_encoder(tmp_path: Path) -> None:
    import torch

    import stopgrad

    finished = start(tmp_path, "a", "loop.epochs=1")
    encoder = stopgrad.load(finished.path)
    features = encoder(torch.zeros(2, 3, 32, 32))
    assert features.shape == (2, encoder.dim)
    assert encoder.preprocess.image_size == 32
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        stopgrad.nothing  # noqa: B018
    with pytest.raises(ConfigError, match="unknown option 'epoch'"):
        stopgrad.train("simsiam", epoch=3)
