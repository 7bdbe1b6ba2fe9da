"""A method of the user's own: trains from a file, resumes with the same file only, and every mistake in it is told."""

import shutil
from pathlib import Path

import pytest
from torch import nn

from stopgrad.assemble import api
from stopgrad.contracts import ConfigError, Known, MissingInputError
from stopgrad.method import Method
from stopgrad.methods.own import OwnConfig, is_own, own, own_config
from stopgrad.recipe.text import load
from tests.methods.toy import known, trunk
from tests.training.small_run import SETTINGS, go_on

FILE = '''
"""SimSiam in ten lines."""
from torch import nn

from stopgrad.losses import negative_cosine
from stopgrad.siamese.family import Siamese
from stopgrad.siamese.objectives import MeanOverPairs
from stopgrad.siamese.pairs import pairs_of
from stopgrad.siamese.targets import StopGradient


def build(backbone, known):
    return Siamese(
        backbone=backbone,
        projector=nn.Linear(backbone.dim, 8),
        predictor=nn.Linear(8, 8),
        target=StopGradient(),
        objective=MeanOverPairs(negative_cosine, "cosine"),
        pairs=pairs_of("symmetric", len(known.crops)),
    )
'''


def written(tmp_path: Path, text: str = FILE) -> Path:
    file = tmp_path / "my_method.py"
    file.write_text(text)
    return file


def settings() -> tuple[str, ...]:
    return tuple(setting for setting in SETTINGS if not setting.startswith("method."))


@pytest.mark.parametrize(
    ("text", "yes"),
    [
        ("a.py", True),
        ("a.py:build", True),
        ("/x/a.py:other", True),
        ("simsiam", False),
        ("a.yaml", False),
        ("a.py:", False),
    ],
)
def test_a_file_of_python_is_told_from_a_preset(text: str, yes: bool) -> None:
    assert is_own(text) == yes


def test_a_users_method_trains_from_its_file_and_resumes(tmp_path: Path) -> None:
    file = written(tmp_path)
    options = api.Options(settings=(*settings(), "loop.epochs=2"))
    finished = api.train(f"{file}:build", out=tmp_path, options=options)
    assert finished.trained
    assert finished.path.name == "my_method-scenes-v1"
    recipe = load(finished.path / "recipe.yaml")
    assert isinstance(recipe.method, OwnConfig)
    assert (recipe.method.file, recipe.method.function) == (str(file), "build")
    again = api.train(finished.path / "recipe.yaml", out=tmp_path, name="again")
    assert [row.value for row in again.results if row.name == "knn_top1"] == [
        row.value for row in finished.results if row.name == "knn_top1"
    ]
    assert api.load(finished.path).backbone is not None


def test_a_run_goes_on_with_the_code_it_began_with_or_not_at_all(tmp_path: Path) -> None:
    file = written(tmp_path)
    options = api.Options(settings=(*settings(), "loop.epochs=2"))
    path = api.train(str(file), out=tmp_path, options=options).path
    shutil.rmtree(path / "checkpoints")
    (path / "results.json").unlink()
    (path / "status.json").unlink()
    file.write_text(FILE + "\n# changed\n")
    with pytest.raises(ConfigError, match=r"is not the file this recipe was made with .* start anew"):
        go_on(path)
    file.write_text(FILE)
    assert go_on(path).trained


def test_a_function_of_another_name_is_called_where_it_is_named(tmp_path: Path) -> None:
    file = written(tmp_path, FILE.replace("def build", "def mine"))
    assert isinstance(own(trunk(), own_config(f"{file}:mine"), known()), Method)
    with pytest.raises(ConfigError, match=r"has no function 'build'; needed is `def build\(backbone, known\)`"):
        own(trunk(), own_config(str(file)), known())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def build(backbone, known):\n    return 3\n", r"must return a stopgrad\.method\.Method, got int"),
        ("def build(backbone, known):\n    return 1 / 0\n", r"my_method\.py, line 2: ZeroDivisionError: .*--debug"),
        ("def build(backbone:\n", r"my_method\.py, line 1: SyntaxError"),
        ("import nothing_of_that_name\n", r"my_method\.py, line 1: ModuleNotFoundError"),
        ("build = 3\n", r"has no function 'build'"),
    ],
)
def test_what_is_wrong_with_the_file_is_one_line_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        own(trunk(), own_config(str(written(tmp_path, text))), known())


def test_the_function_is_told_what_the_run_knows(tmp_path: Path) -> None:
    file = written(tmp_path, FILE.replace("    return Siamese(", "    backbone.told = known\n    return Siamese("))
    backbone: nn.Module = trunk()
    around = known(crops=3, batch_size=7, images=40)
    own(backbone, own_config(str(file)), around)
    assert isinstance(backbone.told, Known)
    assert backbone.told == around


def test_a_file_that_is_not_there_and_settings_that_name_none_are_errors(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=r"nothing\.py: no method there .* type FILE\.py:build"):
        own_config(str(tmp_path / "nothing.py"))
    with pytest.raises(ConfigError, match=r"method\.file must be an absolute path, got 'a\.py'"):
        OwnConfig(file="a.py")
    with pytest.raises(ConfigError, match=r"method\.function must be a function's name, got 'a b'"):
        OwnConfig(file="/a.py", function="a b")
