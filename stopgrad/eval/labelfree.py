"""Scores that need no label: can an image's other view be found, and how are the features spread.

Two views of each chosen test image are made as in training; row i of both is the same image. Effective rank and
uniformity are of the images as they are, alignment and retrieval of the views.
"""

from __future__ import annotations

from stopgrad.contracts import Result
from stopgrad.eval.task import Encoded, Task
from stopgrad.losses.geometry import alignment, effective_rank, retrieval_at_1, uniformity


def retrieval(encoded: Encoded, task: Task) -> list[Result]:
    n = len(encoded.first)
    how = f"a second view among those of {n} test {task.many}, by cosine; chance {100 / n:.3g}"
    return [task.result("retrieval_at_1", retrieval_at_1(encoded.first, encoded.second), n, how)]


def geometry(encoded: Encoded, task: Task) -> list[Result]:
    n, d = encoded.clean.shape
    rank = f"Roy & Vetterli 2007, centred features of {n} test {task.many}, {d} channels"
    aligned = f"Wang & Isola 2020 eq. 8, alpha=2, two views of {n} test {task.many}"
    spread = f"Wang & Isola 2020 eq. 9, t=2, all pairs of {n} test {task.many}"
    return [
        task.result("effective_rank", effective_rank(encoded.clean), n, rank),
        task.result("alignment", alignment(encoded.first, encoded.second), n, aligned),
        task.result("uniformity", uniformity(encoded.clean), n, spread),
    ]
