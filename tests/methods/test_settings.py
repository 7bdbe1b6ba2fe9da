"""What the settings of all methods share: every preset can have each of its parts switched by one setting."""

import typing
from dataclasses import replace
from typing import Any

import pytest

from stopgrad.contracts import ConfigError, Known
from stopgrad.methods.settings import HeadConfig, needs_pairs
from stopgrad.recipe.typed import field_types
from stopgrad.recipes import RECIPES

OFF: dict[str, tuple[Any, ...]] = {  # numbers that switch something off
    "queue_size": (0,),
    "negatives": (0,),
    "warmup_teacher_epochs": (0,),
    "proximal": (0.0,),
}
OF_AN_OPTION = ("average_first", "average_order")  # of simsiam's target=average, an error without it


def one_layer(head: HeadConfig) -> HeadConfig:
    return replace(head, layers=1)


@pytest.mark.parametrize("preset", RECIPES)
def test_a_study_of_a_preset_is_one_setting(preset: str) -> None:
    """`--set method.predictor=none` on a preset that says how wide the predictor is: nobody's mistake."""
    method = RECIPES[preset]().method
    kinds = field_types(type(method))
    tried = 0
    for field, kind in kinds.items():
        choices = typing.get_args(kind) if typing.get_origin(kind) is typing.Literal else OFF.get(field, ())
        for value in choices if field not in OF_AN_OPTION else ():
            if not (method.name.startswith("moco_v") and field == "queue_size"):  # MoCo is its queue
                replace(method, **{field: value})
                tried += 1
    if hasattr(method, "projector"):
        replace(method, projector=one_layer(method.projector))
    assert tried


def test_where_there_is_no_multi_crop_the_methods_that_have_it_are_named() -> None:
    known = Known(crops=(16, 16, 8), batch_size=8, accumulate=1, backbone="tiny")
    with pytest.raises(ConfigError, match="got 3; keep the first two, or use any other method but instdisc"):
        needs_pairs("invaspread", known, multi_crop=False)
