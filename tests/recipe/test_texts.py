"""METHOD/text: every method takes a step on tokens, and what an encoder's file may not ask for."""

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch

from stopgrad.contracts import CheckpointError, Clock, Views
from stopgrad.encoder import load_encoder
from stopgrad.encoder.file import Encoder, encoder_bytes
from stopgrad.media import medium_of
from stopgrad.methods import METHODS, method_named
from stopgrad.nn.backbones import build_backbone
from stopgrad.nn.config import BackboneConfig
from stopgrad.recipe import Recipe
from stopgrad.recipe.text import override
from stopgrad.recipes import PRESETS, recipe_named
from stopgrad.views.text_config import TextPreprocess
from stopgrad.views.tokens import tokenizer_of

WITH_TEXT = [name for name in METHODS if "text" in PRESETS[name]]
KINDS, LENGTH, BATCH = 30, 8, 16


def small(name: str) -> Recipe:
    settings = ["backbone.width=16", f"views.length={LENGTH}", f"loop.batch_size={BATCH}"]
    return override(recipe_named(f"{name}/text"), settings)


@pytest.mark.parametrize("name", WITH_TEXT)
def test_a_method_takes_a_step_on_tokens(name: str) -> None:
    recipe = small(name)
    builder, _ = method_named(name)
    torch.manual_seed(0)
    backbone = build_backbone(recipe.backbone, KINDS, LENGTH, 0)
    method = builder(backbone, recipe.method, recipe.known(64))
    ids = torch.randint(4, KINDS, (BATCH, LENGTH))
    crops = tuple(ids.where(torch.rand(BATCH, LENGTH) < 0.8, 1) for _ in recipe.views.sides)
    views, clock = Views(crops, torch.arange(BATCH)), Clock(step=0, total_steps=10, steps_per_epoch=4)
    out = method(views, clock)
    out.loss.backward()
    assert bool(torch.isfinite(out.loss))
    moved = [p.grad for p in backbone.parameters() if p.grad is not None]
    assert moved
    assert any(bool(grad.abs().sum() > 0) for grad in moved)
    method.before_step(clock)
    method.after_step(clock)
    h, z = method.embed(crops[0])
    assert h.shape == (BATCH, recipe.backbone.context if name == "cpc" else 16)
    assert z.shape[0] == BATCH
    assert medium_of(recipe.views).many == "texts"


def file_with(path: Path, **changed: object) -> Path:
    """An encoder's file whose description says otherwise."""
    config = BackboneConfig(name="text_transformer", width=16)
    preprocess = TextPreprocess(length=LENGTH, tokenizer=tokenizer_of(["red", "ball"]))
    encoder = Encoder(build_backbone(config, 6, LENGTH, 0), preprocess, config)
    tensors = safetensors.torch.load(encoder_bytes(encoder))
    described = {"format": 1, "backbone": config.described(), "preprocess": preprocess.as_dict()}
    for key, value in changed.items():
        group, _, name = key.partition("__")
        described[group][name] = value  # type: ignore[index]
    path.write_bytes(safetensors.torch.save(tensors, {"stopgrad": json.dumps(described)}))
    return path


def test_a_file_that_is_as_it_says(tmp_path: Path) -> None:
    found = load_encoder(file_with(tmp_path / "e.safetensors"))
    assert found.dim == 16
    assert found(torch.ones(2, LENGTH, dtype=torch.long)).shape == (2, 16)


@pytest.mark.parametrize(
    "changed",
    [
        {"backbone__width": 4096, "backbone__layers": 64},
        {"backbone__layers": 64},
        {"backbone__name": "text_gru"},
        {"preprocess__length": 4096},
        {"preprocess__tokenizer": tokenizer_of([f"w{i}" for i in range(2000)])},
        {"preprocess__tokenizer": "{}"},
        {"preprocess__length": "8"},
        {"backbone__pool": "max"},
        {"backbone__causal": "yes"},
        {"backbone__name": "hf"},
        {"backbone__name": "hf", "backbone__width": 32, "backbone__architecture": '{"model_type": "bert"}'},
    ],
)
def test_a_file_that_asks_for_what_it_does_not_hold(tmp_path: Path, changed: dict[str, object]) -> None:
    with pytest.raises(CheckpointError, match="weights and description do not fit"):
        load_encoder(file_with(tmp_path / "e.safetensors", **changed))
