"""A method of the user's own, in a file outside the package: `stopgrad train my_method.py:build --data DIR`.

The function is given the backbone and what is known of the run, and returns a stopgrad.method.Method:

    def build(backbone: nn.Module, known: Known) -> Method: ...

The recipe keeps the file's place and checksum: a run is resumed, and a recipe is run again, with the same code or not
at all.
"""

from __future__ import annotations

import hashlib
import importlib.util
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from stopgrad.contracts import ConfigError, Known, MissingInputError
from stopgrad.methods.settings import MethodConfig

if TYPE_CHECKING:
    from torch import nn

    from stopgrad.method import Method

FUNCTION = "build"


@dataclass(frozen=True, kw_only=True, slots=True)
class OwnConfig(MethodConfig):
    """A function in a Python file."""

    name: Literal["own"] = "own"
    file: str = ""  # absolute
    function: str = FUNCTION
    sha256: str = ""  # of the file

    def __post_init__(self) -> None:
        if not self.file or not Path(self.file).is_absolute():
            raise ConfigError(f"method.file must be an absolute path, got {self.file!r}; type my_method.py:build")
        if not self.function.isidentifier():
            raise ConfigError(f"method.function must be a function's name, got {self.function!r}; use {FUNCTION}")

    def check(self, known: Known) -> None:
        """How many views are compared, only the method itself knows."""


def is_own(text: str) -> bool:
    """Whether a command's METHOD names a file of Python."""
    file, _, function = text.rpartition(":")
    return text.endswith(".py") or (file.endswith(".py") and bool(function))


def own_config(text: str) -> OwnConfig:
    """Settings for FILE.py[:FUNCTION]. Raises MissingInputError where there is no such file."""
    file, _, function = text.rpartition(":") if not text.endswith(".py") else (text, "", FUNCTION)
    path = Path(file).expanduser().absolute()
    return OwnConfig(file=str(path), function=function, sha256=_digest(path))


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise MissingInputError(f"{path}: no method there ({error.strerror or error}); type FILE.py:build") from error


def own(backbone: nn.Module, config: OwnConfig, known: Known) -> Method:
    """Runs the file's function. Raises ConfigError where the file has changed, or is not what it has to be."""
    from stopgrad.method import Method

    path = Path(config.file)
    found = _digest(path)
    if found != config.sha256:
        raise ConfigError(
            f"{path} is not the file this recipe was made with (checksum {found[:8]}, was {config.sha256[:8]}); put it "
            f"back, or start anew: stopgrad train {path.name}:{config.function}"
        )
    function = _function(path, config.function)
    try:
        method = function(backbone, known)
    except Exception as error:
        raise ConfigError(f"{_where(error, path)}: {type(error).__name__}: {error}; --debug shows all of it") from error
    if not isinstance(method, Method):
        raise ConfigError(
            f"{path}: {config.function} must return a stopgrad.method.Method, got {type(method).__name__}; subclass "
            "it, or return a stopgrad.siamese.family.Siamese"
        )
    return method


def _function(path: Path, name: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"stopgrad_own_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{path} is no Python file that can be loaded; it must end in .py")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ConfigError(f"{_where(error, path)}: {type(error).__name__}: {error}; --debug shows all of it") from error
    function = getattr(module, name, None)
    if not callable(function):
        raise ConfigError(
            f"{path} has no function {name!r}; needed is `def {name}(backbone, known)` that returns a Method"
        )
    return function


def _where(error: Exception, path: Path) -> str:
    """FILE, line N: where in the user's file it went wrong."""
    if isinstance(error, SyntaxError) and error.lineno:
        return f"{path}, line {error.lineno}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return f"{path}, line {lines[-1]}" if lines else str(path)
