"""Rows of results.json laid side by side: a score beside its baselines. No torch here."""

from __future__ import annotations

from collections.abc import Sequence

from stopgrad.contracts import Result

RANDOM, PIXELS = "baseline_random_", "baseline_pixels_"


def rows(results: Sequence[Result]) -> list[tuple[str, float | None, float | None, float | None]]:
    """(name, score, the untrained backbone's, raw pixels'), in the order of the results; None where there is none.

    Only what has a baseline is a row: a verdict or a speed has nothing to stand beside.
    """
    found = {result.name: result.value for result in results}

    def number(name: str) -> float | None:
        value = found.get(name)
        return None if isinstance(value, str) else value

    return [
        (name, number(name), number(RANDOM + name), number(PIXELS + name))
        for name in found
        if RANDOM + name in found or PIXELS + name in found
    ]
