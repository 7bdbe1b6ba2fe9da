"""Accuracy against the number of labels, as far as it is measured: its runs, its table, its chart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stopgrad.contracts import StopgradError
from stopgrad.reporting.label_chart import LabelChart, Measured, label_chart, render
from stopgrad.reporting.page import available
from stopgrad.rundir import RunDir, as_json, write_bytes
from stopgrad.study.measured import FAILED, FINISHED, TO_COME, Run, mean_and_std, read_finished
from stopgrad.study.table import NOTHING, Table, as_markdown, escaped
from stopgrad.version import __version__

FORMAT = 1
SCORE, CHANCE = "classifier_top1", "baseline_chance_classifier_top1"
WAYS = {  # in the order they are trained: a student needs its teacher
    "supervised": "supervised from scratch",
    "linear": "linear probe, frozen features",
    "finetuned": "fine-tuned",
    "distilled": "fine-tuned, then distilled",
}
TRAINED = tuple(way for way in WAYS if way != "linear")


def slug(amount: str) -> str:
    """1% -> 1pct: an amount in a folder's name."""
    return amount.replace("%", "pct").replace(".", "_")


def run_name(way: str, amount: str, seed: int) -> str:
    return f"{way}-{slug(amount)}-{seed}"


@dataclass(kw_only=True)
class FewLabels:
    """The table as far as it is, and what is to be known about it."""

    out: Path
    amounts: list[str]  # as --labels has them
    seeds: int
    settings: Mapping[str, Any]
    data: Mapping[str, Any]  # name, synthetic, train, test, fingerprint
    machines: list[str]
    images: dict[str, int]  # amount -> images whose label is known
    probes: dict[str, float] = field(default_factory=dict)  # of the linear probe, by run_name
    ended: dict[str, str] = field(default_factory=dict)  # runs that failed in this session, and why
    seen: dict[str, Run] = field(default_factory=dict)  # by run_name, as `look` found them; finished ones stay so

    def look(self) -> None:
        """Reads what is there now."""
        for way in WAYS:
            for amount in self.amounts:
                for seed in range(self.seeds):
                    name = run_name(way, amount, seed)
                    if name not in self.seen or self.seen[name].state != FINISHED:
                        self.seen[name] = self._probed(name, seed) if way == "linear" else self._found(name, seed)

    def _probed(self, name: str, seed: int) -> Run:
        if name not in self.probes:
            return Run(state=TO_COME, seed=seed)
        return Run(state=FINISHED, seed=seed, values={SCORE: self.probes[name]})

    def _found(self, name: str, seed: int) -> Run:
        state = RunDir(self.out / name).state()
        why = self.ended.get(name, "") or (str(state.get("message", "")) if state.get("state") == "failed" else "")
        if state.get("state") == "finished":
            try:
                return read_finished(self.out / name, shown=name, seed=seed)[0]
            except StopgradError as error:
                why = str(error)
        return Run(state=FAILED if why else TO_COME, seed=seed, path=name, why=why)

    def runs(self, way: str, amount: str) -> list[Run]:
        """One a seed, as they were when `look` looked."""
        return [self.seen[run_name(way, amount, seed)] for seed in range(self.seeds)]

    @property
    def every(self) -> list[Run]:
        """Those that are trained; a probe is none."""
        return [run for way in TRAINED for amount in self.amounts for run in self.runs(way, amount)]

    @property
    def finished(self) -> int:
        return sum(run.state == FINISHED for run in self.every)

    @property
    def chance(self) -> float | None:
        """Percentage of the commonest class of the test split."""
        return next((run.values[CHANCE] for run in self.every if CHANCE in run.values), None)

    @property
    def table(self) -> Table:
        head = ["accuracy %", *(f"{amount} ({self.images[amount]:,} images)" for amount in self.amounts)]
        rows = [[name, *(self._cell(way, amount) for amount in self.amounts)] for way, name in WAYS.items()]
        notes = [
            (run_name(way, amount, run.seed or 0), f"failed: {run.why}")
            for way in TRAINED
            for amount in self.amounts
            for run in self.runs(way, amount)
            if run.state == FAILED
        ]
        return Table(head, rows, notes)

    def _cell(self, way: str, amount: str) -> str:
        values = self._values(way, amount)
        if not values:
            return NOTHING
        found = mean_and_std(values)
        spread = f" ± {found['std']:.1f}" if found["std"] is not None else ""
        some = f" ({len(values)} of {self.seeds})" if len(values) < self.seeds else ""
        return f"{found['mean']:.1f}{spread}{some}"

    def _values(self, way: str, amount: str) -> list[float]:
        return [run.values[SCORE] for run in self.runs(way, amount) if SCORE in run.values]

    @property
    def chart(self) -> LabelChart | None:
        ways = [
            (
                name,
                [
                    Measured(self.images[amount], amount, tuple(values))
                    for amount in self.amounts
                    if (values := self._values(way, amount))
                ],
            )
            for way, name in WAYS.items()
        ]
        return label_chart(ways, self.chance)

    @property
    def caption(self) -> list[str]:
        """Sentences without which the numbers can't be read."""
        data, asked = self.data, self.settings
        total, failed = len(self.every), sum(run.state == FAILED for run in self.every)
        budget = f"{asked['minutes']:g} minutes of training" if asked["minutes"] else f"{asked['epochs']} epochs"
        verdicts = sorted({run.verdict for run in self.every if run.verdict} - {"healthy"})
        one = len(asked["runs"]) == 1
        began = "the pre-trained weights" if asked["student"] == "run" else "random weights"
        protocols = dict.fromkeys(run.protocol for run in self.every if run.protocol)
        return [
            f"{self.finished} of {total} runs are finished{f', {failed} failed' if failed else ''}."
            + ("" if self.finished + failed == total else " The table is not complete."),
            f"Data: {data['name']}{' (synthetic)' if data['synthetic'] else ''}, {data['train']:,} training and "
            f"{data['test']:,} test images, {data['fingerprint']}.",
            "Labels: as many of each class, drawn from the seed, the same for all four; a probe, a fine-tuning and a "
            "teacher know no others. Accuracy is of the test split, which chose nothing.",
            *([f"Always the commonest class is right in {self.chance:.1f} %."] if self.chance is not None else []),
            f"Budget: {budget} a run, whatever its number of labels. Settings are each one's own (recipes/).",
            f"Pre-trained: {', '.join(asked['runs'])}. "
            + ("One run for all seeds, which then do not vary the pre-training." if one else "One a seed."),
            "linear probe: L-BFGS on the pre-trained run's frozen features of the labelled images alone.",
            f"distilled: the fine-tuned run is the teacher, all training images are unlabelled, the student has its "
            f"backbone and begins from {began}.",
            f"Seeds: {self.seeds}; numbers are means, ± the standard deviation over seeds (n - 1).",
            *([f"For all: {', '.join(f'--set {setting}' for setting in asked['set'])}."] if asked["set"] else []),
            *([f"Not every run is healthy: {', '.join(verdicts)} are among the verdicts."] if verdicts else []),
            f"Machine: {'; '.join(self.machines)}.",
            *(["Minutes are of this machine: these numbers compare with each other alone."] * bool(asked["minutes"])),
            *(["A run whose loss or features failed it is kept; delete its folder to try again."] * bool(failed)),
            *(f"Protocol: {told}" for told in protocols),
        ]  # fmt: skip

    @property
    def title(self) -> str:
        return f"Few labels on {self.data['name']}"

    def markdown(self) -> str:
        told = "".join(f"- {escaped(line)}\n" for line in self.caption)
        return f"# {escaped(self.title)}\n\n{as_markdown(self.table)}\n{told}"

    def page(self) -> str:
        """As HTML, with the chart."""
        made = self.data["synthetic"]
        synthetic = f"The images ({self.data['name']}) were rendered by a program; say so when you quote a number."
        table = self.table
        told = [*self.caption, *(f"{name}: {why}" for name, why in table.notes)]
        return render(self.title, self.chart, table.head, table.rows, told, synthetic if made else "")

    def as_dict(self) -> dict[str, Any]:
        cells = {
            way: {
                amount: {
                    "runs": [run.as_dict() for run in self.runs(way, amount)],
                    "accuracy": mean_and_std(values) if (values := self._values(way, amount)) else None,
                }
                for amount in self.amounts
            }
            for way in WAYS
        }
        return {
            "format": FORMAT,
            "stopgrad": __version__,
            "settings": dict(self.settings),
            "data": dict(self.data),
            "machines": self.machines,
            "labels": self.amounts,
            "images": self.images,
            "seeds": self.seeds,
            "chance": self.chance,
            "probes": self.probes,
            "caption": self.caption,
            "cells": cells,
        }

    def write(self) -> None:
        self.look()
        write_bytes(self.out / "fewlabels.json", as_json(self.as_dict()))
        write_bytes(self.out / "fewlabels.md", self.markdown().encode())
        if available():
            write_bytes(self.out / "fewlabels.html", self.page().encode())
