"""Kinds of samples: the one place that tells them apart."""

import pytest

from stopgrad.contracts import ConfigError, Preprocess
from stopgrad.media import KINDS, kind_named, medium_of, preprocess_from_dict
from stopgrad.media.medium import Medium
from stopgrad.recipe.recipe import from_dict
from stopgrad.recipe.typed import plain
from stopgrad.recipes import recipe_named

PROMISED = {name for name in vars(Medium) if not name.startswith("_")}


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_keeps_every_promise_and_its_settings_name_it(kind: str) -> None:
    row = kind_named(kind)
    assert row.views().kind == kind
    assert row.preprocess.kind == kind
    medium = medium_of(row.views())
    assert all(callable(getattr(medium, name)) for name in PROMISED)
    assert len(row.views().watched().sides) == 2


def test_a_recipe_has_the_settings_of_its_kind() -> None:
    recipe = recipe_named("simsiam/scenes")
    assert plain(recipe)["views"]["kind"] == "image"
    assert from_dict(plain(recipe)) == recipe
    without = plain(recipe)
    del without["views"]["kind"]  # as recipes from before there were kinds
    assert from_dict(without) == recipe


def test_an_unknown_kind_is_refused_with_the_nearest() -> None:
    values = plain(recipe_named("simsiam/scenes"))
    values["views"]["kind"] = "images"
    with pytest.raises(ConfigError, match=r"views\.kind: 'images' is no kind of sample; did you mean 'image'"):
        from_dict(values)


def test_preprocessing_comes_back_and_a_strangers_kind_does_not() -> None:
    known = Preprocess(image_size=32)
    assert preprocess_from_dict(known.as_dict()) == known
    assert preprocess_from_dict({**known.as_dict(), "kind": "image"}) == known
    for kind in ("smell", 3, None, ["image"]):
        with pytest.raises((ConfigError, TypeError)):
            preprocess_from_dict({**known.as_dict(), "kind": kind})
