"""What a study is: rows of a paper's table, each a change of a recipe, and what the paper says of them. Data alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from stopgrad.contracts import ConfigError
from stopgrad.study.lab.claims import Claim

Scale = Literal["tiny", "small", "paper"]
SCALES: tuple[Scale, ...] = get_args(Scale)
PRESET: dict[Scale, str] = {"tiny": "scenes", "small": "cifar10", "paper": "imagenet"}
EPOCHS: dict[Scale, int] = {"tiny": 8, "small": 100, "paper": 100}  # tiny: about a minute on two cores
DENSE = ("watch.every_steps=50", "watch.knn_every_steps=150")  # where it is the curves that tell
NOT_READ = "source not read"  # stands where a paper has a number that we have not seen in the paper itself


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """A row: the study's recipe with `settings`."""

    name: str  # as the paper calls it
    settings: tuple[str, ...] = ()  # a.b=c, after the study's own
    method: str = ""  # of METHODS; "": the study's
    paper: float | str | None = None  # its number there, or words; None: the paper has no such row
    scales: tuple[Scale, ...] = SCALES  # where it is run
    views: int = 2  # how many times the first view's law is drawn
    local: int = 0  # crops of half the side and a small part of the image beside them (multi-crop)
    epochs: float = 1.0  # of the scale's


@dataclass(frozen=True, kw_only=True, slots=True)
class Study:
    """A table of a paper, and its claims."""

    name: str  # PAPER/WHAT, as it is typed
    title: str
    question: str
    source: str  # paper and table
    measured: str  # what the paper's numbers are
    method: str
    cases: tuple[Case, ...]
    claims: tuple[Claim, ...]
    settings: tuple[str, ...] = ()  # of every case
    curves: tuple[str, ...] = ("loss", "std_ratio", "knn_top1")  # fields of the log that the page draws
    decisive: bool = False  # whether the paper calls its claims so: three seeds, not one

    def __post_init__(self) -> None:
        names = [case.name for case in self.cases]
        if len(set(names)) < len(names):
            raise ConfigError(f"study {self.name}: two cases have one name, {', '.join(names)}")
        unknown = [name for claim in self.claims for name in claim.cases if name not in names]
        if unknown:
            raise ConfigError(f"study {self.name}: claims speak of {unknown[0]!r}, the cases are {', '.join(names)}")

    @property
    def seeds(self) -> int:
        """How many, where nobody says."""
        return 3 if self.decisive else 1
