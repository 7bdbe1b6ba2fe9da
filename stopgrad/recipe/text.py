"""Recipes as text: YAML in and out, and `a.b=c` on the command line."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from stopgrad.contracts import ConfigError, MissingInputError, did_you_mean
from stopgrad.recipe.recipe import Recipe, from_dict
from stopgrad.recipe.typed import convert, field_types, join, plain

LARGEST = 1_000_000  # bytes of a recipe; more is not a recipe


class _Dumper(yaml.SafeDumper):
    """Short lists on one line."""


def _short_list(dumper: yaml.SafeDumper, value: list[Any]) -> yaml.Node:
    nested = any(isinstance(item, dict) for item in value)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", value, flow_style=not nested)


_Dumper.add_representer(list, _short_list)


def dump(recipe: Recipe, note: str = "") -> str:
    """The whole recipe, every setting written out; `note` becomes a comment on top."""
    head = "".join(f"# {line}\n" for line in note.splitlines())
    return head + yaml.dump(plain(recipe), Dumper=_Dumper, sort_keys=False, width=120)


def load(path: Path) -> Recipe:
    """A recipe from a YAML file. Errors name file, line, key, value and rule."""
    try:
        if path.stat().st_size > LARGEST:
            raise ConfigError(f"{path}: {path.stat().st_size:,} bytes is no recipe (limit {LARGEST:,})")
        text = path.read_text()
    except FileNotFoundError as error:
        raise MissingInputError(f"{path}: no such recipe; `stopgrad recipes` lists those built in") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: can't be read as text ({error})") from error
    values, lines = parse(text, str(path))
    try:
        return from_dict(values)
    except ConfigError as error:
        key = str(error).split(":")[0].split("=")[0].split(" ")[0]
        while key and key not in lines:
            key = key.rpartition(".")[0]
        raise ConfigError(f"{path}, line {lines[key]}: {error}" if key else f"{path}: {error}") from error


def parse(text: str, name: str) -> tuple[Any, dict[str, int]]:
    """The YAML document and {dotted key: line}. Tags that would run code are refused, as safe_load does."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        values = yaml.safe_load(text)
        lines: dict[str, int] = {}
        _note_lines(node, "", lines)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"{name}, line {line}: not YAML that settings can be read from ({error.problem})") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        why = " ".join(str(error).split())
        raise ConfigError(f"{name}: not YAML that settings can be read from ({why})") from error
    return values, lines


def _note_lines(node: yaml.Node | None, where: str, lines: dict[str, int]) -> None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            path = join(where, key.value)
            lines[path] = key.start_mark.line + 1
            _note_lines(value, path, lines)


def override(recipe: Recipe, assignments: Iterable[str]) -> Recipe:
    """The recipe with `a.b=c` applied, in order; `views.crops.0.blur=0` is one crop, `views.crops.*.blur=0` all."""
    values = plain(recipe)
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not key:
            raise ConfigError(f"--set {assignment!r}: needs key=value, for example --set optim.base_lr=0.03")
        value, _ = parse(text, f"--set {assignment}")
        _assign(values, key.strip().split("."), "" if value is None and text.strip() != "null" else value, key)
    return from_dict(values)


def _assign(values: Any, path: list[str], value: object, whole: str) -> None:
    head, rest = path[0], path[1:]
    if isinstance(values, list):
        if head != "*" and not (head.isdigit() and int(head) < len(values)):
            raise ConfigError(f"--set {whole}: {head!r} is no position; allowed: 0 to {len(values) - 1}, or * for all")
        for i in range(len(values)) if head == "*" else [int(head)]:
            if rest:
                _assign(values[i], rest, value, whole)
            else:
                values[i] = value
        return
    if not isinstance(values, dict) or head not in values:
        allowed = list(values) if isinstance(values, dict) else []
        hint = did_you_mean(head, allowed) if allowed else f"; {head!r} has nothing below it to set"
        raise ConfigError(f"--set {whole}: unknown setting {head!r}{hint}")
    if rest and isinstance(values[head], dict | list):
        _assign(values[head], rest, value, whole)
    elif isinstance(values[head], dict) and isinstance(value, dict):  # a group changes what it names, the rest stays
        for name, inner in value.items():
            _assign(values[head], [str(name)], inner, f"{whole}.{name}")
    elif rest:
        raise ConfigError(f"--set {whole}: {head!r} is a single value, there is no {'.'.join(rest)!r} below it")
    else:
        values[head] = value


def named_settings(assignments: Iterable[str]) -> dict[str, Any]:
    """{setting: value} of assignments `a.b=c` and `a={b: c}`, of its field's type; unknown ones are left out.

    For those who want to know what will be overridden before there is a recipe to override.
    """
    kinds = field_types(Recipe)
    found: dict[str, Any] = {}
    for assignment in assignments:
        key, _, text = assignment.partition("=")
        value, _ = parse(text, f"--set {assignment}")
        group, _, name = key.strip().partition(".")
        named = {name: value} if name else value if isinstance(value, dict) else {}
        inner: dict[str, Any] = {}
        for settings in reversed(typing.get_args(kinds.get(group)) or (kinds.get(group),)):  # an image's come first
            inner |= field_types(settings) if isinstance(settings, type) and dataclasses.is_dataclass(settings) else {}
        for part, one in named.items():
            if part in inner:
                found[f"{group}.{part}"] = convert(inner[part], one, f"{group}.{part}")
    return found
