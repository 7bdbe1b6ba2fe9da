"""A comparison of methods as far as it has come: its runs, its table, and what is to be known to read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stopgrad.contracts import StopgradError
from stopgrad.rundir import RunDir, as_json, write_bytes
from stopgrad.study.measured import FAILED, FINISHED, TO_COME, Run, read_finished
from stopgrad.study.plan import VIEWS_OF
from stopgrad.study.table import Table, as_markdown, escaped, numbers, table
from stopgrad.version import __version__

FORMAT = 1


def run_name(method: str, seed: int) -> str:
    return f"{method}-{seed}"


@dataclass(kw_only=True)
class Comparison:
    """The table as far as it is, and what is to be known about it."""

    out: Path
    methods: list[str]
    seeds: int
    settings: Mapping[str, Any]
    data: Mapping[str, Any]  # name, synthetic, train, test, fingerprint
    machines: list[str]
    refused: Mapping[str, str]  # methods without a recipe, and why
    ended: dict[str, str] = field(default_factory=dict)  # runs that failed in this session, and why
    done: dict[str, Run] = field(default_factory=dict)  # runs that were read: what is finished stays as it is

    @property
    def rows(self) -> dict[str, list[Run]]:
        """The runs of each method, one a seed."""
        return {method: [self.run(method, seed) for seed in range(self.seeds)] for method in self.methods}

    def run(self, method: str, seed: int) -> Run:
        """What is there of one run."""
        name = run_name(method, seed)
        if method in self.refused:
            return Run(state=FAILED, seed=seed, why=self.refused[method])
        if name not in self.done:
            try:
                self.done[name] = read_finished(self.out / name, shown=name, seed=seed)[0]
            except StopgradError as error:
                state = RunDir(self.out / name).state()
                said = {"failed": str(state.get("message", "")), "finished": str(error)}
                why = self.ended.get(name) or said.get(str(state.get("state")), "")
                return Run(state=FAILED if why else TO_COME, seed=seed, path=name, why=why)
        return self.done[name]

    @property
    def table(self) -> Table:
        return table(self.rows, "method")

    @property
    def finished(self) -> int:
        return sum(run.state == FINISHED for runs in self.rows.values() for run in runs)

    @property
    def caption(self) -> list[str]:
        """Sentences without which the numbers can't be read."""
        data, asked = self.data, self.settings
        total = len(self.methods) * self.seeds
        minutes, preset = asked["minutes"], asked["recipe"]
        budget = f"{minutes:g} minutes of training" if minutes else f"{asked['epochs']} epochs"
        runs = [run for row in self.rows.values() for run in row]
        failed = sum(run.state == FAILED for run in runs)
        own = "each method has the views of its own preset"
        equal = (
            f"equal, every method has the two views of {VIEWS_OF}/{preset} (a method that takes one has the first; "
            "none has small crops)"
        )
        also = [f"backbone {asked['backbone']}"] if asked["backbone"] else []
        also += [f"--set {setting}" for setting in asked["set"]]
        protocols = dict.fromkeys(run.protocol for run in runs if run.protocol)
        return [
            f"{self.finished} of {total} runs are finished{f', {failed} failed' if failed else ''}."
            + ("" if self.finished + failed == total else " The table is not complete."),
            f"Data: {data['name']}{' (synthetic)' if data['synthetic'] else ''}, {data['train']:,} training and "
            f"{data['test']:,} test images, {data['fingerprint']}.",
            f"Budget: {budget} a run. Views: {equal if asked['views'] == 'equal' else own}.",
            f"Settings: METHOD/{preset}{', ' if also else ''}{', '.join(also)}; all else is the preset's "
            "(recipes/METHOD.yaml).",
            f"Seeds: {self.seeds} a method; numbers are means, ± the standard deviation over seeds (n - 1). "
            "random: the same backbone untrained; pixels: raw pixels.",
            "Labels were used for kNN and the linear probe alone, after training.",
            f"Machine: {'; '.join(self.machines)}.",
            *(["Minutes are of this machine: these numbers compare with each other alone."] * bool(minutes)),
            *(["A run whose loss or features failed it is kept; delete its folder to try again."] * bool(failed)),
            *(f"Protocol: {told}" for told in protocols),
        ]  # fmt: skip

    def markdown(self) -> str:
        told = "".join(f"- {escaped(line)}\n" for line in self.caption)
        return f"# Methods on {escaped(self.data['name'])}\n\n{as_markdown(self.table)}\n{told}"

    def as_dict(self) -> dict[str, Any]:
        rows = {
            method: {
                "runs": [run.as_dict() for run in runs],
                "scores": numbers([run for run in runs if run.state == FINISHED]),
            }
            for method, runs in self.rows.items()
        }
        return {
            "format": FORMAT,
            "stopgrad": __version__,
            "settings": dict(self.settings),
            "data": dict(self.data),
            "machines": self.machines,
            "methods": self.methods,
            "seeds": self.seeds,
            "caption": self.caption,
            "rows": rows,
        }

    def write(self) -> None:
        write_bytes(self.out / "compare.json", as_json(self.as_dict()))
        write_bytes(self.out / "compare.md", self.markdown().encode())
