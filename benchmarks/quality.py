"""Does ours train as well as lightly's own recipe? SimCLR and BYOL on the same images, scored by the same kNN.

lightly's side is docs/source/getting_started/benchmarks/cifar10_benchmark.py of its repository: a loop of our own, with
heads, losses, transforms and momentum from the installed package. Ours is the preset METHOD/cifar10 with lightly's
optimiser, heads, batch and law of views; what stays each side's own is in the note of every row. lightly reports its
best epoch on the test split, so there is a row for that beside the one for the last epochs; ours is always the last
epoch, and nothing is selected for it.

Images: CIFAR-10 where $STOPGRAD_BENCH_DATA has it, else the embedded scenes; the name of a row says which.
"""

from __future__ import annotations

import copy
import os
import tempfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.loops import named, pixels_of
from benchmarks.pairs import Goal, Pair, paired
from benchmarks.rival_loops import InMemory, batches
from stopgrad.assemble import api
from stopgrad.assemble.build import bf16_is_fast, fresh_backbone, pick_device, split_held
from stopgrad.data import Data, DataConfig, open_data
from stopgrad.eval import EvalConfig, features, knn_top1
from stopgrad.nn.config import BackboneConfig
from stopgrad.optim.config import OptimConfig
from stopgrad.recipe import Recipe
from stopgrad.recipe.text import override
from stopgrad.recipes import recipe_named
from stopgrad.training.progress import Progress
from stopgrad.views import CropConfig
from stopgrad.views.preprocess import preprocess_of

IMAGES, EPOCHS, SEEDS = 10_000, 7, 2  # 10 to 15 minutes on two quiet cores, both methods together
UNDER = 3.0  # points of kNN that ours may be under lightly's
K, TEMPERATURE = 200, 0.1  # lightly's on CIFAR-10
BATCH, RATE, MOMENTUM, DECAY = 128, 0.06, 0.9, 5e-4  # lightly's; the rate is that of a step
EMA = 0.99  # BYOL's target


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How long to measure."""

    images: int = IMAGES
    epochs: int = EPOCHS
    seeds: int = SEEDS


FULL = Sizes()


@dataclass(frozen=True, kw_only=True)
class Case:
    """A method on both sides. settings: make our heads and loss those of lightly's recipe."""

    method: str
    spoken: str
    settings: tuple[str, ...]
    steeper: int  # our loss over lightly's
    crops: tuple[CropConfig, CropConfig]  # the law of lightly's transform
    model: Callable[[nn.Module], nn.Module]  # lightly's, from a backbone: two views -> loss
    transform: Callable[[], Callable[[Any], list[Tensor]]]  # lightly's: an image -> two views
    own: str  # what stays different, for the note


def measure(case: Case, sizes: Sizes = FULL) -> list[Pair]:
    """Ours beside lightly's last epoch and beside its best one on test, seed by seed, both sides of a seed in turn."""
    recipe, source = recipe_of(case, sizes)
    data = open_data(recipe.data, recipe.views.image_size)
    mine, untrained, theirs = [], [], []
    for seed in range(sizes.seeds):
        seeded = replace(recipe, seed=seed)
        with tempfile.TemporaryDirectory() as folder:
            score, before = ours(seeded, Path(folder))
        mine.append(score)
        untrained.append(before)
        theirs.append(lightly(case, seeded, data))
    last, best = [scores[-1] for scores in theirs], [max(scores) for scores in theirs]
    told = note(case, recipe, data, untrained)
    return [
        paired(
            f"kNN of {case.spoken}, {named(recipe)} on {source}",
            "points of kNN",
            list(zip(mine, rival)),
            f"lightly's recipe, {which}",
            goal=goal(rival),
            note=f"{told}; ours minus lightly's last epoch {apart(mine, last)}, minus its best on test "
            f"{apart(mine, best)}",
        )
        for which, rival in (("last epoch", last), ("best epoch on test", best))
    ]


def goal(theirs: list[float]) -> Goal:
    """No more than UNDER points under the rival, said as a ratio; at best none."""
    return Goal(floor=1 - UNDER / median(theirs), target=1.0)


def apart(mine: list[float], theirs: list[float]) -> str:
    """Difference of each seed."""
    return ", ".join(f"{a - b:+.2f}" for a, b in zip(mine, theirs))


def note(case: Case, recipe: Recipe, data: Data, untrained: list[float]) -> str:
    trained = len(split_held(data.train, recipe)[0])
    precision = "bf16" if bf16_is_fast(pick_device()) else "float32"
    steep = f" (our loss is {case.steeper} times lightly's: rate / {case.steeper}, decay x {case.steeper})"
    return (
        f"{trained:,} images trained on by both, {recipe.loop.epochs} epochs; kNN: k={K}, temperature={TEMPERATURE:g}, "
        f"bank of all {len(data.train):,} training images, {len(data.test):,} test images, one seed a round; untrained "
        f"{', '.join(f'{score:.2f}' for score in untrained)}. Equal: the backbone and its first weights, layers and "
        f"widths of the heads, batch {BATCH}, SGD of rate {RATE:g}, momentum {MOMENTUM:g}, decay {DECAY:g}"
        f"{steep if case.steeper > 1 else ''}, a cosine to 0, the loss, the law of the views, the kNN. Each side's own "
        f"(ours / lightly's): what makes the views; the cosine by step / by epoch; {precision} / float32; {case.own}"
    )


# --- ours -------------------------------------------------------------------------------------------------------------


def recipe_of(case: Case, sizes: Sizes) -> tuple[Recipe, str]:
    """METHOD/cifar10 with what is equal on both sides, on this machine's backbone; and the name of the images."""
    root = os.environ.get("STOPGRAD_BENCH_DATA")
    found = Path(root) / "cifar10" if root else None
    there = found is not None and found.is_dir()
    start = recipe_named(f"{case.method}/cifar10")
    on_cpu = pick_device().type == "cpu"
    recipe = replace(
        start,
        data=DataConfig(source=str(found) if there else "scenes-v1", limit=sizes.images),
        views=replace(start.views, crops=case.crops),
        backbone=BackboneConfig(name="tiny") if on_cpu else start.backbone,
        optim=OptimConfig(
            base_lr=RATE * 256 / BATCH / case.steeper, momentum=MOMENTUM, weight_decay=DECAY * case.steeper
        ),
        loop=replace(start.loop, epochs=sizes.epochs, batch_size=BATCH),
        eval=EvalConfig(k=(K,), temperature=TEMPERATURE, linear="none", random_seeds=1, retrieval_images=2),
    )
    return override(recipe, case.settings), "CIFAR-10" if there else "scenes (synthetic)"


def ours(recipe: Recipe, folder: Path) -> tuple[float, float]:
    """kNN of a whole run's last epoch, and of its backbone untrained: percent of the test images."""
    finished = api.train(recipe, out=folder, name="run", progress=Progress(quiet=True))
    rows = {row.name: row.value for row in finished.results}
    score, before = rows["knn_top1"], rows["baseline_random_knn_top1"]
    assert isinstance(score, float)
    assert isinstance(before, float)
    return score, before


# --- lightly's --------------------------------------------------------------------------------------------------------


class LightlySimCLR(nn.Module):
    """SimCLRModel of the recipe; its widths for ResNet-18, whatever the backbone's."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        from lightly.loss import NTXentLoss
        from lightly.models.modules.heads import SimCLRProjectionHead

        self.backbone = backbone
        self.projection_head = SimCLRProjectionHead(int(backbone.dim), 512, 128)  # type: ignore[arg-type]
        self.criterion = NTXentLoss()

    def forward(self, x0: Tensor, x1: Tensor) -> Tensor:
        z0, z1 = (self.projection_head(self.backbone(x)) for x in (x0, x1))
        return self.criterion(z0, z1)  # type: ignore[no-any-return]


class LightlyBYOL(nn.Module):
    """BYOLModel of the recipe; its widths for ResNet-18, whatever the backbone's."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        from lightly.loss import NegativeCosineSimilarity
        from lightly.models.modules.heads import BYOLPredictionHead, BYOLProjectionHead
        from lightly.models.utils import deactivate_requires_grad

        self.backbone = backbone
        self.projection_head = BYOLProjectionHead(int(backbone.dim), 1024, 256)  # type: ignore[arg-type]
        self.prediction_head = BYOLPredictionHead(256, 1024, 256)
        self.backbone_momentum = copy.deepcopy(self.backbone)
        self.projection_head_momentum = copy.deepcopy(self.projection_head)
        deactivate_requires_grad(self.backbone_momentum)
        deactivate_requires_grad(self.projection_head_momentum)
        self.criterion = NegativeCosineSimilarity()

    def forward(self, x0: Tensor, x1: Tensor) -> Tensor:
        from lightly.models.utils import update_momentum

        update_momentum(self.backbone, self.backbone_momentum, m=EMA)
        update_momentum(self.projection_head, self.projection_head_momentum, m=EMA)
        p0, p1 = (self.prediction_head(self.projection_head(self.backbone(x))) for x in (x0, x1))
        z0, z1 = (self.projection_head_momentum(self.backbone_momentum(x)) for x in (x0, x1))
        return 0.5 * (self.criterion(p0, z1) + self.criterion(p1, z0))  # type: ignore[no-any-return]


def simclr_transform() -> Callable[[Any], list[Tensor]]:
    from lightly.transforms import SimCLRTransform

    return SimCLRTransform(input_size=32, cj_strength=0.5, gaussian_blur=0.0)  # type: ignore[no-any-return]


def byol_transform() -> Callable[[Any], list[Tensor]]:
    from lightly.transforms import BYOLTransform, BYOLView1Transform, BYOLView2Transform

    return BYOLTransform(  # type: ignore[no-any-return]
        view_1_transform=BYOLView1Transform(input_size=32, gaussian_blur=0.0),
        view_2_transform=BYOLView2Transform(input_size=32, gaussian_blur=0.0),
    )


def lightly(case: Case, recipe: Recipe, data: Data) -> list[float]:
    """kNN after every epoch of lightly's recipe, on the images and from the backbone's weights of our run."""
    pixels, device = pixels_of(data, recipe), pick_device()
    torch.manual_seed(recipe.seed)  # of the heads, the shuffles and the workers
    model = case.model(fresh_backbone(recipe, recipe.seed)).to(device)
    optimiser = sgd(model)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, recipe.loop.epochs)
    scores = []
    with closing(batches(InMemory(pixels, case.transform()), BATCH)) as loader:
        for _ in range(recipe.loop.epochs):
            for (x0, x1), _ in islice(loader, len(pixels) // BATCH):
                one_step(model, optimiser, x0.to(device), x1.to(device))
            schedule.step()
            scores.append(knn(model.backbone, recipe, data))  # type: ignore[arg-type]
    return scores


def sgd(model: nn.Module) -> torch.optim.SGD:
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return torch.optim.SGD(trained, lr=RATE, momentum=MOMENTUM, weight_decay=DECAY)


def one_step(model: nn.Module, optimiser: torch.optim.Optimizer, x0: Tensor, x1: Tensor) -> None:
    loss = model(x0, x1)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()


def knn(backbone: nn.Module, recipe: Recipe, data: Data) -> float:
    """As our run scores itself: percent of the test images, the bank being all training images, in float32."""
    assert data.train.labels is not None
    assert data.test.labels is not None
    preprocess, device = preprocess_of(recipe.views, recipe.data.channels), pick_device()
    bank, queries = (
        features(backbone, split, preprocess, device=device, batch_size=recipe.eval.batch_size).to(device)
        for split in (data.train, data.test)
    )
    return knn_top1(bank, data.train.labels, queries, data.test.labels, K, TEMPERATURE)


# --- the methods ------------------------------------------------------------------------------------------------------

_SIMCLR_CROP = CropConfig(scale=(0.08, 1.0), blur=0.0)
_BYOL_CROP = CropConfig(scale=(0.08, 1.0), saturation=0.2, blur=0.0)

CASES = {
    "simclr": Case(
        method="simclr",
        spoken="SimCLR",
        settings=(
            "method.projector={layers: 2, hidden: 512, dim: 128, norm: batch, output_norm: batch}",
            "method.directions=mean",
            "method.temperature=0.5",
        ),
        steeper=1,
        crops=(_SIMCLR_CROP, _SIMCLR_CROP),
        model=LightlySimCLR,
        transform=simclr_transform,
        own="batch norm over both views / over each; the offset of the projector's last norm stays 0 / is trained",
    ),
    "byol": Case(
        method="byol",
        spoken="BYOL",
        settings=(
            "method.projector={layers: 2, hidden: 1024, dim: 256, norm: batch, output_norm: none}",
            "method.predictor_hidden=1024",
            f"method.target_momentum={EMA}",
        ),
        steeper=4,
        crops=(_BYOL_CROP, replace(_BYOL_CROP, solarize=0.2)),
        model=LightlyBYOL,
        transform=byol_transform,
        own=f"the target's momentum from {EMA:g} to 1 / {EMA:g} throughout; the heads' last layers without / with bias",
    ),
}
MEASURES: dict[str, Callable[[], list[Pair]]] = {name: partial(measure, case) for name, case in CASES.items()}
