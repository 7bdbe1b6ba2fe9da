"""A recipe of texts with another backbone: one of ours, or a Hugging Face encoder from a folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from stopgrad.contracts import ConfigError, MissingInputError
from stopgrad.data.folder import expanded
from stopgrad.nn.config import BackboneConfig
from stopgrad.nn.text_config import HF, HUGGING_FACE, OWN_TEXTS, architecture_of
from stopgrad.recipe import Recipe
from stopgrad.views.text_config import TextViewsConfig

WIDTH, LAYERS = 128, 2  # of ours; a first guess that nobody has measured
FINE = 0.05  # of the recipe's rate, for weights that somebody has trained: 5e-5 of AdamW for 64 texts; a guess as well


def small_text(name: str) -> BackboneConfig:
    """One of OWN_TEXTS as presets have it."""
    return BackboneConfig(name=name, width=WIDTH, layers=LAYERS)


def with_text_backbone(recipe: Recipe, name: str) -> tuple[Recipe, dict[str, str]]:
    """The recipe with another backbone of text, and {setting: why}.  name: one of ours, or hf:/folder.

    Raises ConfigError for a backbone of images, MissingInputError where there is no model in the folder.
    """
    if name.startswith(HUGGING_FACE):
        return _hugging_face(recipe, expanded(name.removeprefix(HUGGING_FACE)).absolute())
    if name in OWN_TEXTS:
        return replace(recipe, backbone=small_text(name)), {}
    if name == "cpc_text":
        return replace(recipe, backbone=BackboneConfig(name=name, width=WIDTH, context=WIDTH)), {}
    needed = ", ".join((*OWN_TEXTS, f"{HUGGING_FACE}/folder"))
    raise ConfigError(f"--backbone {name} is none of text; use one of {needed}")


def _hugging_face(recipe: Recipe, folder: Path) -> tuple[Recipe, dict[str, str]]:
    views = recipe.views
    if not isinstance(views, TextViewsConfig):
        raise ConfigError(f"--backbone {HUGGING_FACE}{folder} reads texts, the recipe images; add --view text")
    trained = (folder / "model.safetensors").is_file()
    init = f"{HUGGING_FACE}{folder}" if trained else ""
    backbone = BackboneConfig(name=HF, architecture=architecture_of(folder), init=init)
    reasons = {"backbone.name": f"{folder}, {'its weights too' if trained else 'which has no weights: random ones'}"}
    if not views.tokenizer and not views.words:
        tokenizer = folder / "tokenizer.json"
        if not tokenizer.is_file():
            raise MissingInputError(
                f"{tokenizer}: no tokenizer there; save the model's own beside it, or name one: --set "
                "views.tokenizer=/folder/tokenizer.json"
            )
        views = replace(views, tokenizer=str(tokenizer))
        reasons["views.tokenizer"] = "the model's own"
    optim = recipe.optim
    if trained:
        optim = replace(optim, base_lr=round(FINE * optim.base_lr, 8))
        reasons["optim.base_lr"] = "low, so as not to undo what the model has learnt"
    return replace(recipe, backbone=backbone, views=views, optim=optim), reasons
