"""Recipe: a run as data. `recipe` composes and checks, `typed` turns plain values into settings, `text` is YAML and
`a.b=c`."""

from stopgrad.recipe.recipe import Recipe, from_dict

__all__ = ["Recipe", "from_dict"]
