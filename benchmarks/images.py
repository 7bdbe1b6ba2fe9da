"""The images that are measured: real ones from STOPGRAD_BENCH_DATA where they fit, else pictures made on the spot.

STOPGRAD_BENCH_DATA is a folder with cifar10/ and imagenette/ unpacked. Every function says which of the two it gave.
Photographs are real only where Imagenette has its full size; its 160-pixel edition says nothing about decoding 500x375.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from stopgrad.data import scenes

Pixels = NDArray[np.uint8]  # [H, W, 3], or [N, H, W, 3]

QUALITY = 95  # of JPEGs made here: 94 KB at 500x375, near ImageNet's 110 KB a file; decoding costs as real texture does
CLASSES = 4  # folders that JPEGs are spread over
SUFFIXES = (".jpg", ".jpeg", ".png")
_AHEAD = 16  # pictures in the making at a time


def small(count: int) -> tuple[Pixels, str]:
    """[N, 32, 32, 3], and what they are."""
    files = _files("cifar10/train", count, lambda size: size == (32, 32))
    if files:
        return np.stack([np.asarray(Image.open(path).convert("RGB")) for path in files]), f"{count:,} of CIFAR-10"
    pixels, _ = scenes.render_rgb(scenes.TRAIN_SEED, np.arange(count), 32)
    return pixels, f"{count:,} scenes"


def photographs(count: int, height: int, width: int) -> tuple[Pixels, str]:
    """[N, H, W, 3], and what they are."""
    files = _files("imagenette", count, lambda size: size[0] >= width and size[1] >= height)
    if files:
        cut = (ImageOps.fit(Image.open(path).convert("RGB"), (width, height)) for path in files)
        return np.stack([np.asarray(image) for image in cut]), f"{count:,} of Imagenette"
    return np.stack(list(_made(count, height, width))), f"{count:,} pictures of smoothed noise"


def jpeg_folder(folder: Path, count: int, height: int, width: int) -> str:
    """Fills `folder` with class folders of JPEGs of about this size; what they are, and how large."""
    for number in range(CLASSES):
        (folder / f"class{number}").mkdir(parents=True)
    places = [folder / f"class{i % CLASSES}" / f"{i:05d}.jpg" for i in range(count)]
    near = 0.8 * max(height, width), 1.25 * max(height, width)
    files = _files("imagenette", count, lambda size: near[0] <= max(size) <= near[1])
    if files:
        for source, place in zip(files, places, strict=True):
            shutil.copyfile(source, place)
    else:
        for pixels, place in zip(_made(count, height, width), places, strict=True):
            Image.fromarray(pixels).save(place, "JPEG", quality=QUALITY)
    kilobytes = sum(place.stat().st_size for place in places) / count / 1e3
    what = "JPEGs of Imagenette" if files else f"JPEGs of {width}x{height} made of smoothed noise"
    return f"{count:,} {what}, {kilobytes:.0f} KB each"


def smoothed_noise(seed: int, height: int, width: int) -> Pixels:
    """[H, W, 3]: noise of grains of 1, 2, 4, ... 128 pixels, stronger where coarser, more gray than coloured."""
    rng = np.random.default_rng(seed)
    total = np.full((height, width, 3), 115, np.float32)
    for grain in 2 ** np.arange(8):
        coarse = -(-height // grain) + 1, -(-width // grain) + 1
        gray, colour = (rng.standard_normal((*coarse, bands), np.float32) for bands in (1, 3))
        total += 5 * grain**0.5 * cv2.resize(gray + 0.4 * colour, (width, height), interpolation=cv2.INTER_CUBIC)
    return total.clip(0, 255).astype(np.uint8)


def _made(count: int, height: int, width: int) -> Iterator[Pixels]:
    with ThreadPoolExecutor(2) as pool:
        for begin in range(0, count, _AHEAD):
            seeds = range(begin, min(begin + _AHEAD, count))
            yield from pool.map(partial(smoothed_noise, height=height, width=width), seeds)


def _files(below: str, count: int, fits: Callable[[tuple[int, int]], bool]) -> list[Path]:
    """`count` image files there, drawn at random, whose (width, height) fits; none where there are fewer."""
    root = os.environ.get("STOPGRAD_BENCH_DATA")
    if not root:
        return []
    found = sorted(path for path in (Path(root) / below).rglob("*") if path.suffix.lower() in SUFFIXES)
    random.Random(0).shuffle(found)
    chosen = list(islice((path for path in found if fits(_size(path))), count))
    return chosen if len(chosen) == count else []


def _size(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size
