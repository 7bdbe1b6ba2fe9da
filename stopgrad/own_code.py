"""A function in a Python file of the user's, FILE.py:FUNCTION: found, checked against its checksum, loaded.

Recipes keep the file's place and checksum: what runs again runs with the same code or not at all.
"""

from __future__ import annotations

import hashlib
import importlib.util
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stopgrad.contracts import ConfigError, MissingInputError


def names_code(text: str) -> bool:
    """Whether it is FILE.py:FUNCTION, or FILE.py."""
    file, _, function = text.rpartition(":")
    return text.endswith(".py") or (file.endswith(".py") and bool(function))


def split_name(text: str, usual: str) -> tuple[Path, str]:
    """(absolute file, function) of FILE.py[:FUNCTION].  usual: the function where none is named."""
    file, _, function = text.rpartition(":") if not text.endswith(".py") else (text, "", usual)
    return Path(file).expanduser().absolute(), function


def digest(path: Path, what: str, function: str) -> str:
    """Of the file's content.  what: it is to hold.  function: its usual name. Raises MissingInputError."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise MissingInputError(
            f"{path}: no {what} there ({error.strerror or error}); type FILE.py:{function}"
        ) from error


def load_function(path: Path, name: str, sha256: str, what: str, signature: str, again: str) -> Callable[..., Any]:
    """The function of the file, which must be the one of `sha256`.

    For messages: what it is, its signature behind its name, and again, what starts with another one.
    Raises ConfigError where the file has changed, does not run, or has no such function.
    """
    found = digest(path, what, name)
    if found != sha256:
        raise ConfigError(
            f"{path} is not the file this recipe was made with (checksum {found[:8]}, was {sha256[:8]}); put it back, "
            f"or start anew: {again}"
        )
    spec = importlib.util.spec_from_file_location(f"stopgrad_own_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{path} is no Python file that can be loaded; it must end in .py")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise went_wrong(error, path) from error
    function = getattr(module, name, None)
    if not callable(function):
        raise ConfigError(f"{path} has no function {name!r}; needed is `def {name}{signature}")
    return function  # type: ignore[no-any-return]


def went_wrong(error: Exception, path: Path) -> ConfigError:
    """What the user's code raised, with the line of the file where it did."""
    if isinstance(error, SyntaxError) and error.lineno:
        where = f"{path}, line {error.lineno}"
    else:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        where = f"{path}, line {lines[-1]}" if lines else str(path)
    return ConfigError(f"{where}: {type(error).__name__}: {error}; --debug shows all of it")
