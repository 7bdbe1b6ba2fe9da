"""Two ways of doing one thing, timed in turns: the machines are noisy, so only ratios within one run count."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

ROUNDS = 5
LIBRARIES = (
    "torch",
    "torchvision",
    "opencv-python-headless",
    "pillow",
    "simplejpeg",
    "scikit-learn",
    "lightly",
    "pytorch-lightning",
    "kornia",
)


@dataclass(frozen=True, kw_only=True)
class Goal:
    """What a measure must reach, and from where on it is remarkable: of the ratio, or of `ours` where no rival is."""

    floor: float
    target: float
    at: Literal["least", "most"] = "least"

    def met(self, value: float) -> str:
        """`target`, `floor` or `no`."""
        reached = [value >= wanted if self.at == "least" else value <= wanted for wanted in (self.floor, self.target)]
        return "target" if reached[1] else "floor" if reached[0] else "no"


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Ours beside a rival. Rates (more is better) unless `unit` is seconds, MB or a share.

    ratio: median over rounds of ours / rival, low and high its range; without a rival those three are None, and low
    and high the range of `ours`.  floor, target: of the ratio, or of `ours` without a rival; `at` says least or most.
    """

    name: str
    ours: float
    rival: float | None
    rival_name: str
    unit: str
    ratio: float | None
    low: float
    high: float
    floor: float | None = None
    target: float | None = None
    at: str = "least"
    note: str = ""
    machine: str = ""
    versions: str = ""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def reached(self) -> str:
        """`target`, `floor`, `no`, or "" where nothing was set."""
        if self.floor is None or self.target is None:
            return ""
        value = self.ours if self.ratio is None else self.ratio
        return Goal(floor=self.floor, target=self.target, at="most" if self.at == "most" else "least").met(value)


def compare(
    name: str,
    unit: str,
    count: float,
    ours: Callable[[], object],
    rival: Callable[[], object],
    rival_name: str,
    *,
    goal: Goal | None = None,
    note: str = "",
    rounds: int = ROUNDS,
) -> Pair:
    """Run both once to warm up, then in turns; `count` things are done by one call, so the figures are rates."""
    ours(), rival()
    rates = [(count / seconds(ours), count / seconds(rival)) for _ in range(rounds)]
    return paired(name, unit, rates, rival_name, goal=goal, note=note)


def paired(
    name: str,
    unit: str,
    rounds: list[tuple[float, float]],
    rival_name: str,
    *,
    goal: Goal | None = None,
    note: str = "",
) -> Pair:
    """From figures taken elsewhere, (ours, rival) of every round."""
    ratios = [a / b for a, b in rounds]
    return Pair(
        name=name,
        ours=statistics.median(a for a, _ in rounds),
        rival=statistics.median(b for _, b in rounds),
        rival_name=rival_name,
        unit=unit,
        ratio=statistics.median(ratios),
        low=min(ratios),
        high=max(ratios),
        **_goal(goal),
        note=note,
        machine=machine(),
        versions=versions(),
    )


def alone(name: str, unit: str, values: list[float], *, goal: Goal | None = None, note: str = "") -> Pair:
    """A figure of ours that has no rival: its median and range."""
    return Pair(
        name=name,
        ours=statistics.median(values),
        rival=None,
        rival_name="",
        unit=unit,
        ratio=None,
        low=min(values),
        high=max(values),
        **_goal(goal),
        note=note,
        machine=machine(),
        versions=versions(),
    )


def _goal(goal: Goal | None) -> dict[str, Any]:
    return {} if goal is None else asdict(goal)


def seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def machine() -> str:
    """Processor, cores, what it has for bfloat16, GPU."""
    import torch

    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    try:
        facts = Path("/proc/cpuinfo").read_text()
    except OSError:
        facts = ""
    model = next((line.partition(": ")[2] for line in facts.splitlines() if line.startswith("model name")), "CPU")
    special = [name for name in ("avx512_bf16", "amx_bf16") if name in facts]
    return ", ".join([model, f"{os.cpu_count()} cores", *special]) + gpu


def versions() -> str:
    found = [f"Python {platform.python_version()}"]
    for library in LIBRARIES:
        try:
            found.append(f"{library} {importlib.metadata.version(library)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return ", ".join(found)
