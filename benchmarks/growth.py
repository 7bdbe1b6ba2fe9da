"""Does a run slow down or swell with its data? 1x, 4x and 16x as many images, each in a process of its own, in turns.

    python -m benchmarks.growth --store ARCHIVE ...      fills the stores
    python -m benchmarks.growth ARCHIVE [SETTING ...]    one run that takes orders on its standard input

The images are PNGs in zip archives, drawn here and all different; they go the way of any archive, through the packed
store. What is timed and weighed is the run on the store that is there.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch

from benchmarks.ours import OurLoop, Side, in_turns, settle
from benchmarks.pairs import ROUNDS, Goal, Pair, paired
from stopgrad.data import DataConfig, open_data
from stopgrad.recipe.text import override
from stopgrad.recipes import recipe_named

CLASSES = 10
TEST = 200  # images, whatever the size: nothing of the loop reads them
WEIGHED_STEPS = 20
SPEED = Goal(floor=0.90, target=0.95)
MEMORY = Goal(floor=1.10, target=1.05, at="most")


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much data, and how long to measure."""

    images: tuple[int, ...] = (2_000, 8_000, 32_000)  # the first is what the others are compared with
    seconds: float = 5.0  # of a side's round
    rounds: int = ROUNDS
    weighings: int = 3  # processes of each size whose memory is read: one in ten has 15 % more, whatever the size
    # the monitors look at as many images whatever there is: of 2,000 a tenth and what is left, by default
    settings: tuple[str, ...] = ("watch={images: 128, knn_bank: 1024}",)


FULL = Sizes()


def growth(sizes: Sizes = FULL) -> list[Pair]:
    """Images/s and peak memory of `simsiam/scenes` on more and more images."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        place = Path(folder)
        archives = {count: place / f"{count}.zip" for count in sizes.images}
        for count, archive in archives.items():
            write_archive(archive, count)
        environment = {**os.environ, "STOPGRAD_CACHE": str(place / "cache")}
        subprocess.run([*_python(), "--store", *map(str, archives.values())], env=environment, check=True)
        children = {
            count: stack.enter_context(closing(Child(archive, sizes.settings, environment)))
            for count, archive in archives.items()
        }
        sides: dict[str, Side] = {str(count): child for count, child in children.items()}
        times = in_turns(sides, sizes.seconds, sizes.rounds)
        # after the first epoch every page of the store has been mapped
        memory = [{count: child.memory(count // child.batch) for count, child in children.items()}]
        for _ in range(1, sizes.weighings):
            memory.append({count: weighed(archives[count], sizes, environment) for count in sizes.images})
    rates = {count: [children[count].batch / seconds for seconds in times[str(count)]] for count in sizes.images}
    return [*_speeds(rates), *_memories(memory, "own"), *_memories(memory, "device")]


def weighed(archive: Path, sizes: Sizes, environment: dict[str, str]) -> dict[str, float]:
    with closing(Child(archive, sizes.settings, environment)) as child:
        return child.memory(0)


def _speeds(rates: dict[int, list[float]]) -> list[Pair]:
    few, *more = rates
    return [
        paired(
            f"images/s of a run on {count / few:g} times the images",
            "images/s",
            list(zip(rates[count], rates[few])),
            f"a run on {few:,}",
            goal=SPEED,
            note=f"tiny as `simsiam/scenes` has it, {count:,} images of 32 px in the store",
        )
        for count in more
    ]


def _memories(memory: list[dict[int, dict[str, float]]], kind: str) -> list[Pair]:
    few, *more = memory[0]
    if kind not in memory[0][few]:
        return []
    what, note = "peak memory of the GPU", ""
    if kind == "own":
        everything = ", ".join(f"{found['resident']:,.0f} MB on {count:,}" for count, found in memory[0].items())
        what = "peak memory"
        note = (
            "resident, without the pages of the store that are mapped: the kernel takes those back when it needs them; "
            f"with them, after a whole epoch, {everything}"
        )
    return [
        paired(
            f"{what} of a run on {count / few:g} times the images",
            "MB",
            [(found[count][kind], found[few][kind]) for found in memory],
            f"a run on {few:,}",
            goal=MEMORY,
            note=note,
        )
        for count in more
    ]


def write_archive(path: Path, count: int) -> None:
    """A zip of `count` training images and TEST others, PNG, 32 px, soft blobs of colour, no two alike."""
    random = np.random.default_rng(count)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for split, many in (("train", count), ("test", TEST)):
            for i in range(many):
                small = random.integers(0, 256, (6, 6, 3), dtype=np.uint8)
                _, data = cv2.imencode(".png", cv2.resize(small, (32, 32), interpolation=cv2.INTER_CUBIC))
                archive.writestr(f"{split}/{i % CLASSES}/{i:06d}.png", data.tobytes())


class Child:
    """A run in another process, driven from here."""

    def __init__(self, archive: Path, settings: tuple[str, ...], environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [*_python(), str(archive), *settings],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.batch = int(self._read())

    def steps(self, count: int) -> float:
        return float(self._ask(f"steps {count}"))

    def rest(self) -> None:
        self._ask("rest")

    def memory(self, steps: int) -> dict[str, float]:
        """Peaks after that many steps at least, MB."""
        found: dict[str, float] = json.loads(self._ask(f"memory {steps}"))
        return found

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()  # it reads to the end of its orders
        self.process.wait()

    def _ask(self, order: str) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write(order + "\n")
        self.process.stdin.flush()
        return self._read()

    def _read(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{' '.join(self.process.args)} ended with {self.process.wait()}")  # type: ignore[arg-type]
        return line


def serve(archive: str, settings: list[str]) -> None:
    """Runs what the parent orders, and answers with one line each."""
    recipe = recipe_named("simsiam/scenes")
    recipe = replace(recipe, data=DataConfig(source=archive))
    recipe = replace(recipe, loop=replace(recipe.loop, epochs=100_000, checkpoint_every_minutes=0.0))
    recipe = override(recipe, settings)
    data = open_data(recipe.data, recipe.views.image_size)
    with tempfile.TemporaryDirectory() as folder, closing(OurLoop(recipe, data, Path(folder))) as loop:
        print(recipe.loop.batch_size, flush=True)
        for line in sys.stdin:
            order, _, number = line.strip().partition(" ")
            answer = ""
            if order == "steps":
                answer = str(loop.steps(int(number)))
            elif order == "rest":
                settle()
            elif order == "memory":
                answer = json.dumps(peaks(loop, int(number)))
            print(answer, flush=True)


def peaks(loop: OurLoop, steps: int) -> dict[str, float]:
    """Peak memory of this process after `steps`, MB of 10^6 bytes: all of it, what is its own, and the GPU's.

    Not getrusage's ru_maxrss: a process begins with the value of the one that started it.
    """
    if loop.done < steps:
        loop.steps(steps - loop.done)
    found = {"resident": _megabytes(Path("/proc/self/status").read_text(), "VmHWM")}
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew, with the pages that are mapped
    loop.steps(WEIGHED_STEPS)
    loop.monitors(1)
    mapped = Path("/proc/self/smaps").read_text().partition("pixels.bin")[2]
    found["own"] = _megabytes(Path("/proc/self/status").read_text(), "VmHWM") - _megabytes(mapped, "Rss")
    if torch.cuda.is_available():
        found["device"] = torch.cuda.max_memory_allocated() / 1e6
    return found


def _megabytes(text: str, name: str) -> float:
    """The first line `name: 123 kB`, which are of 1024 bytes."""
    match = re.search(rf"^{name}:\s+(\d+) kB", text, re.MULTILINE)
    return int(match[1]) * 1024 / 1e6 if match else 0.0


def _python() -> list[str]:
    return [sys.executable, "-m", "benchmarks.growth"]


def main(arguments: list[str]) -> None:
    first, *rest = arguments
    if first != "--store":
        serve(first, rest)
        return
    for archive in rest:
        open_data(DataConfig(source=archive), 32)


MEASURES: dict[str, Callable[[], list[Pair]]] = {"growth": growth}

if __name__ == "__main__":
    main(sys.argv[1:])
