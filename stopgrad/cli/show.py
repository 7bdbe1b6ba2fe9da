"""What the commands print."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from stopgrad.contracts import ConfigError, Result, did_you_mean

if TYPE_CHECKING:
    from stopgrad.assemble.train import Finished
    from stopgrad.diagnose import Diagnosis


SWITCHES = ("predictor", "target", "objective", "pairs")  # what tells methods of the family apart


def print_finished(run: Finished) -> None:
    """Verdict first, scores beside baselines, where things are."""
    print_diagnosis(run.diagnosis)
    print_scores(run.results)
    report = ", report.html" if (run.path / "report.html").exists() else ""
    print(f"\n{run.path}/: encoder.safetensors, results.json, log.jsonl, recipe.yaml{report}")
    if run.trained:
        print(f"Next: stopgrad eval {run.path} --data SRC, or from Python: stopgrad.load({str(run.path)!r})")


def print_diagnosis(said: Diagnosis) -> None:
    print(f"Verdict: {said.sentence()}")
    for line in said.evidence:
        print(f"  {line}")
    if said.next_command:
        print(f"  Next: {said.next_command}")


def print_scores(results: Sequence[Result]) -> None:
    """A table of what was measured, each row beside its baselines, and the protocol under it."""
    from stopgrad.eval import columns, rows
    from stopgrad.reporting.scores import scores

    head = ("", "this run", *columns(results).values())
    table = [head, *((name, *map(_cell, values)) for name, values in rows(results))]
    widths = [max(len(row[i]) for row in table) for i in range(len(head))]
    print()
    for row in table:
        print("  ".join([row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))]))
    judged = scores(results)
    for said in judged.sentences if judged else ():
        if said.warns:
            print(said.text)
    told = ("knn_top1", "segments_ap", "retrieval_at_1")
    protocols = dict.fromkeys(result.protocol for result in results if result.name in told)
    for protocol in protocols:
        print(f"Protocol: {protocol}")


def print_methods(name: str) -> None:
    """The switchboard: all methods by their parts; or one with its paper, parts and settings."""
    from stopgrad.methods import METHODS
    from stopgrad.recipe.typed import field_types, plain

    if name and name not in METHODS:
        raise ConfigError(f"methods: unknown method {name!r}{did_you_mean(name, METHODS)}")
    from stopgrad.assemble.switchboard import parts_of

    if not name:
        rows: list[tuple[str, ...]] = [("method", *SWITCHES)]
        rows += [(key, *(parts.get(part, "") for part in SWITCHES)) for key in METHODS for parts in [parts_of(key)]]
        widths = [max(map(len, column)) for column in zip(*rows)]
        for row in rows:
            print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
        print("\n`stopgrad methods NAME` prints a method's paper, parts and settings, `stopgrad recipes` the presets;")
        print("`stopgrad train FILE.py:build` trains a method of your own.")
        return
    _, config = METHODS[name]
    default = config(name=name)
    print((sys.modules[config.__module__].__doc__ or "").strip() + "\n\nParts:")
    parts = parts_of(name)
    for part, what in parts.items():
        print(f"  {part.ljust(max(map(len, parts)))}  {what}")
    print("\nSettings:")
    for field in dataclasses.fields(config):
        value = plain(getattr(default, field.name))
        if isinstance(value, dict):
            nested = field_types(config)[field.name]
            for key, inner in value.items():
                print(f"  method.{field.name}.{key}={inner}{_choices(field_types(nested)[key])}")
        else:
            print(f"  method.{field.name}={value}{_choices(field_types(config)[field.name])}")


def print_recipes(name: str) -> None:
    """All presets a line each, or one as a recipe file."""
    from stopgrad.recipe.text import dump
    from stopgrad.recipes import RECIPES

    if not name:
        width = max(map(len, RECIPES))
        for key, preset in RECIPES.items():
            print(f"{key.ljust(width)}  {_about(preset)}")
        return
    if name not in RECIPES:
        raise ConfigError(f"recipes: unknown preset {name!r}{did_you_mean(name, RECIPES)}")
    paragraphs = (RECIPES[name].__doc__ or "").split("\n\n")
    told = "\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
    print(dump(RECIPES[name](), note=f"{name}: {told}"), end="")


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _about(thing: object) -> str:
    """The first paragraph of a docstring, on one line."""
    return " ".join((thing.__doc__ or "").split("\n\n")[0].split())


def _choices(kind: object) -> str:
    allowed = getattr(kind, "__args__", ())
    return f"  ({', '.join(map(str, allowed))})" if allowed else ""
