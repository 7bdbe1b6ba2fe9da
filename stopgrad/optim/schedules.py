"""What a step's learning rate and weight decay are: shares of the run in, shares of the peak out. No state, no torch.

Everything moves every step, where some references (SimSiam, MoCo) move the learning rate every epoch.
"""

from __future__ import annotations

import math

from stopgrad.contracts import Clock
from stopgrad.optim.config import OptimConfig


def warm_up(clock: Clock, config: OptimConfig) -> float:
    """Share of the peak by the warm-up alone: from `warmup_from` in equal steps to 1, which its last step has.

    `warmup_from` itself stands before the first step, so a warm-up from 0 has no step without a rate.
    """
    steps = _warm_up_steps(clock, config)
    if clock.step >= steps:
        return 1.0
    return config.warmup_from + (1 - config.warmup_from) * (clock.step + 1) / steps


def share(clock: Clock, config: OptimConfig) -> float:
    """Share of the peak: the warm-up, then half a cosine from 1 to `end`, or the factor of the last of `steps`."""
    begin = _warm_up_steps(clock, config)
    if clock.step < begin:
        return warm_up(clock, config)
    if config.schedule == "steps":
        # rounded to whole steps: 0.07 * 100 is a little above 7
        passed = [factor for share, factor in config.steps if clock.step >= round(share * clock.total_steps)]
        return passed[-1] if passed else 1.0
    return config.end + (1 - config.end) * _half_cosine((clock.step - begin) / max(1, clock.total_steps - begin))


def weight_decay(clock: Clock, config: OptimConfig) -> float:
    """Half a cosine over the whole run from `weight_decay` to `weight_decay_end` (DINO), where there is one."""
    if config.weight_decay_end is None:
        return config.weight_decay
    fall = config.weight_decay - config.weight_decay_end
    return config.weight_decay_end + fall * _half_cosine(clock.progress)


def _warm_up_steps(clock: Clock, config: OptimConfig) -> int:
    return round(config.warmup_epochs * clock.steps_per_epoch)


def _half_cosine(done: float) -> float:
    """1 at 0, 0 at 1."""
    return 0.5 * (1 + math.cos(math.pi * done))
