"""`simsiam/cifar10` on one GPU in pieces: train for so many minutes, continue in the next call, evaluate at the end.

    python -m benchmarks.gpu_cifar10 --data CIFAR10_DIR --out DIR --minutes 9 --epochs 200   # repeat until it says done

Writes DIR/gpu_cifar10.md: seconds an epoch, and kNN at k = 200, temperature 0.1, last epoch, nothing selected on test,
beside lightly's published 76.4 (SimSiam, 200 epochs, batch 512, k = 200; lightly reports the best epoch on test).
Needs neither cyclopts nor simplejpeg.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import threading
from pathlib import Path

import torch

from benchmarks.pairs import machine
from stopgrad.assemble import api
from stopgrad.assemble.train import Finished
from stopgrad.contracts import InterruptedRunError
from stopgrad.rundir import RunDir

NAME = "cifar10"
LIGHTLY = 76.4


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True, help="unpacked CIFAR-10, train/ and test/ with class folders")
    parser.add_argument("--out", type=Path, required=True, help="keeps the run between calls")
    parser.add_argument("--minutes", type=float, default=9.0, help="of this call")
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--set", nargs="*", default=[], help="settings, a.b=c")
    given = parser.parse_args()
    timer = threading.Timer(60 * given.minutes, lambda: os.kill(os.getpid(), signal.SIGTERM))
    timer.daemon = True
    timer.start()
    try:
        finished = go(given.data, given.out, given.epochs, given.set)
    except InterruptedRunError as error:
        print(f"{error}\nnot done yet: the same call goes on")
        return
    finally:
        timer.cancel()
    table = write(finished, given.out)
    print(f"done: {table}\n{table.read_text()}")


def go(data: str, out: Path, epochs: int, settings: list[str]) -> Finished:
    """Start the run, or go on with it."""
    if (out / NAME / "recipe.yaml").exists():
        return api.resume(out / NAME)
    wanted = ("loop.view_threads=4", "watch.knn_every_steps=2000", "watch.every_steps=500", *settings)
    options = api.Options(data=data, epochs=epochs, settings=wanted)
    return api.train("simsiam/cifar10", out=out, name=NAME, options=options)


def write(finished: Finished, out: Path) -> Path:
    """The table, from the log and the results."""
    rows = {row.name: row.value for row in finished.results}
    log = [line for line in RunDir(finished.path).read_log() if line.get("images_per_second")]
    speed = statistics.median(line["images_per_second"] for line in log)
    lines = [
        "| | this run | lightly, published |",
        "|---|---|---|",
        f"| kNN, k = 200, t = 0.1, last epoch | {rows.get('knn_top1_k200')} | {LIGHTLY} (best epoch on test) |",
        f"| kNN of the untrained backbone | {rows.get('baseline_random_knn_top1_k200')} | |",
        f"| linear (L-BFGS) | {rows.get('linear_top1')} | |",
        f"| seconds an epoch, median | {50_000 / speed:.2f} | |",
        "",
        f"{machine()}; torch {torch.__version__}; verdict {finished.diagnosis.verdict}; recipe: {NAME}/recipe.yaml.",
    ]
    path = out / "gpu_cifar10.md"
    path.write_text("\n".join(lines) + "\n")
    return path


if __name__ == "__main__":
    main()
