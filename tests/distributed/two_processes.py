"""Run by test_two_processes.py in each of two processes: two steps with half a batch each, beside those of the whole.

python two_processes.py RANK PORT OUT
"""

import json
import os
import sys
from typing import Any, get_args

import torch
from torch import nn

from stopgrad import dist
from stopgrad.contracts import Clock, Views
from stopgrad.method import Method
from stopgrad.methods import METHODS
from stopgrad.methods.unigrad import Form
from stopgrad.nn.batch_norm import statistics, synchronise
from tests.methods.small import batch, small

CASES: dict[str, dict[str, Any]] = {
    **{name: {} for name in METHODS},
    "simsiam without stop-gradient": {"target": "shared"},
    "simsiam with a momentum target": {"target": "momentum"},
    "simsiam with a lagged target": {"target": "lagged", "lag": 2},
    "simsiam with a moving average": {"target": "average", "predictor": "none", "average_first": "random"},
    "simclr with a predictor and stop-gradient": {"predictor": "mlp", "target": "stop_gradient"},
    "simclr with a momentum target": {"target": "momentum", "target_momentum": 0.9},
    "simclr by yes and no": {"loss": "nt_logistic", "semi_hard": True},
    "simclr by a margin": {"loss": "margin"},
    "invaspread with detached keys": {"detach_keys": True},
    "moco_v2 in more groups": {"bn_splits": 4, "queue_size": 40},
    "moco_v1 with a queue that wraps": {"queue_size": 17},
    # with a queue of one batch, the second step's codes are made with the first's features
    "swav with a queue": {"queue_size": 12},
    "swav with gradient through its codes": {"codes": "flow", "queue_size": 12},
    "swav with a predictor": {"predictor": "mlp", "predictor_hidden": 5, "queue_size": 12},
    "instdisc with the full softmax": {"negatives": 0, "bank_momentum": 0.5, "proximal": 0.3},
    "directpred by DirectCopy": {"form": "directcopy"},
    "byol without its slow copy": {"target": "stop_gradient"},
    "byol with a symmetric matrix": {"predictor": "symmetric", "predictor_rate": 10.0},
    "unigrad without its slow copy": {"target": "stop_gradient"},
    **{
        f"unigrad as {form.replace('_', ' ')}": {"form": form, "negative_weight": 0.5}
        for form in get_args(Form)
        if form != "correlation"
    },
    "unigrad with CutMix": {"cut_mix": 0.7},
    "unigrad with CutMix and no slow copy": {"cut_mix": 1.0, "target": "stop_gradient"},
    "unigrad with negatives of its own": {"negatives": "online"},
    "directpred, trained in between": {"every": 2},
    "clip by the sigmoid": {"loss": "sigmoid"},
    "cpc of all candidates": {"drawn": 0},
    "cpc from four sides": {"directions": 4, "steps": 1, "skip": 1},
    "cpc among other sequences": {"drawn": 0, "negatives": "other_sequences"},
    "cpc among its own": {"drawn": 0, "negatives": "own_sequence"},
    "cpc in a group": {"drawn": 0, "negatives": "same_group"},
    "cpc among others of a group": {"drawn": 0, "negatives": "same_group_others"},
    "cpc of sentences": {"sentences": True},
    "cpc of sentences, all candidates": {"sentences": True, "drawn": 0},
    "simclr_v2 with a queue that wraps": {"queue_size": 40},
    "simclr_v2 with a slow copy alone": {"queue_size": 0, "momentum": 0.999},
    "simclr_v2, both directions": {"directions": "sum"},
}
STEPS, B = 2, 12


def method_of(case: str) -> str:
    return case.split()[0].removesuffix(",")


def build(case: str) -> Method:
    return small(method_of(case), **CASES[case]).double()


def trained(method: Method, parallel: nn.Module, case: str, part: slice) -> dict[str, Any]:
    """Losses and gradients of each step, and what the method holds after the last: float64 tensors by name."""
    optimiser = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.1)
    out: dict[str, Any] = {"loss": [], "gradients": []}
    for step in range(STEPS):
        views = batch(method_of(case), step, B, torch.float64, sentences=CASES[case].get("sentences", False))
        views = Views(tuple(crop[part] for crop in views.crops), views.index[part])
        clock = Clock(step, 10, 1, seed=1)  # an epoch a step: what is frozen in the first is trained in the second
        loss = parallel(views, clock).loss
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        method.before_step(clock)
        out["loss"].append(float(dist.mean(loss.detach())))
        out["gradients"].append(
            {name: p.grad.clone() for name, p in method.named_parameters() if p.grad is not None},
        )
        optimiser.step()
        method.after_step(clock)
    shared = {id(buffer) for buffer in statistics(method)} if not method.syncs_batch_norm else set()
    state = method.state_dict(keep_vars=True)
    out["state"] = {name: value.detach().double() for name, value in state.items() if id(value) not in shared}
    return out


def main(rank: int, port: int, path: str) -> None:
    torch.set_num_threads(1)
    answers: dict[str, dict[str, Any]] = {case: {} for case in CASES}
    if rank == 0:
        for case in CASES:
            method = build(case)
            answers[case]["one"] = trained(method, method, case, slice(0, B))
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "WORLD_SIZE": "2"}
    dist.start("cpu")
    said: dict[str, Any] = {"any": dist.any_of(rank == 1), "first": dist.from_first(7 + rank)}
    for case in CASES:
        method = build(case)
        if method.syncs_batch_norm:
            synchronise(method)
        parallel = nn.parallel.DistributedDataParallel(method, broadcast_buffers=False)
        answers[case]["two"] = trained(method, parallel, case, slice(B // 2 * rank, B // 2 * (rank + 1)))
    torch.save(answers, path)
    x = torch.full((2, 1), float(rank + 1), dtype=torch.float64, requires_grad=True)
    (dist.gather(x) * torch.arange(1.0, 5.0, dtype=torch.float64)[:, None]).sum().backward()
    assert x.grad is not None
    said["gather"] = x.grad.flatten().tolist()
    said["gathered"] = dist.gather(x.detach()).flatten().tolist()
    print(json.dumps(said))
    dist.stop()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
