"""Run by test_taught.py in each of two processes: fine-tuning and distillation with half a batch each.

python two_taught.py RANK PORT OUT
"""

import os
import sys
from typing import Any

import torch
from torch import nn

from stopgrad import dist
from stopgrad.contracts import Clock, Views
from stopgrad.methods.taught import Taught
from stopgrad.nn.batch_norm import synchronise
from stopgrad.optim.config import OptimConfig
from stopgrad.optim.groups import build_optimiser
from tests.methods.taught import SETTINGS, batch, small_taught

STEPS, B = 2, 12


def trained(method: Taught, parallel: nn.Module, part: slice) -> dict[str, Any]:
    """Losses and gradients of each step, and what the method holds after the last."""
    optimiser = build_optimiser(method, OptimConfig(base_lr=2.0, weight_decay=0.0), B)
    out: dict[str, Any] = {"loss": [], "gradients": []}
    for step in range(STEPS):
        views = batch(step, B, torch.float64)
        loss = parallel(Views((views.crops[0][part],), views.index[part]), Clock(step, 10, 1, seed=1)).loss
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        out["loss"].append(float(dist.mean(loss.detach())))
        out["gradients"].append({name: p.grad.clone() for name, p in method.named_parameters() if p.grad is not None})
        optimiser.step()
    out["state"] = {name: value.detach().double().clone() for name, value in method.state_dict().items()}
    return out


def main(rank: int, port: int, path: str) -> None:
    torch.set_num_threads(1)
    answers: dict[str, dict[str, Any]] = {case: {} for case in SETTINGS}
    if rank == 0:
        for case in SETTINGS:
            method = small_taught(case).double()
            answers[case]["one"] = trained(method, method, slice(0, B))
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "WORLD_SIZE": "2"}
    dist.start("cpu")
    for case in SETTINGS:
        method = small_taught(case).double()
        synchronise(method)
        parallel = nn.parallel.DistributedDataParallel(method, broadcast_buffers=False)
        answers[case]["two"] = trained(method, parallel, slice(B // 2 * rank, B // 2 * (rank + 1)))
    torch.save(answers, path)
    dist.stop()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
