"""Evaluating one view of a split backbone alone: lightness, or one of several sensors (eval.tower)."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from stopgrad.contracts import ConfigError, Preprocess
from stopgrad.media import AnyPreprocess, medium_of
from stopgrad.media.medium import Raw
from stopgrad.nn.colour_split import LabSplit
from stopgrad.nn.towers import SensorTowers, SomeViews
from stopgrad.views.sensors import part_of, sensors_of, view_names


def seen_by(backbone: nn.Module, preprocess: AnyPreprocess, tower: str, *, or_all: bool = False) -> nn.Module:
    """The backbone with the features of `tower` alone; as it is where `tower` is "".

    or_all: also where it has no such tower, for which ConfigError is raised otherwise.
    """
    if not tower:
        return backbone
    split = "lab" if isinstance(backbone, LabSplit) else "none"
    if isinstance(backbone, SensorTowers):
        split = "sensors_lab" if isinstance(backbone.towers[0], LabSplit) else "sensors"
    names = view_names(split, sensors_of(preprocess))
    if tower not in names and or_all:
        return backbone
    if tower not in names:
        raise ConfigError(
            f"eval.tower={tower}: this backbone has {', '.join(names) or 'no towers'}; name one of them, or none"
        )
    return SomeViews(backbone, names[tower])


def raw_of(preprocess: AnyPreprocess, tower: str) -> Raw:
    """The baseline without a network, of the sensor that `tower` sees."""
    medium = medium_of(preprocess)
    names = [sensor.name for sensor in sensors_of(preprocess)]
    if not isinstance(preprocess, Preprocess) or not tower or not names:
        return medium.raw(preprocess)
    sensor = tower if tower in names else names[0]  # L and ab are made of the first one
    own, part = part_of(preprocess, sensor)
    raw = medium.raw(own)
    return replace(raw, protocol=f"{raw.protocol}, of {sensor}", encode=lambda images: raw.encode(images[:, part]))
