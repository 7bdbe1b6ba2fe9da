"""A study's page: our numbers beside the paper's, its claims and what became of them, curves, recipes, cost.

Markdown, with the curves beside it as SVG; the table also as CSV and LaTeX.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from stopgrad.rundir import write_bytes
from stopgrad.study.lab.claims import interval
from stopgrad.study.lab.conduct import Asked, Conducted, Row, again_of, command_of
from stopgrad.study.lab.curves import drawn
from stopgrad.study.lab.records import Record
from stopgrad.study.table import NOTHING, escaped

SIGNS = {"supported": "✓", "contradicted": "✗", "can't tell": "?", "not run": "–"}
COLUMNS = {  # in results.json -> what it is called, digits
    "knn_top1": ("kNN %", 1),
    "baseline_random_knn_top1": ("random %", 1),
    "linear_top1": ("linear %", 1),
    "loss": ("last loss", 3),
    "std_ratio": ("std_ratio", 2),
    "effective_rank": ("rank", 1),
}


def write_page(found: Conducted, pages: Path) -> Path:
    """PAPER-WHAT.md and, beside it, .csv, .tex and .svg. Returns the first."""
    study = found.asked.study
    stem = stem_of(found.asked)
    head, rows = table(found)
    curves = drawn({case: runs[0].curves for case, runs in found.found.items() if runs}, study.curves)
    if curves:
        write_bytes(pages / f"{stem}.svg", curves.encode())
    write_bytes(pages / f"{stem}.csv", as_csv(head, rows).encode())
    write_bytes(pages / f"{stem}.tex", as_latex(head, rows).encode())
    page = pages / f"{stem}.md"
    write_bytes(page, "\n\n".join(parts(found, head, rows, f"{stem}.svg" if curves else "")).encode() + b"\n")
    return page


def stem_of(asked: Asked) -> str:
    """Of a page's files."""
    return asked.study.name.replace("/", "-") + (f"-{asked.scale}" if asked.scale != "tiny" else "")


def write_index(all_found: Sequence[Conducted], pages: Path) -> Path:
    """README.md: a line a study, how far it is and what became of its claims."""
    lines = ["| study | question | runs | claims |", "| --- | --- | ---: | --- |"]
    for found in all_found:
        study = found.asked.study
        outcomes = [claim.judge(found.found).outcome for claim in study.claims]
        told = ", ".join(f"{outcomes.count(what)} {what}" for what in SIGNS if what in outcomes)
        name = f"[{study.name}]({stem_of(found.asked)}.md)" if found.done else study.name
        lines.append(f"| {name} | {escaped(study.title)} | {found.done} of {found.total} | {told} |")
    head = "# Studies\n\nPapers' tables, run here, with their numbers beside ours. Made by `stopgrad study all`."
    write_bytes(pages / "README.md", ("\n\n".join([head, "\n".join(lines)]) + "\n").encode())
    return pages / "README.md"


def parts(found: Conducted, head: list[str], rows: list[list[str]], curves: str) -> list[str]:
    asked, study = found.asked, found.asked.study
    told = [f"# {study.title}", f"{study.question}", f"{escaped(study.source)}. The paper's numbers: {study.measured}."]
    if found.done < found.total:
        told.append(f"{found.done} of {found.total} runs are finished; a row that was not run says so.")
    told.append(as_markdown(head, rows))
    told += [
        f"`{row.case.name}` can't be run at this scale: {escaped(row.why)}" for row in found.rows if row.recipe is None
    ]
    failed = [
        f"`{name}`, seed {run.seed}: {escaped(run.why)}"
        for name, runs in found.found.items()
        for run in runs
        if run.why
    ]
    told += ["Runs that ended themselves:\n\n" + "\n".join(f"- {line}" for line in failed)] if failed else []
    told += ["## Claims", claims(found)]
    if curves:
        told += [
            "## Curves",
            f"![{escaped(study.title)}: {', '.join(study.curves)} over steps]({curves})",
            "Of several seeds the first.",
        ]
    told += ["## Recipes", recipes(found), "## Cost", cost(found)]
    told.append(f"Made, and continued, by `{again_of(asked)}`.")
    return told


def table(found: Conducted) -> tuple[list[str], list[list[str]]]:
    """Head, and a row a case: the paper's number, ours with its interval, verdicts."""
    there = {name for runs in found.found.values() for run in runs for name in run.values}
    shown = [name for name in COLUMNS if name in there]
    head = ["case", "paper", *(COLUMNS[name][0] for name in shown), "verdict", "seeds"]
    return head, [cells(row, found.found[row.case.name], shown) for row in found.rows]


def cells(row: Row, runs: Sequence[Record], shown: Sequence[str]) -> list[str]:
    paper = (
        NOTHING
        if row.case.paper is None
        else f"{row.case.paper:g}"
        if isinstance(row.case.paper, float | int)
        else row.case.paper
    )
    if not runs:
        return [row.case.name, paper, *[NOTHING] * len(shown), "not run", "0"]
    measured = [
        measured_as([run.values[name] for run in runs if name in run.values], COLUMNS[name][1]) for name in shown
    ]
    verdicts = ", ".join(dict.fromkeys(run.verdict for run in runs))
    return [row.case.name, paper, *measured, verdicts, str(len(runs))]


def measured_as(values: Sequence[float], digits: int) -> str:
    """Mean, and of several values Student's interval of 95 %."""
    if not values:
        return NOTHING
    low, mean, high = interval(values, one=0.0)
    spread = f" ({low:.{digits}f} to {high:.{digits}f})" if len(values) > 1 else ""
    return f"{mean:.{digits}f}{spread}"


def claims(found: Conducted) -> str:
    lines = ["| | the claim | measured here |", "| --- | --- | --- |"]
    for claim in found.asked.study.claims:
        judged = claim.judge(found.found)
        lines.append(f"| {SIGNS[judged.outcome]} {judged.outcome} | {escaped(claim.words)} | {escaped(judged.told)} |")
    return "\n".join(lines)


def recipes(found: Conducted) -> str:
    lines = [f"- {escaped(row.case.name)}: `{command_of(found.asked, row.case)}`" for row in found.rows]
    return "\n".join(lines)


def cost(found: Conducted) -> str:
    runs = {run.name: run for row in found.found.values() for run in row}
    minutes = [run.values["minutes"] for run in runs.values() if "minutes" in run.values]
    machines = "; ".join(dict.fromkeys(run.machine for run in runs.values() if run.machine)) or "no run yet"
    return f"{len(runs)} runs, {sum(minutes):.0f} minutes of training together, on {machines}."


def as_markdown(head: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(map(escaped, line)) + " |" for line in (head, *rows)]
    ruler = "| --- |" + " ---: |" * (len(head) - 3) + " --- | ---: |"
    return "\n".join([lines[0], ruler, *lines[1:]])


def as_csv(head: list[str], rows: list[list[str]]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([head, *rows])
    return out.getvalue()


def as_latex(head: list[str], rows: list[list[str]]) -> str:
    special = str.maketrans(
        {c: f"\\{c}" for c in "&%$#_{}"} | {"\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "–": "--"}
    )
    body = [" & ".join(cell.translate(special) for cell in line) + r" \\" for line in (head, *rows)]
    columns = "l" + "r" * (len(head) - 3) + "lr"
    return (
        "\n".join(
            [rf"\begin{{tabular}}{{{columns}}}", r"\hline", body[0], r"\hline", *body[1:], r"\hline", r"\end{tabular}"]
        )
        + "\n"
    )
