"""METHOD/folder: settings for images nobody has seen before, chosen by what they are and by the machine.

Heads and optimiser are those of one of the method's presets: METHOD/scenes for `tiny`, METHOD/cifar10 for small images,
METHOD/small for few large ones where the method has it, else METHOD/imagenet or what else it has for ImageNet. What
belongs to a preset's own length, batch or number of images is fitted to these (`recipes.fitted`).

Every number that decides is a constant here. Where one was measured, it says where; the others are the papers' or a
first guess that nobody has measured yet, and say that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from stopgrad.data import DataConfig
from stopgrad.data.probe import Machine, Probe, this_machine
from stopgrad.nn.config import BackboneConfig
from stopgrad.recipe import Recipe
from stopgrad.recipes.base import TINY_BATCH
from stopgrad.recipes.fitted import crops_at, in_place_of, of_batch, of_length, patches_at
from stopgrad.training.config import LoopConfig, WatchConfig
from stopgrad.views.config import CropConfig, ViewsConfig
from stopgrad.views.sensors import Sensor, geometric, only_colour

# --- image size ---
GPU_SIZES = (224, 128, 96, 64, 32)  # the largest that the median shorter side reaches
CPU_SIZES = (64, 48, 32)  # as well, but only as far as STEPS_CPU fit the time
NEARLY = 0.9  # of a size is enough: 200-pixel images are trained at 224

# --- time on a CPU ---
# Whole loop of `tiny` at 32 pixels with its monitors: `make demo`, two cores in bfloat16, 1,036 steps of 128 in 240 s.
IMAGES_PER_CORE_SECOND = 275.0
STEP_SECONDS = 0.03  # of any step, however few its images: optimiser and calls; a guess
MOST_CORES = 16  # beyond it, small convolutions gain little: a guess
PATIENCE_MINUTES = 40.0  # what a run on a CPU may take where no --minutes is given: a guess

# --- backbone and heads ---
LARGE_SET = 100_000  # images from which a ResNet-50 is worth its time: a guess; ImageNet-100 has 127,000
RESNET50_FROM = 128  # pixels
LARGE_PRESETS = ("imagenet_resnet50", "imagenet_vit", "imagenet")  # the first whose backbone is of the same family

# --- batch ---
STEPS_PER_EPOCH = 10  # at least, where there are images enough: batch norm moves once a step
SMALLEST_BATCH, LARGEST_CPU_BATCH, LARGEST_GPU_BATCH = 16, TINY_BATCH, 512  # tiny's, the paper's
# Activations of one view of 224 pixels in bfloat16, MB: read off ResNet's layer sizes, not measured.
VIEW_MB = {"resnet18": 13.0, "resnet50": 50.0}
SMALL_STEM_FACTOR = 16.0  # the 3x3 stem without pooling keeps maps four times as wide and high
SHARE_OF_MEMORY = 0.7

# --- length ---
STEPS_CPU, STEPS_GPU = 2_000, 50_000  # at least; NEU needs about 1,500 on `tiny` (README), CIFAR-10 78,000 (paper)
PASSES_CPU, PASSES_GPU = 10, 100  # epochs at least; the paper: 100 on ImageNet
MOST_STEPS_CPU, MOST_STEPS_GPU = 20_000, 500_000
MOST_EPOCHS = 1_000

# --- views and storage ---
BLUR_ABOVE = 64  # pixels; the paper takes the blur away at 32 (appendix D)
STORED_SIDE = 4  # times image_size: a crop of a fifth of the area still has more pixels than it needs
LARGEST_STORED = 512  # pixels
MOSTLY = 0.5  # share of the images that must have 16 bits for 16 to be kept


@dataclass(slots=True)
class _Choice:
    """What has been chosen so far, and why: key of the recipe -> sentence."""

    probe: Probe
    machine: Machine
    given: Mapping[str, Any]  # settings the user has chosen; everything else follows from them too
    minutes: float
    presets: Mapping[str, Callable[[], Recipe]]  # the method's
    reasons: dict[str, str] = field(default_factory=dict)

    @property
    def gpu(self) -> bool:
        return bool(self.machine.gpu)

    def take(self, key: str, found: Any, why: str) -> Any:
        """The user's value of `key`, else `found`, and the reason for it."""
        value = self.given.get(key, found)
        self.reasons[key] = why if value == found else ""
        return value


def folder(
    probe: Probe,
    machine: Machine,
    presets: Mapping[str, Callable[[], Recipe]],
    given: Mapping[str, Any] | None = None,
    minutes: float = 0.0,
) -> tuple[Recipe, dict[str, str]]:
    """A method for the images of `probe` on `machine`: the recipe, and {setting: why it is as it is}.

    presets: the method's, `scenes`, `cifar10` and `imagenet` among them.

    given: settings that are decided already, by dotted key; the others are chosen to go with them, and no reason is
    given for what was not chosen here. minutes: how long training may take; 0 where nobody said. The source's name is
    not set.
    """
    it = _Choice(probe, machine, dict(given or {}), minutes, presets)
    depth, channels = _channels(it)
    train = min(probe.train, it.given.get("data.limit") or probe.train)
    held = min(WatchConfig().images, train // 10)
    usable = max(2, train - held if held >= 16 else train)  # as build.split_held
    batch_guess = min(_round_down(usable / STEPS_PER_EPOCH), LARGEST_GPU_BATCH if it.gpu else LARGEST_CPU_BATCH)
    size = _image_size(it, max(batch_guess, SMALLEST_BATCH))
    name = _backbone(it, size, usable)
    by_size = _by_size(it, name, size, usable)
    preset, looks = presets["scenes" if name == "tiny" else by_size](), presets[by_size]()
    if name == "tiny":
        it.reasons["optim.base_lr"] = "with smaller heads: what tiny was measured with (docs/tiny.md)"
    else:
        it.reasons["optim.base_lr"] = f"as {preset.method.name}/{by_size}"
    (_, of_heads), (_, seen) = (of.of_images(f"{preset.method.name}/folder") for of in (preset, looks))
    crops = crops_at(seen.crops, size, seen.image_size)
    batch = _batch(it, usable, size, name, sum(((crop.size or size) / size) ** 2 for crop in crops))
    epochs = _epochs(it, usable, batch, size, name)
    method, fitted = of_batch(preset.method, batch, it.given.get("loop.accumulate") or 1, usable)
    recipe = Recipe(
        method=method,
        data=DataConfig(
            channels=channels,
            depth=depth,
            max_side=_max_side(it, size, channels, depth),
            sensors=it.given.get("data.sensors", ()),
        ),
        views=_statistics(it, _views(it, crops, size, f"{preset.method.name}/{by_size}", channels, depth), looks),
        backbone=_seen_as(it, in_place_of(preset.backbone, name), size, of_heads.image_size),
        optim=preset.optim,
        loop=LoopConfig(
            epochs=preset.loop.epochs,
            batch_size=batch,
            view_threads=max(1, min(8 if it.gpu else 2, machine.cores)),
        ),
    )
    it.reasons |= fitted
    if not minutes:  # they become epochs later: the preset's until then
        recipe, shortened = of_length(recipe, epochs)
        it.reasons |= shortened
    return recipe, {key: why for key, why in it.reasons.items() if why}


def _channels(it: _Choice) -> tuple[Any, int]:
    probe = it.probe
    what = {1: "are gray", 3: "are in colour"}.get(probe.channels, f"have {probe.channels} bands")
    seen = f"the {probe.looked_at:,} images looked at {what}" if probe.channels != 3 else "there is colour in them"
    channels = it.take("data.channels", probe.channels, seen)
    deep = probe.deep > MOSTLY
    depth = it.take("data.depth", 16 if deep else 8, f"{100 * probe.deep:.0f} % of the files have more than 8 bits")
    if not probe.deep:
        it.reasons.pop("data.depth")
    return depth, channels


def _image_size(it: _Choice, batch: int) -> int:
    short = it.probe.short
    reach = [size for size in (GPU_SIZES if it.gpu else CPU_SIZES) if short >= NEARLY * size]
    if not reach:
        return int(it.take("views.image_size", 32, f"the smallest there is; shorter sides are {short} in the middle"))
    if it.gpu:
        why = f"the largest of {_listed(GPU_SIZES)} that shorter sides of {short} in the middle reach"
        return int(it.take("views.image_size", reach[0], why))
    limit = it.minutes or PATIENCE_MINUTES
    fits = [size for size in reach if _cpu_minutes(it, STEPS_CPU, batch, size) <= limit]
    size = fits[0] if fits else reach[-1]
    why = f"shorter sides are {short} in the middle"
    if len(reach) < len(CPU_SIZES):
        why = f"the largest of {_listed(CPU_SIZES)} that shorter sides of {short} in the middle reach"
    if larger := [other for other in reach if other > size]:
        slow, quick = (_cpu_minutes(it, STEPS_CPU, batch, one) for one in (larger[-1], size))
        why += (
            f"; without a GPU {STEPS_CPU:,} steps take about {slow:.0f} minutes at {larger[-1]}, {quick:.0f} at {size}"
        )
    elif size == CPU_SIZES[0] and short > size / NEARLY:
        why += f"; without a GPU no more than {size}"
    return int(it.take("views.image_size", size, why))


def _cpu_minutes(it: _Choice, steps: int, batch: int, size: int) -> float:
    rate = IMAGES_PER_CORE_SECOND * min(it.machine.cores, MOST_CORES) * (32 / size) ** 2
    return steps * (batch / rate + STEP_SECONDS) / 60


def _backbone(it: _Choice, size: int, images: int) -> str:
    if not it.gpu:
        found, why = "tiny", f"there is no GPU ({it.machine.cores} cores)"
    elif size >= RESNET50_FROM and images >= LARGE_SET:
        found, why = "resnet50", f"{it.machine.gpu}, {images:,} images of {size} pixels"
    else:
        less = f"fewer than {LARGE_SET:,} images" if images < LARGE_SET else f"{size} pixels"
        found, why = "resnet18", f"{it.machine.gpu}, {less}"
    return str(it.take("backbone.name", found, why))


def _by_size(it: _Choice, backbone: str, size: int, images: int) -> str:
    """Which of the method's presets goes with images of that size, so many of them, and the backbone's family."""
    if size <= BLUR_ABOVE:
        return "cifar10"
    wanted = ["small", *LARGE_PRESETS] if images < LARGE_SET else [*LARGE_PRESETS]
    there = [name for name in wanted if name in it.presets]
    family = [name for name in there if _is_vit(it.presets[name]().backbone.name) == _is_vit(backbone)]
    return [*family, *there][0]


def _is_vit(backbone: str) -> bool:
    return backbone.startswith("vit")


def _batch(it: _Choice, images: int, size: int, backbone: str, views: float) -> int:
    """views: what the crops of an image come to, in crops of `size`."""
    most = LARGEST_GPU_BATCH if it.gpu else LARGEST_CPU_BATCH
    if it.gpu and it.machine.gpu_memory:
        a_view = VIEW_MB.get(backbone, VIEW_MB["resnet50"]) * (size / 224) ** 2
        a_view *= SMALL_STEM_FACTOR if size <= BLUR_ABOVE else 1.0
        most = min(most, max(2, _round_down(SHARE_OF_MEMORY * it.machine.gpu_memory / (views * 1e6 * a_view))))
    found = min(most, max(SMALLEST_BATCH, _round_down(images / STEPS_PER_EPOCH)), max(2, _round_down(images)))
    steps = images // found
    why = f"{images:,} images give {steps:,} step{'s' * (steps != 1)} an epoch"
    return int(it.take("loop.batch_size", found, why))


def _epochs(it: _Choice, images: int, batch: int, size: int, backbone: str) -> int:
    steps = max(1, images // batch)
    least, passes, most = (STEPS_GPU, PASSES_GPU, MOST_STEPS_GPU) if it.gpu else (STEPS_CPU, PASSES_CPU, MOST_STEPS_CPU)
    wanted = min(max(least, passes * steps), most)
    epochs = max(1, min(MOST_EPOCHS, math.ceil(wanted / steps)))
    why = f"{epochs * steps:,} steps"
    if not it.gpu and backbone == "tiny":
        why += f", very roughly {_cpu_minutes(it, epochs * steps, batch, size):.0f} min (--minutes N sets a time)"
    if it.minutes:  # they become epochs later, with a reason of their own
        why = ""
    return int(it.take("loop.epochs", epochs, why))


def _max_side(it: _Choice, size: int, channels: int, depth: int) -> int:
    narrow = math.ceil(size * it.probe.long / max(1, it.probe.short))  # the shorter side of a panorama fills a crop
    side = min(LARGEST_STORED, max(STORED_SIDE * size, narrow, 32))
    kept = min(1.0, side / max(1, it.probe.long))
    megabytes = it.probe.images * it.probe.short * it.probe.long * kept**2 * channels * depth / 8 / 1e6
    why = f"longer sides, {it.probe.long} in the middle, are kept at {side / size:.3g} times a crop: "
    why += f"about {_size(megabytes)} on disk"
    found = it.take("data.max_side", side, why)
    if kept == 1.0:
        it.reasons.pop("data.max_side")
    return max(int(found), int(size))


def _views(
    it: _Choice, crops: tuple[CropConfig, ...], size: int, preset: str, channels: int, depth: int
) -> ViewsConfig:
    # a flip that InstDisc's script for CIFAR-10 has commented out is no reason to do without it
    crops = tuple(replace(crop, hflip=crop.hflip or CropConfig().hflip) for crop in crops)
    blurred = any(crop.blur for crop in crops)
    said = [f"as {preset}, {'with' if blurred else 'without'} blur at {size} pixels"]
    if not only_colour(_sensors(it)):
        crops = tuple(map(geometric, crops))
        said.append("nothing that changes colours: depths, labels and normals are none")
    elif channels != 3:
        crops = tuple(_colourless(crop) for crop in crops)
        said.append("no change of hue or saturation")
    it.reasons["views.crops"] = ", ".join(said)
    if channels in (1, 3) and depth == 8:
        return ViewsConfig(image_size=size, crops=crops)
    it.reasons["views.mean"] = "mean and std are measured on these images, which are no 8-bit photographs"
    return ViewsConfig(image_size=size, crops=crops, mean=(), std=())


def _statistics(it: _Choice, views: ViewsConfig, looks: Recipe) -> ViewsConfig:
    """A backbone that splits colours takes pixels as they are, whatever the images."""
    if looks.backbone.split == "none" or len(_sensors(it)) > 1:  # of several, whoever measures sees to it
        return views
    it.reasons["views.mean"] = "pixels stay from 0 to 1: the backbone makes lightness and colour of them"
    _, seen = looks.of_images("backbone.split")
    return replace(views, mean=seen.mean, std=seen.std)


def _sensors(it: _Choice) -> tuple[Sensor, ...]:
    return DataConfig(sensors=it.given.get("data.sensors", ())).scene_sensors()


def _seen_as(it: _Choice, backbone: BackboneConfig, size: int, before: int) -> BackboneConfig:
    """A backbone for each sensor, where the preset splits the one picture it has; its patches at this size."""
    sensors = _sensors(it)
    if backbone.split == "none" or len(sensors) < 2:
        return replace(backbone, patches=patches_at(backbone.patches, size, before))
    it.reasons["backbone.split"] = "a backbone for each of data.sensors"
    return replace(backbone, split="sensors_lab" if sensors[0].what == "rgb" else "sensors")


def _colourless(crop: CropConfig) -> CropConfig:
    return replace(crop, saturation=0.0, hue=0.0, grayscale=0.0)


def _round_down(count: float) -> int:
    """The power of two at or below it."""
    return 1 << max(0, int(math.log2(max(1.0, count))))


def _listed(sizes: tuple[int, ...]) -> str:
    return ", ".join(map(str, sorted(sizes)))


def _size(megabytes: float) -> str:
    return f"{megabytes / 1000:.1f} GB" if megabytes >= 1000 else f"{max(1, round(megabytes))} MB"


# Settings that others follow from: `folder` wants to know those that were decided elsewhere.
DECIDES = (
    "data.channels",
    "data.sensors",
    "data.depth",
    "data.limit",
    "data.max_side",
    "views.image_size",
    "backbone.name",
    "loop.batch_size",
    "loop.accumulate",
    "loop.epochs",
)


# 12,500 colour photographs, a fifth of them for the test: what `unseen` supposes.
TYPICAL = Probe(images=12_500, train=10_000, sizes=np.array([[375, 500]], np.int64), channels=3, deep=0.0)


def unseen(presets: Mapping[str, Callable[[], Recipe]]) -> Recipe:
    """Any images of yours: settings chosen from them and from the machine, with reasons (stopgrad check DIR).

    Without images: what would be chosen here for 10,000 colour photographs of 500 x 375.
    """
    recipe, _ = folder(TYPICAL, this_machine(), presets)
    return replace(recipe, data=replace(recipe.data, source="DIR"))
