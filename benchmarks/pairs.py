"""Two ways of doing one thing, timed in turns: the machines are noisy, so only ratios within one run count."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

ROUNDS = 5


@dataclass(frozen=True)
class Pair:
    """Ours beside a rival, as rates (more is better); ratio is the median over rounds, low and high its range."""

    name: str
    ours: float
    rival: float
    rival_name: str
    unit: str
    ratio: float
    low: float
    high: float
    machine: str
    versions: str

    def row(self) -> str:
        return (
            f"| {self.name} | {self.ours:,.4g} | {self.rival:,.4g} ({self.rival_name}) | {self.unit} "
            f"| {self.ratio:.2f} | {self.low:.2f} to {self.high:.2f} |"
        )

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def compare(
    name: str, unit: str, count: float, ours: Callable[[], object], rival: Callable[[], object], rival_name: str
) -> Pair:
    """Run both once to warm up, then in turns; `count` things are done by one call."""
    ours(), rival()
    rates: list[tuple[float, float]] = []
    for _ in range(ROUNDS):
        rates.append((count / seconds(ours), count / seconds(rival)))
    ratios = [a / b for a, b in rates]
    return Pair(
        name=name,
        ours=statistics.median(a for a, _ in rates),
        rival=statistics.median(b for _, b in rates),
        rival_name=rival_name,
        unit=unit,
        ratio=statistics.median(ratios),
        low=min(ratios),
        high=max(ratios),
        machine=machine(),
        versions=versions(),
    )


def seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def machine() -> str:
    import os

    import torch

    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    return f"{platform.machine()}, {os.cpu_count()} cores, {name}"


def versions() -> str:
    import cv2
    import sklearn
    import torch
    import torchvision

    return (
        f"Python {platform.python_version()}, torch {torch.__version__}, torchvision {torchvision.__version__}, "
        f"OpenCV {cv2.__version__}, scikit-learn {sklearn.__version__}"
    )
