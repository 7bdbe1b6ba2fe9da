"""Plain values into settings classes: every key known, every value of its field's type, or an error that says the fix.

Only the types settings may have are understood: bool, int, float, str, Literal, tuple, nested settings, and X | None.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any, Literal, TypeVar

from stopgrad.contracts import ConfigError, did_you_mean

T = TypeVar("T")


def field_types(cls: type) -> dict[str, Any]:
    """{field: type} of a settings class."""
    return typing.get_type_hints(cls)


def build(cls: type[T], values: object, where: str = "") -> T:
    """A settings object from a mapping. Raises ConfigError for unknown keys, wrong types and failed checks."""
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where or 'recipe'}: needs settings (key: value), got {values!r}")
    known = field_types(cls)
    arguments = {}
    for key, value in values.items():
        if key not in known:
            raise ConfigError(f"{join(where, key)}: unknown setting{did_you_mean(str(key), known)}")
        at = join(where, key)
        # a group changes what it names: the rest is as the field's own default has it, not its class
        start = _default(cls, key) if isinstance(value, Mapping) and dataclasses.is_dataclass(known[key]) else None
        arguments[key] = convert(known[key], value if start is None else {**plain(start), **value}, at)
    return cls(**arguments)


def _default(cls: type, key: str) -> object:
    """What a field is where nobody sets it; None where it has to be set."""
    first = _at_first(next(field for field in dataclasses.fields(cls) if field.name == key))
    return None if first is dataclasses.MISSING else first


def convert(kind: Any, value: object, where: str) -> Any:
    """`value` as `kind`, where the meaning can't be mistaken: 3 is a float, '1e-3' is, 3.5 is no int."""
    origin = typing.get_origin(kind)
    if dataclasses.is_dataclass(kind):
        return build(typing.cast(type, kind), value, where)
    if origin is Literal:
        return _literal(typing.get_args(kind), value, where)
    if origin is tuple:
        return _tuple(typing.get_args(kind), value, where)
    if origin in (types.UnionType, typing.Union):
        choices = [arg for arg in typing.get_args(kind) if arg is not type(None)]
        return None if value is None or value == "null" else convert(choices[0], value, where)
    return _plain(kind, value, where)


def _plain(kind: type, value: object, where: str) -> Any:
    if kind is bool:
        if isinstance(value, bool):
            return value
        if str(value).lower() in ("true", "false"):
            return str(value).lower() == "true"
        raise ConfigError(f"{where}: needs true or false, got {value!r}")
    if kind is str:
        if isinstance(value, str):
            return value
        raise ConfigError(f"{where}: needs text, got {value!r}; put it in quotes")
    if not isinstance(value, bool):
        try:
            number = float(typing.cast(Any, value))
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if math.isfinite(number) and (kind is float or number == int(number)):
            return int(value) if kind is int and isinstance(value, int | str) and _whole(value) else kind(number)
    raise ConfigError(f"{where}: needs {'a whole number' if kind is int else 'a number'}, got {value!r}")


def _whole(value: int | str) -> bool:
    return isinstance(value, int) or value.strip().lstrip("+-").isdigit()


def _literal(allowed: tuple[Any, ...], value: object, where: str) -> Any:
    for choice in allowed:
        if value == choice or (isinstance(choice, int) and str(value) == str(choice)):
            return choice
    names = [str(choice) for choice in allowed]
    near = did_you_mean(str(value), names)
    listed = f"; allowed: {', '.join(names)}" if "did you mean" in near else ""
    raise ConfigError(f"{where}: {value!r} is not a choice{near}{listed}")


def _tuple(kinds: tuple[Any, ...], value: object, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        value = [value]
    if kinds[-1] is not Ellipsis:
        if len(value) != len(kinds):
            raise ConfigError(f"{where}: needs {len(kinds)} values, got {len(value)}: {list(value)}")
        return tuple(convert(kind, item, f"{where}.{i}") for i, (kind, item) in enumerate(zip(kinds, value)))
    return tuple(convert(kinds[0], item, f"{where}.{i}") for i, item in enumerate(value))


def join(where: str, key: object) -> str:
    return f"{where}.{key}" if where else str(key)


def plain(value: object) -> Any:
    """A settings object as nested dicts and lists, the inverse of `build`."""
    if dataclasses.is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def chosen(value: object) -> Any:
    """As `plain`, without what is as its class has it: two recipes of which one knows settings that came later are
    equal in this where those are at their defaults. `name` and `kind`, which say what the class is, are always there.
    """
    if dataclasses.is_dataclass(value):
        return {
            field.name: chosen(getattr(value, field.name))
            for field in dataclasses.fields(value)
            if field.name in ("name", "kind") or getattr(value, field.name) != _at_first(field)
        }
    if isinstance(value, list | tuple):
        return [chosen(item) for item in value]
    return value


def each_setting(value: object, where: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(dotted key, plain value, what its class has there) of every setting below a settings object, depth first.

    Of a tuple of settings each by its place, and `count`. MISSING for what has no default.
    """
    for field in dataclasses.fields(value):  # type: ignore[arg-type]
        one, at = getattr(value, field.name), join(where, field.name)
        if dataclasses.is_dataclass(one):
            yield from each_setting(one, at)
        elif isinstance(one, tuple) and one and all(map(dataclasses.is_dataclass, one)):
            yield f"{at}.count", len(one), dataclasses.MISSING
            for place, item in enumerate(one):
                yield from each_setting(item, f"{at}.{place}")
        else:
            yield at, plain(one), plain(_at_first(field))


def _at_first(field: dataclasses.Field[Any]) -> object:
    """What a field is where nobody sets it; MISSING where it has to be set."""
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
