"""Settings of the optimiser. No torch here: settings are checked before it is imported."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal, get_args

from stopgrad.contracts import ConfigError, did_you_mean

Name = Literal["sgd", "lars", "adamw"]
Schedule = Literal["cosine", "steps"]
ClipScope = Literal["model", "tensor"]

# Settings that one choice reads and another does not: (field that chooses, its values that read, settings).
_READ_BY: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    ("name", ("sgd", "lars"), ("momentum",)),
    ("name", ("adamw",), ("betas",)),
    ("name", ("lars",), ("trust", "trust_clip")),
    ("schedule", ("cosine",), ("end",)),
    ("schedule", ("steps",), ("steps",)),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimConfig:
    """The optimiser and the way of its rates over the run. The defaults are SimSiam's (section 3): SGD on a cosine."""

    name: Name = "sgd"
    base_lr: float = 0.05  # for 256 images a step; scaled linearly with the batch
    momentum: float = 0.9  # read by sgd and lars
    betas: tuple[float, float] = (0.9, 0.999)  # read by adamw
    trust: float = 0.001  # read by lars: eta, a step's length over its tensor's; 0.02 in CIFAR recipes with trust_clip
    trust_clip: bool = False  # read by lars: no rate above the schedule's (LARC)
    weight_decay: float = 1e-4
    weight_decay_end: float | None = None  # a cosine from weight_decay to it, by step; DINO: 0.04 to 0.4
    # 1-D parameters are biases, norms and single numbers. Excluded in SimCLR, BYOL, Barlow Twins, VICReg, DINO and MoCo
    # v3 with a ResNet; not in SimSiam, UniGrad and SwAV.
    exclude_1d: bool = False  # they are neither decayed nor, by lars, adapted
    rate_1d: float = 1.0  # their learning rate over that of the others; Barlow Twins: 0.0048 / 0.2
    schedule: Schedule = "cosine"
    steps: tuple[tuple[float, float], ...] = ()  # (share of the run, rate from there on over the peak)
    end: float = 0.0  # read by cosine: rate at the end over the peak; VICReg, Barlow Twins, SwAV: 0.001
    warmup_epochs: float = 0.0  # SimSiam: 10 from batch 1024 on
    warmup_from: float = 0.0  # where the warm-up starts, over the peak; SwAV: 0.3 / 4.8
    clip_norm: float = 0.0  # largest gradient norm; 0 leaves gradients alone
    clip_scope: ClipScope = "model"  # whose norm: all gradients' as one vector, or each tensor's (DINO)

    def __post_init__(self) -> None:
        self._check_choices()
        self._check_ranges()
        self._check_steps()
        self._check_read()

    def _check_choices(self) -> None:
        for field, kind in (("name", Name), ("schedule", Schedule), ("clip_scope", ClipScope)):
            value, allowed = getattr(self, field), get_args(kind)
            if value not in allowed:
                raise ConfigError(f"optim.{field}: {value!r} is not a choice{did_you_mean(str(value), allowed)}")

    def _check_ranges(self) -> None:
        for field, usual in (("base_lr", "SimSiam uses 0.05"), ("trust", "0.001 is usual"), ("rate_1d", "1 is usual")):
            if getattr(self, field) <= 0:
                raise ConfigError(f"optim.{field} must be above 0, got {getattr(self, field)}; {usual}")
        for field, usual in (("momentum", "SimSiam uses 0.9"), ("warmup_from", "0 is usual")):
            if not 0 <= getattr(self, field) < 1:
                raise ConfigError(f"optim.{field} must be in [0, 1), got {getattr(self, field)}; {usual}")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ConfigError(f"optim.betas must be in [0, 1), got {self.betas}; (0.9, 0.999) is usual")
        if not 0 <= self.end <= 1:
            raise ConfigError(f"optim.end must be in [0, 1], got {self.end}; it is a share of the peak, 0 is usual")
        for field in ("weight_decay", "weight_decay_end", "warmup_epochs", "clip_norm"):
            if (getattr(self, field) or 0) < 0:
                raise ConfigError(f"optim.{field} must not be below 0, got {getattr(self, field)}")

    def _check_steps(self) -> None:
        example = "MoCo's are optim.steps=[[0.6, 0.1], [0.8, 0.01]]"
        if self.schedule == "steps" and not self.steps:
            raise ConfigError(f"optim.steps is empty and optim.schedule is steps: say when the rate drops; {example}")
        shares = [share for share, _ in self.steps]
        rising = all(early < late for early, late in zip([0.0, *shares], [*shares, 1.0]))
        if not rising or not all(0 < factor <= 1 for _, factor in self.steps):
            raise ConfigError(
                f"optim.steps must be pairs of a share of the run, rising, between 0 and 1, and a share of the peak in "
                f"(0, 1], got {[list(pair) for pair in self.steps]}; {example}"
            )

    def _check_read(self) -> None:
        """What is set has to be read by something."""
        for chooser, readers, fields in _READ_BY:
            chosen = getattr(self, chooser)
            for field in fields:
                if chosen not in readers and self._is_set(field):
                    raise ConfigError(
                        f"optim.{field}={getattr(self, field)} is read by {' and '.join(readers)} alone, "
                        f"optim.{chooser} is {chosen}; remove it or use optim.{chooser}={readers[0]}"
                    )
        for field, needed, usual in (("warmup_from", "warmup_epochs", 10), ("clip_scope", "clip_norm", 3)):
            if self._is_set(field) and not getattr(self, needed):
                raise ConfigError(
                    f"optim.{field}={getattr(self, field)} is read where optim.{needed} is above 0, which it is not; "
                    f"remove it or set optim.{needed}={usual}"
                )

    def _is_set(self, name: str) -> bool:
        """Whether a setting is anything but its default."""
        return any(field.name == name and field.default != getattr(self, name) for field in dataclasses.fields(self))

    def peak_lr(self, batch_size: int) -> float:
        """Linear scaling (Goyal et al. 2017): base_lr * batch / 256."""
        return self.base_lr * batch_size / 256
