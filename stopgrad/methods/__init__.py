"""METHODS: every method by its name on the command line. A new one is a file here and a line in the table.

A row: the builder (backbone, settings, what is known of the run) -> Method, and its class of settings.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from stopgrad.contracts import ConfigError, did_you_mean
from stopgrad.methods.own import OwnConfig, own
from stopgrad.methods.settings import MethodConfig
from stopgrad.methods.simsiam import SimSiamConfig, simsiam

__all__ = ["METHODS", "MethodConfig", "OwnConfig", "method_named"]

METHODS: dict[str, tuple[Callable[..., Any], type[MethodConfig]]] = {
    "simsiam": (simsiam, SimSiamConfig),
}


def method_named(name: str) -> tuple[Callable[..., Any], type[MethodConfig]]:
    """The row of a method; `own` is a file of the user's. Raises ConfigError with the nearest name."""
    if name == "own":
        return own, OwnConfig
    if name not in METHODS:
        raise ConfigError(f"method.name: unknown method {name!r}{did_you_mean(name, METHODS)}")
    return METHODS[name]
