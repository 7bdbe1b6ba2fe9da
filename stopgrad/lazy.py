"""Names of a room that bring their file when they are used: its settings import without torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def later(room: str, places: Mapping[str, str]) -> Callable[[str], Any]:
    """The `__getattr__` of the module `room`: `places` says in which of its files a name stands."""

    def find(name: str) -> Any:
        if name not in places:
            raise AttributeError(f"module {room!r} has no attribute {name!r}")
        return getattr(import_module(f"{room}.{places[name]}"), name)

    return find
