"""LARS: SGD with momentum whose step in each tensor is as long as a fixed share of the tensor (arXiv:1708.03888).

    u = g + weight_decay w
    q = trust |w| / |u|                                                     trust_clip off
    q = min(trust |w| / (|g| + weight_decay |w|) / lr, 1)                   trust_clip on (LARC)
    v <- momentum v + q u,   w <- w - lr v

q is 1 where either norm is 0, and in groups with `adapt` False.

References: without clipping google-research/simclr lars_optimizer.py and facebookresearch/moco-v3 moco/optimizer.py
(Barlow Twins, VICReg and BYOL have the same q); with it apex/parallel/LARC.py and solo-learn's LARS.
Differs from them: the learning rate multiplies the velocity, as in PyTorch's SGD and all of these but SimCLR's, which
has it inside v (the same while it does not change). SwAV's LARC does not clip and has clipping's denominator; the two
are at most 2 weight_decay |w| apart, and its weight decay is 1e-6. LARC leaves a tensor whose gradient is 0 undecayed
and adds 1e-8 to the denominator; here the formula holds as it stands.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor


class Lars(torch.optim.Optimizer):
    """See the module. Groups hold lr, momentum, weight_decay, trust, trust_clip and adapt.

    A parameter without a gradient is left as it is, its velocity too. Nothing waits for the device.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        *,
        lr: float,
        momentum: float,
        weight_decay: float,
        trust: float,
        trust_clip: bool = False,
        adapt: bool = True,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "momentum": momentum,
                "weight_decay": weight_decay,
                "trust": trust,
                "trust_clip": trust_clip,
                "adapt": adapt,
            },
        )

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]  # no closure: nobody evaluates a loss twice a step
        for group in self.param_groups:
            weights = [p for p in group["params"] if p.grad is not None]
            if weights:
                self._step(weights, group)

    def _step(self, weights: list[Tensor], group: dict[str, Any]) -> None:
        gradients = [w.grad for w in weights if w.grad is not None]
        updates = list(torch._foreach_add(gradients, weights, alpha=group["weight_decay"]))
        if group["adapt"]:
            torch._foreach_mul_(updates, _ratios(weights, gradients, updates, group))
        if group["momentum"]:
            velocities = [self._velocity(w) for w in weights]
            torch._foreach_mul_(velocities, group["momentum"])
            torch._foreach_add_(velocities, updates)
            updates = velocities
        torch._foreach_add_(weights, updates, alpha=-group["lr"])

    def _velocity(self, weight: Tensor) -> Tensor:
        state = self.state[weight]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(weight)
        found: Tensor = state["momentum_buffer"]
        return found


def _ratios(
    weights: list[Tensor], gradients: list[Tensor], updates: list[Tensor], group: dict[str, Any]
) -> list[Tensor]:
    """q of each tensor."""
    length = torch.stack(torch._foreach_norm(weights))  # [tensors]
    if group["trust_clip"]:
        step = torch.stack(torch._foreach_norm(gradients)) + group["weight_decay"] * length
        ratios = (group["trust"] * length / step / group["lr"]).clamp(max=1.0)
    else:
        step = torch.stack(torch._foreach_norm(updates))
        ratios = group["trust"] * length / step
    return list(torch.where((length > 0) & (step > 0), ratios, torch.ones_like(ratios)).unbind())
