"""What `make bench` measures of views and decoding: one law on both sides, and as many views as it says."""

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from benchmarks import decode, images, views
from stopgrad import data
from stopgrad.contracts import Batch, Views
from stopgrad.data import Loader
from stopgrad.views import PRESETS, ViewMaker
from stopgrad.views.config import IMAGENET_MEAN, IMAGENET_STD

SOME = 1024  # images


@pytest.fixture(autouse=True)
def no_real_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STOPGRAD_BENCH_DATA", raising=False)


def ours(pixels: images.Pixels, preset: str, side: int) -> Tensor:
    maker = views.maker_of(preset, side)
    made = maker(Loader(views.Held(pixels), len(pixels), seed=0).batch(0))
    maker.close()
    return made.crops[0]  # [B, 3, S, S]


def theirs(rival: str, pixels: images.Pixels, preset: str, side: int) -> Tensor:
    crop = PRESETS[preset][0]
    torch.manual_seed(0)
    np.random.seed(0)  # lightly's blur draws from it
    stack = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    if rival == "kornia":
        return views.kornia_transform(crop, side)(stack.float() / 255)
    if rival == "lightly":
        view = views.lightly_transform(crop, side)
        return torch.stack([view(Image.fromarray(image))[0] for image in pixels])
    view = views.torchvision_transform(crop, side)
    return torch.stack([view(image)[0] for image in stack])


def law(made: Tensor) -> dict[str, float]:
    """What shows of the settings of views [B, 3, S, S]; of images that are reddish and darker on the left."""
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    pixels = (255 * (made * std + mean)).double()
    colour = pixels.amax(dim=1) - pixels.amin(dim=1)  # [B, S, S]
    red, green, blue = pixels.mean(dim=(2, 3)).unbind(dim=1)  # [B]
    left, right = pixels.mean(dim=(1, 2)).tensor_split(2, dim=1)  # [B, S / 2]
    gray = colour.amax(dim=(1, 2)) < 1.5  # after rounding
    return {
        "brightness": float(pixels.mean()),
        "spread of brightness": float(pixels.mean(dim=(1, 2, 3)).std()),
        "contrast": float(pixels.std(dim=(2, 3)).mean()),
        "spread of contrast": float(pixels.std(dim=(1, 2, 3)).std()),
        "colour": float((red - blue)[~gray].mean()),
        "spread of colour": float((red - blue)[~gray].std()),
        "spread of hue": float((green - blue)[~gray].std()),
        "gray": float(gray.double().mean()),
        "flipped": float((left.mean(dim=1) > right.mean(dim=1)).double().mean()),
        "edges": float(pixels.diff(dim=3).abs().mean()),
    }


def pictures() -> images.Pixels:
    """[SOME, 64, 64, 3], not for their beauty: hue, flips and factors show in them."""
    ramp = np.linspace(0.6, 1.0, 64)[:, None] * np.array([1.0, 0.7, 0.5])  # [W, 3]
    soft = np.stack([120 + 0.5 * (images.smoothed_noise(seed, 64, 64) - 115.0) for seed in range(SOME // 8)])
    return np.tile((soft * ramp).clip(0, 255).astype(np.uint8), (8, 1, 1, 1))


@pytest.mark.parametrize("preset", ["moco_v2_cifar", "moco_v2"])
@pytest.mark.parametrize("rival", ["torchvision", "lightly", "kornia"])
def test_a_rivals_views_follow_the_law_of_ours(rival: str, preset: str) -> None:
    if rival != "torchvision":
        pytest.importorskip(rival, reason=f"{rival} is in .bench only")
    pixels = pictures()
    expected, found = law(ours(pixels, preset, 32)), law(theirs(rival, pixels, preset, 32))
    # Two draws of 1,024 views differ by about a twentieth; kornia has no antialias, which makes edges sharper.
    room = dict.fromkeys(expected, 0.12) | {"gray": 0.2, "edges": 0.15 if rival == "kornia" else 0.12}
    assert {key: (found[key], expected[key]) for key in expected if off(found[key], expected[key]) > room[key]} == {}


def off(found: float, expected: float) -> float:
    return abs(found / expected - 1)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Rounds that last a second, so that a rate is a count; and how many views were made in them."""
    made: Counter[str] = Counter()

    class Maker(ViewMaker):
        def __call__(self, batch: Batch) -> Views:
            done = super().__call__(batch)
            made[self.executor] += sum(len(crop) for crop in done.crops)
            return done

    def epoch(loader: Any) -> None:
        made["torchvision"] += sum(len(crop) for batch in loader for crop in batch)

    def seconds(work: Callable[[], object]) -> float:
        work()
        return 1.0

    monkeypatch.setattr(views, "ViewMaker", Maker)
    monkeypatch.setattr(views, "epoch", epoch)
    monkeypatch.setattr(views, "seconds", seconds)
    return made


def test_a_rate_of_views_counts_the_views_that_were_made(counted: Counter[str]) -> None:
    batches = {"cpu": 5, "gpu": 3, "exact": 2, "torchvision": 4}
    case = replace(views.CASES["at_32"], batch=8, held=16, batches=batches, rounds=2)
    pairs = {pair.name: pair for pair in views.measure(case, rivals=["torchvision"])}
    assert counted == {way: 3 * 2 * 8 * count for way, count in batches.items()}  # a warm-up and two rounds
    rates = {name.removeprefix("views at 32 px from 32x32"): pair.ours for name, pair in pairs.items()}
    assert rates == {"": 80, ", executor exact": 32, ", executor gpu on the CPU": 48}
    assert {pair.rival for pair in pairs.values()} == {64}
    assert "16 scenes" in pairs["views at 32 px from 32x32"].note


@pytest.mark.parametrize("name", ["at_224", "at_224_from_400"])
def test_photographs_have_the_size_in_the_measures_name(name: str) -> None:
    case = views.CASES[name]
    pixels, what = images.photographs(2, case.height, case.width)
    assert f"from {pixels.shape[2]}x{pixels.shape[1]}" in case.name
    assert "smoothed noise" in what


class Seen(Loader):
    """Notes the images of every batch."""

    batches: ClassVar[list[list[int]]] = []

    def batch(self, step: int) -> Batch:
        found = super().batch(step)
        self.batches.append(sorted(found.index.tolist()))
        return found


def test_a_first_epoch_begins_with_an_empty_cache_and_sees_every_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before: list[list[Path]] = []

    def opened(config: data.DataConfig, image_size: int) -> data.Data:
        before.append(list(Path(os.environ["STOPGRAD_CACHE"]).iterdir()))
        return data.open_data(config, image_size)

    monkeypatch.setattr(decode, "open_data", opened)
    monkeypatch.setattr(decode, "Loader", Seen)
    Seen.batches.clear()
    images.jpeg_folder(tmp_path / "photographs", 8, 60, 80)
    cache = os.environ["STOPGRAD_CACHE"]
    run = decode.Run(tmp_path / "photographs", 8)
    assert run.first() > 0
    assert run.first() > 0
    assert before == [[], []]
    assert "stored at 80x60 (data.max_side 512)" in run.stored()
    assert run.later() > 0
    assert len(before) == 2
    run.forget()
    assert Seen.batches == [list(range(8))] * 3
    assert os.environ["STOPGRAD_CACHE"] == cache


def test_the_goal_of_decoding_is_to_be_reached_beside_lightly_in_both_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(decode.RIVALS, "lightly", decode.RIVALS["torchvision"])
    monkeypatch.setattr(decode, "HEIGHT", 60)
    monkeypatch.setattr(decode, "WIDTH", 80)
    pairs = decode.measure(count=4, batch=2, rounds=1)
    assert len(pairs) == 4
    wanted = [(pair.name, pair.rival_name) for pair in pairs if pair.floor]
    epochs = ("first epoch", "a later epoch")
    assert wanted == [(f"JPEG to two 224-px views, {epoch}", decode.SPOKEN["lightly"]) for epoch in epochs]
    assert "4 JPEGs of 80x60" in pairs[0].note
