"""Views a second from decoded images in memory: two SimSiam views an image, in batches, as a loop would get them.

Ours: Loader, ViewMaker with two threads, Feed. Rivals: lightly's transform and torchvision v2, both on Pillow images,
each in a DataLoader with two workers that live through the rounds (their start is not counted); kornia on
batches of float tensors with two torch threads. All take their settings from our preset, so the law of a view is one.
What stays different is said here: lightly blurs by Pillow's boxes, torchvision and kornia with a kernel of 13 pixels
(the largest of ours), kornia resizes without antialias.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from benchmarks import images
from benchmarks.pairs import ROUNDS, Goal, Pair, paired, seconds
from stopgrad.contracts import Views
from stopgrad.data import Loader
from stopgrad.data.pack import together
from stopgrad.training.config import LoopConfig
from stopgrad.training.feed import Feed
from stopgrad.views import PRESETS, CropConfig, ViewMaker, ViewsConfig
from stopgrad.views.config import IMAGENET_MEAN, IMAGENET_STD
from stopgrad.views.params import blur_radius

THREADS = 2  # of ours and of kornia; workers of the rivals' DataLoaders

Way = Callable[[], float]  # does one round of its work and returns its rate


@dataclass(frozen=True, kw_only=True)
class Case:
    """Images of one size to views of one size. batches: of a round, by way, for 2 to 6 seconds on two cores."""

    preset: str
    side: int  # pixels of a view
    height: int  # pixels of an image
    width: int
    batch: int
    held: int  # images in memory
    batches: Mapping[str, int]
    goal: Goal | None = None
    rounds: int = ROUNDS

    @property
    def crop(self) -> CropConfig:
        return PRESETS[self.preset][0]

    @property
    def name(self) -> str:
        return f"views at {self.side} px from {self.width}x{self.height}"


_SMALL = Case(
    preset="moco_v2_cifar",
    side=32,
    height=32,
    width=32,
    batch=256,
    held=8192,
    batches={"cpu": 240, "gpu": 16, "exact": 8, "lightly": 16, "torchvision": 10, "kornia": 32},
    goal=Goal(floor=10, target=20),
)
_LARGE = Case(
    preset="moco_v2",
    side=224,
    height=375,
    width=500,
    batch=64,
    held=256,
    batches={"cpu": 64, "gpu": 2, "exact": 6, "lightly": 8, "torchvision": 4, "kornia": 2},
    goal=Goal(floor=5, target=8),
)
CASES = {"at_32": _SMALL, "at_224_from_400": replace(_LARGE, height=300, width=400, goal=None), "at_224": _LARGE}


def measure(case: Case, rivals: Sequence[str] = ("lightly", "torchvision", "kornia")) -> list[Pair]:
    """Ours beside each rival, then our two other executors beside the first of them; all in turns."""
    pixels, what = _pixels(case)
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    try:
        # Those that fork come first: a worker should not inherit the middle of somebody's threads.
        ways = {name: RIVALS[name](case, pixels) for name in rivals}
        ways |= {executor: ours(case, pixels, executor) for executor in ("cpu", "gpu", "exact")}
        rounds = in_turns(ways, case.rounds)
    finally:
        torch.set_num_threads(before)
    blurred = f"blur {case.crop.blur:g}" if case.crop.blur else "no blur"
    note = f"{what}; batches of {case.batch}, {case.preset} ({blurred})"

    def beside(way: str, rival: str, name: str, goal: Goal | None = None) -> Pair:
        rates = [(rates[way], rates[rival]) for rates in rounds]
        return paired(name, "views/s", rates, SPOKEN[rival], goal=goal, note=note)

    found = [beside("cpu", name, case.name, case.goal if name == "lightly" else None) for name in rivals]
    found.append(beside("exact", rivals[0], f"{case.name}, executor exact"))
    found.append(beside("gpu", rivals[0], f"{case.name}, executor gpu on the CPU"))
    return found


def in_turns(ways: Mapping[str, Way], rounds: int) -> list[dict[str, float]]:
    """Each once to warm up, then their rates in every round."""
    for way in ways.values():
        way()
    return [{name: way() for name, way in ways.items()} for _ in range(rounds)]


def _pixels(case: Case) -> tuple[images.Pixels, str]:
    if (case.height, case.width) == (32, 32):
        return images.small(case.held)
    return images.photographs(case.held, case.height, case.width)


# --- ours -------------------------------------------------------------------------------------------------------------


@dataclass
class Held:
    """Decoded images of one size as a split."""

    pixels: images.Pixels  # [N, H, W, 3]
    labels: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> Any:
        return self.pixels[index]

    def name(self, index: int) -> str:
        return f"image {index}"

    def take(self, index: NDArray[np.int64]) -> Any:
        return together(self.pixels, index)  # as from the packed store


def maker_of(preset: str, side: int, executor: Any = "cpu") -> ViewMaker:
    config = ViewsConfig(image_size=side, crops=PRESETS[preset], executor=executor)
    return ViewMaker(config, 3, seed=0, device=torch.device("cpu"), threads=THREADS)


def ours(case: Case, pixels: images.Pixels, executor: str) -> Way:
    loader = Loader(Held(pixels), case.batch, seed=0)
    maker = maker_of(case.preset, case.side, executor)
    steps = case.batches[executor]
    return lambda: 2 * steps * case.batch / seconds(lambda: feed(maker, loader, 0, steps))


def feed(maker: ViewMaker, loader: Loader, start: int, stop: int) -> None:
    """The views of steps start .. stop - 1 as a run gets them."""

    def views_at(step: int) -> Views:
        return maker(loader.batch(step))

    with Feed(views_at, start, stop, LoopConfig().prefetch) as batches:
        for _ in batches:
            pass


# --- the rivals -------------------------------------------------------------------------------------------------------

Transform = Callable[[Any], list[Tensor]]  # an image -> its two views [3, S, S]


class InMemory(Dataset[list[Tensor]]):
    """`count` times an image that is held decoded -> its views."""

    def __init__(self, pixels: images.Pixels, count: int, load: Callable[[images.Pixels], Any], transform: Transform):
        self.pixels, self.count, self.load, self.transform = pixels, count, load, transform

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> list[Tensor]:
        return self.transform(self.load(self.pixels[index % len(self.pixels)]))


def workers(dataset: Any, batch: int) -> DataLoader[Any]:
    """A DataLoader as the rivals' examples have it; a worker computes with one thread, which is torch's default."""
    return DataLoader(dataset, batch, shuffle=True, drop_last=True, num_workers=THREADS, persistent_workers=True)


def epoch(loader: DataLoader[Any]) -> None:
    for _ in loader:
        pass


def lightly_transform(crop: CropConfig, side: int) -> Transform:
    """lightly's SimSiamTransform with the law of `crop`."""
    from lightly.transforms import SimSiamTransform

    check(crop)
    return SimSiamTransform(  # type: ignore[no-any-return]
        input_size=side,
        cj_prob=crop.jitter,
        cj_strength=1.0,
        cj_bright=crop.brightness,
        cj_contrast=crop.contrast,
        cj_sat=crop.saturation,
        cj_hue=crop.hue,
        min_scale=crop.scale[0],
        random_gray_scale=crop.grayscale,
        gaussian_blur=crop.blur,
        sigmas=crop.blur_sigma,
        vf_prob=crop.vflip,
        hf_prob=crop.hflip,
        rr_prob=0.0,
        normalize={"mean": list(IMAGENET_MEAN), "std": list(IMAGENET_STD)},
    )


def torchvision_transform(crop: CropConfig, side: int) -> Transform:
    """The same by torchvision v2; what is never drawn is left out."""
    check(crop)
    jitter = v2.ColorJitter(crop.brightness, crop.contrast, crop.saturation, crop.hue)
    steps: list[Any] = [
        v2.RandomResizedCrop(side, crop.scale, crop.ratio, antialias=True),
        v2.RandomHorizontalFlip(crop.hflip),
        v2.RandomApply([jitter], crop.jitter),
        v2.RandomGrayscale(crop.grayscale),
    ]
    if crop.blur:
        steps.append(v2.RandomApply([v2.GaussianBlur(taps(crop, side), crop.blur_sigma)], crop.blur))
    steps += [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(IMAGENET_MEAN, IMAGENET_STD)]
    view = v2.Compose(steps)
    return lambda image: [view(image), view(image)]


def kornia_transform(crop: CropConfig, side: int) -> Callable[[Tensor], Tensor]:
    """The same by kornia: [B, 3, H, W], 0 to 1 -> one view of each, [B, 3, S, S]."""
    import kornia.augmentation as K

    check(crop)
    steps: list[Any] = [
        K.RandomResizedCrop((side, side), crop.scale, crop.ratio),
        K.RandomHorizontalFlip(p=crop.hflip),
        K.ColorJitter(crop.brightness, crop.contrast, crop.saturation, crop.hue, p=crop.jitter),
        K.RandomGrayscale(p=crop.grayscale),
    ]
    if crop.blur:
        steps.append(K.RandomGaussianBlur((taps(crop, side),) * 2, crop.blur_sigma, p=crop.blur))
    steps.append(K.Normalize(torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)))
    return K.AugmentationSequential(*steps)  # type: ignore[no-any-return]


def check(crop: CropConfig) -> None:
    """The rivals' transforms above have no more than this."""
    plain = CropConfig()
    never = ("vflip", "quarter_turns", "rotation", "solarize")
    assert (crop.scale[1], crop.ratio, crop.interpolation) == (plain.scale[1], plain.ratio, plain.interpolation)
    assert not any(getattr(crop, name) for name in never)


def taps(crop: CropConfig, side: int) -> int:
    return 2 * blur_radius(crop.blur_sigma[1], side) + 1


def _loaded(case: Case, pixels: images.Pixels, way: str, load: Callable[[Any], Any], transform: Transform) -> Way:
    count = case.batches[way] * case.batch
    loader = workers(InMemory(pixels, count, load, transform), case.batch)
    return lambda: 2 * count / seconds(lambda: epoch(loader))


def _lightly(case: Case, pixels: images.Pixels) -> Way:
    return _loaded(case, pixels, "lightly", Image.fromarray, lightly_transform(case.crop, case.side))


def _torchvision(case: Case, pixels: images.Pixels) -> Way:
    # Pillow images: a quarter faster than uint8 tensors at 32 px, a few percent at 96 px
    return _loaded(case, pixels, "torchvision", Image.fromarray, torchvision_transform(case.crop, case.side))


def _kornia(case: Case, pixels: images.Pixels) -> Way:
    view = kornia_transform(case.crop, case.side)
    loader = Loader(Held(pixels), case.batch, seed=0)
    steps = case.batches["kornia"]

    @torch.no_grad()
    def run() -> None:
        for step in range(steps):
            stack = torch.from_numpy(np.asarray(loader.batch(step).samples))  # [B, H, W, 3]
            x = stack.permute(0, 3, 1, 2).float() / 255
            view(x), view(x)

    return lambda: 2 * steps * case.batch / seconds(run)


RIVALS: dict[str, Callable[[Case, images.Pixels], Way]] = {
    "lightly": _lightly,
    "torchvision": _torchvision,
    "kornia": _kornia,
}
SPOKEN = {
    "lightly": f"lightly, {THREADS} workers",
    "torchvision": f"torchvision v2, {THREADS} workers",
    "kornia": f"kornia, {THREADS} threads",
}
MEASURES: dict[str, Callable[[], list[Pair]]] = {name: partial(measure, case) for name, case in CASES.items()}
