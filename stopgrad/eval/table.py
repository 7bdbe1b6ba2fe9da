"""Rows of results.json laid side by side: a score beside its baselines. No torch here."""

from __future__ import annotations

from collections.abc import Sequence

from stopgrad.contracts import Result

BASELINE = "baseline_"
RANDOM, PIXELS, MFCC, INIT, OTHER = (f"{BASELINE}{who}_" for who in ("random", "pixels", "mfcc", "init", "other"))
CHANCE, TEACHER = (f"{BASELINE}{who}_" for who in ("chance", "teacher"))  # of runs that are taught, and of segments
NEAREST = f"{BASELINE}nearest_caption_"  # of images with captions
WORDS = f"{BASELINE}words_"  # of texts
# Columns that are always there, and those that only some results have.
TITLES = {
    CHANCE: "chance",
    TEACHER: "teacher",
    NEAREST: "nearest caption",
    RANDOM: "random",
    PIXELS: "pixels",
    MFCC: "MFCC",
    WORDS: "words",
    INIT: "start",
    OTHER: "other",
}
ALWAYS = (RANDOM,)


def columns(results: Sequence[Result]) -> dict[str, str]:
    """{prefix: title} of the baselines to show beside a score."""
    return {
        prefix: title
        for prefix, title in TITLES.items()
        if prefix in ALWAYS or any(result.name.startswith(prefix) for result in results)
    }


def rows(results: Sequence[Result]) -> list[tuple[str, list[float | None]]]:
    """(name, [score, each of `columns`]), in the order of the results; None where there is none.

    Only what has a baseline is a row: a verdict or a speed has nothing to stand beside.
    """
    found = {result.name: result.value for result in results}
    prefixes = list(columns(results))

    def number(name: str) -> float | None:
        value = found.get(name)
        return None if isinstance(value, str) else value

    return [
        (name, [number(name), *(number(prefix + name) for prefix in prefixes)])
        for name in found
        if any(prefix + name in found for prefix in prefixes)
    ]
