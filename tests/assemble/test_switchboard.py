"""What `stopgrad methods` says of a method's parts is what its defaults are, not what one of its presets changes."""

import pytest
import torch

from stopgrad.assemble.switchboard import parts_of
from stopgrad.contracts import Known
from stopgrad.methods import METHODS
from stopgrad.nn.backbones import build_backbone
from stopgrad.nn.config import BackboneConfig
from stopgrad.recipes import PRESETS


@pytest.mark.parametrize("name", METHODS)
def test_parts_are_those_of_the_defaults_that_are_printed_beside_them(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    builder, config = METHODS[name]
    built = []

    def seen(backbone: torch.nn.Module, settings: object, known: Known) -> object:
        built.append((settings, known.crops))
        return builder(backbone, settings, known)

    monkeypatch.setitem(METHODS, name, (seen, config))
    parts = parts_of(name)
    assert {"predictor", "target", "objective", "pairs"} <= parts.keys()
    presets = PRESETS[name]
    assert built == [(config(name=name), presets.get("imagenet", presets["scenes"])().known().crops)]


def test_a_part_that_the_preset_changes_is_shown_as_it_is_by_default() -> None:
    recipe = PRESETS["directpred"]["imagenet"]()
    builder, _ = METHODS["directpred"]
    preset = builder(build_backbone(BackboneConfig(), 3, 32, seed=0), recipe.method, recipe.known(1)).parts()
    assert parts_of("directpred")["target"] != preset["target"]
