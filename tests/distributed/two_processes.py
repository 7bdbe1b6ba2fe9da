"""Run by test_two_processes.py in each of two processes: gradients of half a batch each, beside those of the whole.

python two_processes.py RANK PORT
"""

import json
import os
import sys
from typing import Any

import torch
from torch import nn

from stopgrad import dist
from stopgrad.contracts import Clock, Known, Views
from stopgrad.method import Method
from stopgrad.methods import METHODS
from stopgrad.nn.backbones import build_backbone
from stopgrad.nn.batch_norm import statistics, synchronise
from stopgrad.nn.config import BackboneConfig
from stopgrad.recipe.typed import build

SIZE = {"projector": {"hidden": 12, "dim": 12}, "predictor_hidden": 4}
CASES: dict[str, dict[str, Any]] = {
    "simsiam": SIZE,
    "simsiam without stop-gradient": {**SIZE, "target": "shared"},
    "simsiam with a momentum target": {**SIZE, "target": "momentum"},
}


def small(case: str) -> Method:
    builder, config = METHODS[case.split()[0]]
    torch.manual_seed(0)
    backbone = build_backbone(BackboneConfig(width=8), 3, 16, seed=0)
    known = Known(crops=(16, 16), batch_size=12, accumulate=1, backbone="tiny", images=24)
    method: Method = builder(backbone, build(config, CASES[case]), known).double()
    for module in method.modules():  # the zero scale would hide what stands before it
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return method


def gradients(method: Method, module: nn.Module, views: Views) -> tuple[float, list[list[float]]]:
    out = module(views, Clock(0, 10, 5))
    out.loss.backward()
    loss = float(dist.mean(out.loss.detach()))
    return loss, [p.grad.flatten().tolist() for p in method.parameters() if p.grad is not None]


def main(rank: int, port: int) -> None:
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(1)
    crops = tuple(torch.randn(12, 3, 16, 16, generator=generator, dtype=torch.float64) for _ in range(2))
    alone: dict[str, Any] = {}
    if rank == 0:
        for case in CASES:
            method = small(case)
            loss, grads = gradients(method, method, Views(crops, torch.arange(12)))
            alone[case] = (loss, grads, [buffer.double().flatten().tolist() for buffer in statistics(method)])
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "WORLD_SIZE": "2"}
    dist.start("cpu")
    answers: dict[str, Any] = {"any": dist.any_of(rank == 1), "first": dist.from_first(7 + rank)}
    half = slice(6 * rank, 6 * rank + 6)
    for case in CASES:
        method = small(case)
        synchronise(method)
        parallel = nn.parallel.DistributedDataParallel(method, broadcast_buffers=False)
        views = Views(tuple(crop[half] for crop in crops), torch.arange(12)[half])
        loss, grads = gradients(method, parallel, views)
        stats = [buffer.double().flatten().tolist() for buffer in statistics(method)]
        answers[case] = {"two": (loss, grads, stats), "one": alone.get(case)}
    x = torch.full((2, 1), float(rank + 1), dtype=torch.float64, requires_grad=True)
    (dist.gather(x) * torch.arange(1.0, 5.0, dtype=torch.float64)[:, None]).sum().backward()
    assert x.grad is not None
    answers["gather"] = x.grad.flatten().tolist()
    answers["gathered"] = dist.gather(x.detach()).flatten().tolist()
    print(json.dumps(answers))
    dist.stop()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
