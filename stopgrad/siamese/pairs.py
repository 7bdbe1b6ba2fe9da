"""Which view predicts which: the (online, target) pairs an objective is summed over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

PairsName = Literal["symmetric", "asymmetric"]


@dataclass(frozen=True, slots=True)
class Pairs:
    """(online view, target view) for each comparison; views are positions in `views.crops`."""

    both: tuple[tuple[int, int], ...]

    @property
    def online(self) -> tuple[int, ...]:
        """Views that need a forward with gradient, in order."""
        return tuple(sorted({online for online, _ in self.both}))

    @property
    def targets(self) -> tuple[int, ...]:
        """Views something is compared with, in order."""
        return tuple(sorted({target for _, target in self.both}))

    @property
    def views(self) -> int:
        """How many crops a batch must have."""
        return 1 + max(self.online + self.targets)


PAIRS: dict[PairsName, Pairs] = {
    "symmetric": Pairs(((0, 1), (1, 0))),
    "asymmetric": Pairs(((0, 1),)),
}
