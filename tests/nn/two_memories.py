"""Run by test_memory.py in each of two processes: what is remembered when each stages its half of every batch.

python two_memories.py RANK PORT
"""

import json
import os
import sys
from typing import Any

import torch
import torch.nn.functional as F

from stopgrad import dist
from stopgrad.contracts import ConfigError
from stopgrad.nn.memory import Bank, MovingAverage, Queue

BATCH, STEPS = 4, 3


def remembered(rank: int, world: int) -> dict[str, Any]:
    """Two views a step, the batch in slices by rank; an image in both halves; a ring that the batch does not divide."""
    generator = torch.Generator().manual_seed(1)
    queue, bank = Queue(11, 3, seed=0), Bank(6, 3, seed=0)
    average = MovingAverage([3], 0.9, first_batch_initialises=True)
    mine = slice(rank * BATCH // world, (rank + 1) * BATCH // world)
    coming = []
    for _ in range(STEPS):
        for _ in range(2):
            keys = F.normalize(torch.randn(BATCH, 3, generator=generator), dim=1)
            index = torch.tensor([3, 1, 3, 5])
            queue.stage(keys[mine])
            bank.stage(index[mine], keys[mine])
            average.stage(keys[mine].mean(0))
            coming += average.with_batch(keys[mine].mean(0)).tolist()
        for memory in (queue, bank, average):
            memory.commit()
    queue.discard()
    refused = ""
    try:
        queue.stage(torch.zeros(6, 3))
    except ConfigError as error:
        refused = str(error).partition(":")[0]
    return {
        "keys": queue.keys.flatten().tolist(),
        "cursor": [int(queue.cursor), queue.filled()],
        "bank": bank.vectors.flatten().tolist(),
        "average": average.value.tolist(),
        "coming": coming,
        "refused": refused,
    }


def main(rank: int, port: int) -> None:
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "WORLD_SIZE": "2"}
    dist.start("cpu")
    answer = remembered(rank, 2)
    dist.stop()
    print(json.dumps(answer))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
