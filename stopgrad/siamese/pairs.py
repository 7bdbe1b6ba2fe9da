"""Which view predicts which: the (online, target) pairs an objective is summed over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

PairsName = Literal["symmetric", "asymmetric"]
AnyPairs = PairsName | Literal["asymmetric_2x"]
GLOBALS = 2  # crops something is compared with; the local crops of multi-crop are never targets


@dataclass(frozen=True, slots=True)
class Pairs:
    """(online view, target view) for each comparison; views are positions in `views.crops`."""

    both: tuple[tuple[int, int], ...]
    alone: tuple[int, ...] = ()  # online views that are compared with no view: InstDisc's, with its bank

    @property
    def online(self) -> tuple[int, ...]:
        """Views that need a forward with gradient, in order."""
        return tuple(sorted({online for online, _ in self.both} | set(self.alone)))

    @property
    def targets(self) -> tuple[int, ...]:
        """Views something is compared with, in order."""
        return tuple(sorted({target for _, target in self.both}))

    @property
    def unordered(self) -> tuple[tuple[int, int], ...]:
        """Each pair once, whichever way it stands: for a comparison that is the same both ways."""
        return tuple(dict.fromkeys((min(pair), max(pair)) for pair in self.both))

    @property
    def views(self) -> int:
        """How many crops a batch must have."""
        return 1 + max(self.online + self.targets)

    def __str__(self) -> str:
        if not self.both:
            return ", ".join(f"({view}, bank)" for view in self.alone)
        if len(self.online) > GLOBALS and len(self.targets) == GLOBALS:
            return "every crop, each global one but itself"
        return " ".join(f"({online},{target})" for online, target in self.both)


def pairs_of(name: AnyPairs, crops: int) -> Pairs:
    """The pairs of a method that is given `crops` crops, the first two of them global.

    symmetric: every crop with each global one but itself; of two crops (0,1) (1,0), of more the multi-crop of SwAV and
    DINO.  asymmetric: every crop but the second with the second; of two crops (0,1).  asymmetric_2x: of four crops
    (0,1) and (2,3), twice as many one-sided comparisons (SimSiam, section 4.6).
    """
    if name == "asymmetric_2x":
        return Pairs(((0, 1), (2, 3)))
    if name == "asymmetric":
        return Pairs(tuple((crop, 1) for crop in range(crops) if crop != 1))
    return Pairs(tuple((crop, target) for crop in range(crops) for target in range(GLOBALS) if crop != target))
