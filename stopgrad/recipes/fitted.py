"""A preset fitted to what it was not written for: another length, batch, number or size of images, another backbone.

What changes is told: {setting: why}, which `told` makes lines of.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from stopgrad.methods import MethodConfig
from stopgrad.nn.config import BackboneConfig
from stopgrad.nn.text_config import HUGGING_FACE
from stopgrad.recipe import Recipe
from stopgrad.recipe.typed import plain
from stopgrad.recipes.text_backbones import with_text_backbone
from stopgrad.views.config import CropConfig

# What a run begins with may take one part in so many of its epochs. The papers' presets stay within them at their own
# length, but for MoCo v3's ViT (a warm-up of 40 in 300).
PARTS = {
    "optim.warmup_epochs": (10, "a tenth"),
    "method.frozen_epochs": (10, "a tenth"),  # prototypes that are frozen to the end would never be trained
    "method.queue_from_epoch": (5, "a fifth"),  # a queue that begins after the end would be read by nobody
    "method.warmup_teacher_epochs": (3, "a third"),
}
PATCH = 16  # pixels; sides of local crops are multiples of it, which ViTs on patches of 16 and ResNets take
SMALLEST_PATCH = 4  # pixels, of CPC's
GROUP = 32  # images a batch norm of MoCo's sees; the papers: 256 over 8 GPUs


def of_length(recipe: Recipe, epochs: int) -> tuple[Recipe, dict[str, str]]:
    """The recipe with that many epochs; where they are fewer than before, what it begins with is shortened."""
    before = recipe.loop.epochs
    changed: dict[str, dict[str, Any]] = {"optim": {}, "method": {}}
    reasons = {}
    for key, (parts, words) in PARTS.items() if epochs < before else ():
        group, _, name = key.partition(".")
        value: Any = getattr(getattr(recipe, group), name, 0)
        most = round(epochs / parts, 3) if group == "optim" else epochs // parts
        if name == "warmup_teacher_epochs":  # without any, the temperature it begins at would be read by nothing
            most = max(1, most)
        unread = name == "queue_from_epoch" and not getattr(recipe.method, "queue_size", 0)
        if value > most and not unread:
            changed[group][name] = most
            reasons[key] = f"no more than {words} of the epochs, {epochs}; it was {value:g} of {before}"
    fitted = replace(
        recipe,
        optim=replace(recipe.optim, **changed["optim"]),
        method=replace(recipe.method, **changed["method"]),
        loop=replace(recipe.loop, epochs=epochs),
    )
    return fitted, reasons


def of_size(recipe: Recipe, size: int, max_side: int) -> tuple[Recipe, dict[str, str]]:
    """The recipe at another views.image_size, the crops that name a side of their own in proportion.

    max_side: data.max_side that goes with it. Raises ConfigError where it is below `size`.
    """
    data, views = recipe.of_images("views.image_size")
    before = views.image_size
    crops = crops_at(views.crops, size, before)
    why = f"sides that are named, those of local crops, go with views.image_size, {size} instead of {before}"
    reasons = {"views.crops": why} if crops != views.crops else {}
    views, data = replace(views, image_size=size, crops=crops), replace(data, max_side=max_side)
    recipe = replace(recipe, views=views, data=data)
    if patches := patches_at(recipe.backbone.patches, size, before):
        recipe = replace(recipe, backbone=replace(recipe.backbone, patches=patches))
        reasons["backbone.patches"] = f"goes with views.image_size, {size} instead of {before}"
    return recipe, reasons


def crops_at(crops: tuple[CropConfig, ...], size: int, before: int) -> tuple[CropConfig, ...]:
    """Crops of a preset whose images have a side of `before` pixels, for `size`: local ones keep their share."""
    if size == before:
        return crops
    return tuple(replace(crop, size=_share(crop.size * size / before, size)) if crop.size else crop for crop in crops)


def patches_at(patches: int, size: int, before: int) -> int:
    """Side of a preset's patches, whose images have a side of `before` pixels, for `size`: even, 0 stays 0, and there
    are no fewer rows."""
    if not patches or size == before:
        return patches
    return max(SMALLEST_PATCH, 2 * int(patches * size / before / 2))


def _share(side: float, size: int) -> int:
    return min(size, max(PATCH, PATCH * round(side / PATCH)))


def of_batch(method: MethodConfig, batch: int, accumulate: int, images: int) -> tuple[MethodConfig, dict[str, str]]:
    """The method with batch norm's groups and a queue that fit a batch, and `images` that are trained on."""
    changed: dict[str, int] = {}
    reasons = {}
    at_once = max(1, batch // accumulate)
    if splits := getattr(method, "bn_splits", 0):
        wanted = max(1, round(at_once / GROUP))
        changed["bn_splits"] = next(n for n in range(wanted, 0, -1) if at_once % n == 0)
        if changed["bn_splits"] != splits:
            groups = f"a group of {at_once}" if wanted == 1 else f"groups of {at_once // changed['bn_splits']}"
            reasons["method.bn_splits"] = f"{groups} for batch norm; the papers' have {GROUP}"
    if queue := getattr(method, "queue_size", 0):
        below = 1 << (max(2, images).bit_length() - 1)  # the power of two at or below it
        changed["queue_size"] = max(2 * batch, min(queue, below))
        if changed["queue_size"] < queue:
            reasons["method.queue_size"] = f"no more than the images, {images:,}: else it holds an image's own past"
        elif changed["queue_size"] > queue:
            reasons["method.queue_size"] = f"two batches of {batch}"
    return replace(method, **changed), reasons  # type: ignore[arg-type]


def with_backbone(
    recipe: Recipe, name: str, presets: Mapping[str, Callable[[], Recipe]]
) -> tuple[Recipe, dict[str, str]]:
    """The recipe with another backbone, and {setting: why} for what changes with it.

    Heads, batch and rate of a paper are those of its backbone; `tiny` brings the method's own. Another timm model keeps
    the recipe's, which is all that is known.
    """
    if recipe.views.kind == "text" or name.startswith(HUGGING_FACE):
        return with_text_backbone(recipe, name)
    recipe = replace(recipe, backbone=in_place_of(recipe.backbone, name))
    if name != "tiny" or "scenes" not in presets:
        return recipe, {}
    small = presets["scenes"]()
    loop = replace(recipe.loop, batch_size=small.loop.batch_size, accumulate=1)
    why = "what tiny was measured with (docs/tiny.md); the preset's belongs to its own backbone"
    before, after = plain(recipe.method), plain(small.method)
    changed = [f"method.{key}" for key, value in after.items() if before[key] != value]
    keys = ("loop.batch_size", "optim.base_lr", *changed)
    return replace(recipe, method=small.method, optim=small.optim, loop=loop), dict.fromkeys(keys, why)


def in_place_of(backbone: BackboneConfig, name: str) -> BackboneConfig:
    """Another backbone that sees images as the one before did: split, or as patches, which want its norm (CPC).

    Stem and width were the other's own; and how many of a ResNet's stages there are, for `tiny` has three.
    """
    if not backbone.patches:
        return BackboneConfig(name=name, split=backbone.split)
    seen = BackboneConfig(name=name, norm=backbone.norm, patches=backbone.patches)
    return seen if name == "tiny" else replace(seen, stages=backbone.stages)


def told(recipe: Recipe, chosen: Recipe, reasons: Mapping[str, str]) -> tuple[str, ...]:
    """`KEY VALUE: why`, a line each, without what `recipe` has otherwise than it was `chosen`."""
    now, before = plain(recipe), plain(chosen)
    lines = []
    for key, why in reasons.items():
        value, other = (_at(values, key) for values in (now, before))
        if value == other:
            lines.append(f"{key}: {why}" if isinstance(value, list | dict) else f"{key} {value}: {why}")
    return tuple(lines)


def _at(values: Any, key: str) -> Any:
    for part in key.split("."):
        values = values[part]
    return values
