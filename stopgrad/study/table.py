"""A table of runs: a row a method (or a run), a column a score; as Markdown, and as text as wide as a terminal.

Names, reasons and verdicts may be other people's text: in Markdown they are escaped, in a terminal printed without
control characters.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from stopgrad.reporting.found import printable
from stopgrad.study.measured import FAILED, FINISHED, TO_COME, Run, mean_and_std

NOTHING = "–"
LONGEST = 300  # characters of a reason in a table; all of it stands in the .json
# What Markdown, or HTML inside it, would take for more than a character.
_SPECIAL = re.compile(r"[\\`*\[\]<>|&~#!$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")


@dataclass(frozen=True, slots=True)
class Column:
    """One score of a table."""

    title: str
    name: str  # as in results.json
    digits: int = 1
    spread: bool = False  # whether ± stands beside it; compare.json has it of all


KNN = (
    Column("kNN %", "knn_top1", spread=True),
    Column("random %", "baseline_random_knn_top1"),
    Column("pixels %", "baseline_pixels_knn_top1"),
    Column("words %", "baseline_words_knn_top1"),  # of texts
    Column("MFCC %", "baseline_mfcc_knn_top1"),  # of sounds
    Column("linear %", "linear_top1", spread=True),
    Column("linear (SGD) %", "linear_sgd_top1", spread=True),
    Column("classifier %", "classifier_top1", spread=True),  # of runs that are taught
    Column("second view %", "retrieval_at_1", spread=True),
)
WITHOUT_LABELS = (
    Column("second view %", "retrieval_at_1", spread=True),
    Column("random %", "baseline_random_retrieval_at_1"),
    Column("pixels %", "baseline_pixels_retrieval_at_1"),
    Column("words %", "baseline_words_retrieval_at_1"),
    Column("MFCC %", "baseline_mfcc_retrieval_at_1"),
)
OTHERS = (
    Column("std_ratio", "std_ratio", 2),
    Column("rank", "effective_rank"),
    Column("alignment", "alignment", 2),
    Column("uniformity", "uniformity", 2),
    Column("epochs", "epochs", 0),
    Column("minutes", "minutes", 2),
    Column("images/s", "images_per_second", 0),
    Column("peak MB", "peak_memory_mb", 0),
)


@dataclass(frozen=True, slots=True)
class Table:
    """Cells as plain text, not escaped yet."""

    head: list[str]
    rows: list[list[str]]
    notes: list[tuple[str, str]]  # (row, why it failed)


def columns(runs: Sequence[Run]) -> list[Column]:
    """Those that any run has a value for. Baselines are those of the first column."""
    there = {name for run in runs for name in run.values}
    scores = KNN if "knn_top1" in there else WITHOUT_LABELS
    return [column for column in (*scores, *OTHERS) if column.name in there]


def table(rows: Mapping[str, Sequence[Run]], first: str) -> Table:
    """A row a name: mean over its finished runs, ± where there are several. first: what the names are."""
    shown = columns([run for runs in rows.values() for run in runs])
    cells = [[name, _verdicts(runs), *(_cell(column, runs) for column in shown)] for name, runs in rows.items()]
    notes = [(name, why) for name, runs in rows.items() for why in _reasons(runs)]
    return Table([first, "verdict", *(column.title for column in shown)], cells, notes)


def numbers(runs: Sequence[Run]) -> dict[str, dict[str, float | int | None]]:
    """{score: {mean, std, n}} over the runs that have it."""
    names = dict.fromkeys(name for run in runs for name in run.values)
    return {name: mean_and_std([run.values[name] for run in runs if name in run.values]) for name in names}


def _cell(column: Column, runs: Sequence[Run]) -> str:
    values = [run.values[column.name] for run in runs if column.name in run.values]
    if not values:
        return NOTHING
    found = mean_and_std(values)
    spread = f" ± {found['std']:.{column.digits}f}" if column.spread and found["std"] is not None else ""
    return f"{found['mean']:,.{column.digits}f}{spread}"


def _verdicts(runs: Sequence[Run]) -> str:
    """`healthy`, or of several runs `2 healthy, 1 failed`."""
    said = Counter(run.verdict if run.state == FINISHED else run.state for run in runs)
    ordered = sorted(said.items(), key=lambda item: (item[0] in (FAILED, TO_COME), -item[1]))
    return ", ".join(what if len(runs) == 1 else f"{count} {what}" for what, count in ordered)


def _reasons(runs: Sequence[Run]) -> list[str]:
    """Each reason once, with the seeds it ended."""
    ended: dict[str, list[int | None]] = {}
    for run in runs:
        if run.state == FAILED:
            ended.setdefault(run.why, []).append(run.seed)
    return [_cut(f"{_seeds(seeds)}failed: {why}") for why, seeds in ended.items()]


def _seeds(seeds: Sequence[int | None]) -> str:
    known = [str(seed) for seed in seeds if seed is not None]
    return f"seed{'s' * (len(known) > 1)} {', '.join(known)} " if known else ""


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def escaped(text: str) -> str:
    """Text that Markdown shows as it is, also in a cell: on one line, no markup, no HTML, no bar."""
    return _SPECIAL.sub(lambda found: f"\\{found[0]}", printable(" ".join(text.split())))


def as_markdown(found: Table) -> str:
    """The table, and below it a line for each reason. Numbers are to the right, the name and what follows it not."""
    head, *rows = ("| " + " | ".join(map(escaped, line)) + " |" for line in (found.head, *found.rows))
    ruler = "| --- | --- |" + " ---: |" * (len(found.head) - 2)
    notes = [f"- {escaped(name)}: {escaped(why)}" for name, why in found.notes]
    return "\n".join([head, ruler, *rows, *(["", *notes] if notes else [])]) + "\n"


def as_text(found: Table, width: int) -> str:
    """The table in blocks of at most `width` characters where they can be, the first column again in each."""
    lines = [[printable(" ".join(cell.split())) for cell in line] for line in (found.head, *found.rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(found.head))]
    blocks: list[list[int]] = [[0]]
    for i in range(1, len(widths)):
        taken = sum(widths[j] + 2 for j in blocks[-1])
        if len(blocks[-1]) > 1 and taken + widths[i] > width:
            blocks.append([0])
        blocks[-1].append(i)
    text = "\n\n".join(
        "\n".join(
            "  ".join(line[i].ljust(widths[i]) if i < 2 else line[i].rjust(widths[i]) for i in block).rstrip()
            for line in lines
        )
        for block in blocks
    )
    notes = "".join(f"\n{name}: {why}" for name, why in found.notes)
    return text + (printable(f"\n{notes}", keep="\n") if notes else "")
