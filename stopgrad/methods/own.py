"""A method of the user's own, in a file outside the package: `stopgrad train my_method.py:build --data DIR`.

The function is given the backbone and what is known of the run, and returns a stopgrad.method.Method:

    def build(backbone: nn.Module, known: Known) -> Method: ...

The recipe keeps the file's place and checksum: a run is resumed, and a recipe is run again, with the same code or not
at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from stopgrad.contracts import ConfigError, Known
from stopgrad.methods.settings import MethodConfig
from stopgrad.own_code import digest, load_function, names_code, split_name, went_wrong

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
    return names_code(text)


def own_config(text: str) -> OwnConfig:
    """Settings for FILE.py[:FUNCTION]. Raises MissingInputError where there is no such file."""
    path, function = split_name(text, FUNCTION)
    return OwnConfig(file=str(path), function=function, sha256=digest(path, "method", FUNCTION))


def own(backbone: nn.Module, config: OwnConfig, known: Known) -> Method:
    """Runs the file's function. Raises ConfigError where the file has changed, or is not what it has to be."""
    from stopgrad.method import Method

    path = Path(config.file)
    again = f"stopgrad train {path.name}:{config.function}"
    signature = "(backbone, known)` that returns a Method"
    function = load_function(path, config.function, config.sha256, "method", signature, again)
    try:
        method = function(backbone, known)
    except Exception as error:
        raise went_wrong(error, path) from error
    if not isinstance(method, Method):
        raise ConfigError(
            f"{path}: {config.function} must return a stopgrad.method.Method, got {type(method).__name__}; subclass "
            "it, or return a stopgrad.siamese.family.Siamese"
        )
    return method
