"""`make bench`: what the spine's speed claims rest on, ours beside a rival, in turns. Writes results/spine.{json,md}.

python -m benchmarks.run [NAME ...]
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from benchmarks.pairs import Pair, compare
from stopgrad.contracts import Batch, Clock, Views
from stopgrad.eval import knn
from stopgrad.methods import METHODS
from stopgrad.nn.backbones import build_backbone
from stopgrad.nn.config import BackboneConfig
from stopgrad.recipes import recipe_named
from stopgrad.views import PRESETS, ViewMaker, ViewsConfig

RESULTS = Path(__file__).parent / "results"


def views(size: int, source: tuple[int, int], preset: str, images: int) -> Pair:
    """Two SimSiam views an image by the CPU executor, beside torchvision's definitions one image at a time."""
    random = np.random.default_rng(0)
    samples = random.integers(0, 256, (images, *source, 3), dtype=np.uint8)
    batch = Batch(samples, np.arange(images), epoch=0)
    makers = [
        ViewMaker(ViewsConfig(image_size=size, crops=PRESETS[preset], executor=executor), 3, 0, torch.device("cpu"), 2)
        for executor in ("cpu", "exact")
    ]
    try:
        ours, exact = ((lambda maker=maker: maker(batch)) for maker in makers)
        return compare(f"views at {size} px from {source[1]}x{source[0]}", "views/s", 2 * images, ours, exact, "exact")
    finally:
        for maker in makers:
            maker.close()


def step() -> Pair:
    """A SimSiam step of `tiny` on ready views, bfloat16 autocast beside float32."""
    recipe = recipe_named("simsiam/scenes")
    batch = 256
    builder, _ = METHODS["simsiam"]
    method = builder(build_backbone(BackboneConfig(), 3, 32, 0), recipe.method).to(memory_format=torch.channels_last)
    optimiser = torch.optim.SGD(method.parameters(), lr=0.01, momentum=0.9)
    crops = tuple(torch.randn(batch, 3, 32, 32).contiguous(memory_format=torch.channels_last) for _ in range(2))
    ready = Views(crops, torch.arange(batch))

    def once(bf16: bool) -> None:
        for _ in range(4):
            optimiser.zero_grad()
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
                loss = method(ready, Clock(0, 1, 1)).loss
            loss.backward()
            optimiser.step()

    return compare(
        "SimSiam step, tiny, batch 256", "images/s", 4 * batch, lambda: once(True), lambda: once(False), "float32"
    )


def neighbours() -> Pair:
    """kNN of 2,000 queries in a bank of 20,000, 256 features, beside scikit-learn's brute force."""
    from sklearn.neighbors import KNeighborsClassifier

    generator = torch.Generator().manual_seed(0)
    bank, queries = (torch.nn.functional.normalize(torch.randn(n, 256, generator=generator)) for n in (20_000, 2_000))
    labels = np.random.default_rng(0).integers(0, 10, 20_000)
    rival = KNeighborsClassifier(20, algorithm="brute").fit(bank.numpy(), labels)
    return compare(
        "kNN, 20,000 x 2,000 x 256, k = 20", "queries/s", 2_000,
        lambda: knn(bank, labels, queries, (20,), 0.1, 10), lambda: rival.predict(queries.numpy()), "scikit-learn",
    )  # fmt: skip


def start_up() -> Pair:
    """`stopgrad --help` beside a bare `import torch`."""

    def call(*command: str) -> Callable[[], object]:
        return lambda: subprocess.run([sys.executable, *command], capture_output=True, check=True)

    return compare(
        "stopgrad --help", "1/s", 1, call("-m", "stopgrad", "--help"), call("-c", "import torch"), "import torch"
    )


MEASURES: dict[str, Callable[[], Pair]] = {
    "views32": lambda: views(32, (32, 32), "moco_v2_cifar", 512),
    "views224": lambda: views(224, (375, 500), "moco_v2", 32),
    "step": step,
    "knn": neighbours,
    "help": start_up,
}


def main(names: list[str]) -> None:
    unknown = set(names) - MEASURES.keys()
    if unknown:
        sys.exit(f"bench: unknown {', '.join(sorted(unknown))}; allowed: {', '.join(MEASURES)}")
    pairs = []
    for name in names or MEASURES:
        pairs.append(MEASURES[name]())
        print(pairs[-1].row(), flush=True)
    if names:
        return
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "spine.json").write_text(json.dumps([pair.as_dict() for pair in pairs], indent=1) + "\n")
    head = ["| | ours | beside | unit | ratio, median | range |", "|---|---|---|---|---|---|"]
    note = f"\n{pairs[0].machine}; {pairs[0].versions}. Five rounds in turns; only the ratios mean anything.\n"
    (RESULTS / "spine.md").write_text("\n".join([*head, *(pair.row() for pair in pairs)]) + "\n" + note)


if __name__ == "__main__":
    main(sys.argv[1:])
