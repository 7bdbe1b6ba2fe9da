"""Settings of the optimiser."""

from __future__ import annotations

from dataclasses import dataclass

from stopgrad.contracts import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimConfig:
    """SGD with momentum on a cosine (SimSiam, section 3)."""

    base_lr: float = 0.05  # for 256 images a step; scaled linearly with the batch
    momentum: float = 0.9
    weight_decay: float = 1e-4  # on every parameter, batch norm and biases too, as the paper has it
    warmup_epochs: float = 0.0  # the paper: 10 from batch 1024 on
    clip_norm: float = 0.0  # largest gradient norm; 0 leaves gradients alone

    def __post_init__(self) -> None:
        if self.base_lr <= 0:
            raise ConfigError(f"optim.base_lr must be above 0, got {self.base_lr}; the paper uses 0.05")
        if not 0 <= self.momentum < 1:
            raise ConfigError(f"optim.momentum must be in [0, 1), got {self.momentum}; the paper uses 0.9")
        for name in ("weight_decay", "warmup_epochs", "clip_norm"):
            if getattr(self, name) < 0:
                raise ConfigError(f"optim.{name} must not be below 0, got {getattr(self, name)}")

    def peak_lr(self, batch_size: int) -> float:
        """Linear scaling (Goyal et al. 2017): base_lr * batch / 256."""
        return self.base_lr * batch_size / 256
