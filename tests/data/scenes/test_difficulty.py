"""How hard `scenes-v1` is at 32 pixels: kNN (k = 20) and supervised, 10,000 training and 2,000 test scenes."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stopgrad.data import scenes
from stopgrad.nn.backbones import build_backbone
from stopgrad.nn.config import BackboneConfig

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

Split = tuple[Tensor, Tensor]  # images [N, 3, 32, 32] in [-2, 2], labels [N]


def load(seed: int, count: int) -> Split:
    rgb, label = scenes.render_rgb(seed, np.arange(count), 32)
    images = torch.from_numpy(rgb).permute(0, 3, 1, 2).float() / 255
    return ((images - 0.45) / 0.225).contiguous(memory_format=torch.channels_last), torch.from_numpy(label)


@pytest.fixture(scope="module")
def splits() -> tuple[Split, Split]:
    return load(scenes.TRAIN_SEED, scenes.TRAIN), load(scenes.TEST_SEED, scenes.TEST)


def knn(bank: Tensor, bank_label: Tensor, query: Tensor, label: Tensor) -> float:
    """Weighted kNN, k = 20, temperature 0.1, in percent."""
    similarity, near = (F.normalize(query, dim=1) @ F.normalize(bank, dim=1).T).topk(20)
    votes = torch.zeros(len(query), len(scenes.CLASSES)).scatter_add_(1, bank_label[near], (similarity / 0.1).exp())
    return float((votes.argmax(1) == label).float().mean() * 100)


def histogram(images: Tensor) -> Tensor:
    """[N, 64]: how many pixels have each of 4 x 4 x 4 colours."""
    level = ((images * 0.225 + 0.45) * 255).round().long() // 64  # [N, 3, 32, 32]
    colour = (level[:, 0] * 4 + level[:, 1]) * 4 + level[:, 2]
    return F.one_hot(colour.flatten(1), 64).sum(1).float()


def features(net: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.cat([net(part) for part in images.split(500)])


def test_raw_pixels_reach_at_most_30(splits: tuple[Split, Split]) -> None:
    (train, label), (test, truth) = splits
    assert knn(train.flatten(1), label, test.flatten(1), truth) <= 30


def test_colour_histograms_reach_at_most_20(splits: tuple[Split, Split]) -> None:
    (train, label), (test, truth) = splits
    assert knn(histogram(train), label, histogram(test), truth) <= 20


def test_a_random_tiny_reaches_at_most_45(splits: tuple[Split, Split]) -> None:
    (train, label), (test, truth) = splits
    scores = []
    for seed in range(3):
        net = build_backbone(BackboneConfig(name="tiny"), 3, 32, seed).to(memory_format=torch.channels_last)
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = None  # a plain mean over the batches that follow
        features(net.train(), train)
        net.eval()
        scores.append(knn(features(net, train), label, features(net, test), truth))
    assert np.mean(scores) <= 45


def shifted(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each image cropped to half its area or more, and half of them flipped."""
    u = torch.rand(len(images), 4, generator=generator)
    side = (0.5 + 0.5 * u[:, 0]).sqrt()
    theta = torch.zeros(len(images), 2, 3)
    theta[:, 0, 0] = torch.where(u[:, 1] < 0.5, -side, side)
    theta[:, 1, 1] = side
    theta[:, :, 2] = (u[:, 2:] * 2 - 1) * (1 - side[:, None])
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False, padding_mode="border")


def test_a_supervised_tiny_reaches_at_least_90(splits: tuple[Split, Split]) -> None:
    (train, label), (test, truth) = splits
    generator = torch.Generator().manual_seed(0)
    net = build_backbone(BackboneConfig(name="tiny"), 3, 32, 0).to(memory_format=torch.channels_last).train()
    head = nn.Linear(net.dim, len(scenes.CLASSES))
    weights = [*net.parameters(), *head.parameters()]
    optimizer = torch.optim.SGD(weights, lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
    epochs, batch = 20, 128
    steps = epochs * math.ceil(len(train) / batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.2, total_steps=steps, pct_start=0.2)
    for _ in range(epochs):
        for rows in torch.randperm(len(train), generator=generator).split(batch):
            loss = F.cross_entropy(head(net(shifted(train[rows], generator))), label[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    net.eval()
    with torch.no_grad():
        accuracy = (head(features(net, test)).argmax(1) == truth).float().mean()
    assert accuracy >= 0.9
