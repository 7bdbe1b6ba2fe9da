"""The loops that ours is timed beside: lightly's SimSiam example, and one as anybody writes it with PyTorch alone.

lightly's is examples/pytorch/simsiam.py of lightly 1.6, line by line; what was made equal to ours is the backbone (the
same module), the widths of the heads, the batch, the law of the views, SGD's momentum and weight decay, and the images:
arrays in memory, as torchvision's CIFAR10 has them. Both loops stay open between rounds, their workers started.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from benchmarks import views
from benchmarks.ours import settle
from stopgrad.methods.simsiam import SimSiamConfig
from stopgrad.optim.config import OptimConfig
from stopgrad.recipe import Recipe
from stopgrad.views.config import IMAGENET_MEAN, IMAGENET_STD, CropConfig

WORKERS = 2  # processes of a DataLoader; ours has as many threads

Batches = Generator[Any, None, None]
Before = Callable[[torch.optim.Optimizer, int], None]  # optimiser and number of a step, before it


class Rival:
    """A loop that is open: steps are taken by asking it for its losses."""

    def __init__(self, loop: Iterator[Tensor], device: torch.device) -> None:
        self.loop, self.device = loop, device

    def steps(self, count: int) -> float:
        return seconds_of(self._steps, count, self.device)

    def rest(self) -> None:
        settle()

    def close(self) -> None:
        """Ends the loop, and with it its workers."""
        self.loop.close()  # type: ignore[attr-defined]  # all of them are generators

    def _steps(self, count: int) -> None:
        for _ in range(count):
            next(self.loop)


def seconds_of(take: Callable[[int], None], count: int, device: torch.device) -> float:
    """Of so many steps, until the device has done them."""
    begin = time.perf_counter()
    take(count)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begin


class InMemory(Dataset[Any]):
    """Images [N, H, W, 3], uint8, handed to the transform as PIL images; the label is one, as in CIFAR10."""

    def __init__(self, images: NDArray[np.uint8], transform: Callable[[Image.Image], Any]) -> None:
        self.images, self.transform = images, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.transform(Image.fromarray(self.images[index])), 0


def batches(dataset: Dataset[Any], batch_size: int, pin: bool = False) -> Batches:
    """Epoch after epoch, without an end; the workers stay."""
    loader = DataLoader(
        dataset,
        batch_size=batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=WORKERS,
        persistent_workers=WORKERS > 0,
        pin_memory=pin,
    )
    while True:
        yield from loader


# --- lightly ----------------------------------------------------------------------------------------------------------


class LightlySimSiam(nn.Module):
    """The example's model; heads of lightly's own class, as wide as ours."""

    def __init__(self, backbone: nn.Module, config: SimSiamConfig) -> None:
        super().__init__()
        from lightly.models.modules.heads import ProjectionHead, SimSiamPredictionHead

        head = config.projector
        widths = [int(backbone.dim), *[head.hidden] * (head.layers - 1)]  # type: ignore[arg-type]
        blocks: list[Any] = [(a, b, nn.BatchNorm1d(b), nn.ReLU()) for a, b in itertools.pairwise(widths)]
        blocks.append((widths[-1], head.dim, nn.BatchNorm1d(head.dim, affine=False), None))
        self.backbone = backbone
        self.projection_head = ProjectionHead(blocks)
        self.prediction_head = SimSiamPredictionHead(head.dim, config.predictor_hidden, head.dim)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        f = self.backbone(x).flatten(start_dim=1)
        z = self.projection_head(f)
        p = self.prediction_head(z)
        z = z.detach()
        return z, p


def lightly_loop(
    model: LightlySimSiam, dataloader: Batches, optimizer: torch.optim.Optimizer, before: Before | None = None
) -> Iterator[Tensor]:
    """The example's inner loop. before: sets the learning rate, where it has a schedule; the example has none."""
    from lightly.loss import NegativeCosineSimilarity

    criterion = NegativeCosineSimilarity()
    device = next(model.parameters()).device
    model.train()
    total_loss = torch.zeros((), device=device)
    for step, batch in enumerate(dataloader):
        if before is not None:
            before(optimizer, step)
        x0, x1 = batch[0]
        x0 = x0.to(device)
        x1 = x1.to(device)
        z0, p0 = model(x0)
        z1, p1 = model(x1)
        loss = 0.5 * (criterion(z0, p1) + criterion(z1, p0))
        total_loss += loss.detach()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        yield loss.detach()


def lightly_images(recipe: Recipe, images: NDArray[np.uint8]) -> InMemory:
    """Images that become lightly's views by the law of ours."""
    return InMemory(images, views.lightly_transform(law(recipe), recipe.views.image_size))


def lightly(recipe: Recipe, backbone: nn.Module, images: NDArray[np.uint8], device: torch.device) -> Rival:
    """lightly's example on `images`, open."""
    model = LightlySimSiam(backbone, simsiam(recipe)).to(device)
    loader = batches(lightly_images(recipe, images), recipe.loop.batch_size)
    return Rival(lightly_loop(model, loader, sgd(model, recipe.optim, recipe.loop.batch_size)), device)


# --- PyTorch and torchvision alone ------------------------------------------------------------------------------------


class PlainSimSiam(nn.Module):
    """SimSiam as its authors' code has it: both views in one forward of the module."""

    def __init__(self, backbone: nn.Module, config: SimSiamConfig) -> None:
        super().__init__()
        head = config.projector
        widths = [int(backbone.dim), *[head.hidden] * (head.layers - 1)]  # type: ignore[arg-type]
        layers: list[nn.Module] = [backbone]
        for a, b in itertools.pairwise(widths):
            layers += [nn.Linear(a, b, bias=False), nn.BatchNorm1d(b), nn.ReLU(inplace=True)]
        layers += [nn.Linear(widths[-1], head.dim, bias=False), nn.BatchNorm1d(head.dim, affine=False)]
        self.encoder = nn.Sequential(*layers)
        self.predictor = nn.Sequential(
            nn.Linear(head.dim, config.predictor_hidden, bias=False),
            nn.BatchNorm1d(config.predictor_hidden),
            nn.ReLU(inplace=True),
            nn.Linear(config.predictor_hidden, head.dim),
        )

    def forward(self, x1: Tensor, x2: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        z1, z2 = self.encoder(x1), self.encoder(x2)
        return self.predictor(z1), self.predictor(z2), z1.detach(), z2.detach()


class TwoViews:
    """The authors' TwoCropsTransform, in torchvision's v2. On PIL images: measured at 32 pixels, 1.25 times as fast as
    on tensors, at 96 a few percent faster."""

    def __init__(self, recipe: Recipe) -> None:
        crop, size = law(recipe), recipe.views.image_size
        blur = v2.GaussianBlur(views.taps(crop, size), crop.blur_sigma)
        colours = v2.ColorJitter(crop.brightness, crop.contrast, crop.saturation, crop.hue)
        self.view = v2.Compose(
            [
                v2.RandomResizedCrop(size, scale=crop.scale, ratio=crop.ratio),
                v2.RandomHorizontalFlip(crop.hflip),
                v2.RandomApply([colours], p=crop.jitter),
                v2.RandomGrayscale(crop.grayscale),
                v2.ToImage(),
                *([v2.RandomApply([blur], crop.blur)] if crop.blur else []),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(recipe.views.mean, recipe.views.std),
            ]
        )

    def __call__(self, image: Image.Image) -> list[Tensor]:
        return [self.view(image), self.view(image)]


def plain_loop(model: PlainSimSiam, dataloader: Batches, optimizer: torch.optim.Optimizer) -> Iterator[Tensor]:
    criterion = nn.CosineSimilarity(dim=1)
    device = next(model.parameters()).device
    model.train()
    for (x1, x2), _ in dataloader:
        x1, x2 = x1.to(device, non_blocking=True), x2.to(device, non_blocking=True)
        p1, p2, z1, z2 = model(x1, x2)
        loss = -(criterion(p1, z2).mean() + criterion(p2, z1).mean()) * 0.5
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss.detach()


def plain(recipe: Recipe, backbone: nn.Module, images: NDArray[np.uint8], device: torch.device) -> Rival:
    """A plain PyTorch loop on `images`, open."""
    model = PlainSimSiam(backbone, simsiam(recipe)).to(device)
    loader = batches(InMemory(images, TwoViews(recipe)), recipe.loop.batch_size, pin=device.type == "cuda")
    return Rival(plain_loop(model, loader, sgd(model, recipe.optim, recipe.loop.batch_size)), device)


# --- what is equal ----------------------------------------------------------------------------------------------------


def sgd(model: nn.Module, config: OptimConfig, batch_size: int) -> torch.optim.SGD:
    """Ours' settings; the learning rate stays at its peak."""
    return torch.optim.SGD(
        model.parameters(),
        lr=config.peak_lr(batch_size),
        momentum=config.momentum,
        weight_decay=config.weight_decay,
    )


def law(recipe: Recipe) -> CropConfig:
    """The one law of both views, which the rivals' transforms can express."""
    first, *rest = recipe.views.crops
    assert rest == [first]
    assert (first.size, recipe.views.mean, recipe.views.std) == (0, IMAGENET_MEAN, IMAGENET_STD)
    views.check(first)
    return first


def simsiam(recipe: Recipe) -> SimSiamConfig:
    assert isinstance(recipe.method, SimSiamConfig)
    return recipe.method
