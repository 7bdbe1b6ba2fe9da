"""What every method in METHODS promises; a new one is tested by being listed (and by a line in small.py)."""

import copy
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from stopgrad.contracts import Clock, ConfigError, Views
from stopgrad.data.loader import Loader
from stopgrad.method import Method
from stopgrad.methods import METHODS
from stopgrad.nn.batch_norm import statistics
from stopgrad.optim.config import OptimConfig
from stopgrad.recipe.recipe import from_dict
from stopgrad.recipe.typed import plain
from stopgrad.recipes import PRESETS, RECIPES
from stopgrad.training.loop import one_step
from stopgrad.views.maker import ViewMaker
from tests.methods.small import IMAGES, SMALL, batch, captioned, crops_of, small


def clock(step: int) -> Clock:
    return Clock(step, 10, 2, seed=1)


def train_steps(method: Method, name: str, steps: range) -> list[float]:
    optimiser = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.05)
    losses = []
    for step in steps:
        out = method(batch(name, step), clock(step))
        optimiser.zero_grad()
        out.loss.backward()
        method.before_step(clock(step))
        optimiser.step()
        method.after_step(clock(step))
        losses.append(out.loss.item())
    return losses


def state(method: Method) -> dict[str, Tensor]:
    """All a checkpoint has, without the running statistics of batch norm."""
    free = {id(buffer) for buffer in statistics(method)}
    return {name: value.clone() for name, value in method.state_dict(keep_vars=True).items() if id(value) not in free}


def same(before: dict[str, Tensor], after: dict[str, Tensor]) -> None:
    assert before.keys() == after.keys()
    assert [name for name in before if not torch.equal(before[name], after[name])] == []


def job(method: Method) -> Any:
    """What the loop's one_step reads of a job: two micro-batches a step, plain SGD."""
    return SimpleNamespace(
        method=method,
        parallel=method,
        optimiser=torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.05),
        device=torch.device("cpu"),
        bf16=False,
        loop=SimpleNamespace(accumulate=2),
        optim=OptimConfig(),
    )


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_small_enough_to_be_tested_and_has_its_presets(name: str) -> None:
    assert name in SMALL, f"add small settings for {name} to tests/methods/small.py, so that its contract is tested"
    expected = {"scenes", "captions"} if captioned(name) else {"scenes", "cifar10", "imagenet"}
    assert expected <= PRESETS[name].keys()
    assert METHODS[name][1](name=name).name == name
    assert all(preset().method.name == name for preset in PRESETS[name].values())


@pytest.mark.parametrize("preset", RECIPES)
def test_every_preset_says_what_it_expects_and_survives_being_written_down(preset: str) -> None:
    assert (RECIPES[preset].__doc__ or "").strip()
    recipe = RECIPES[preset]()
    assert from_dict(plain(recipe)) == recipe


@pytest.mark.parametrize("name", METHODS)
def test_a_restored_method_continues_to_the_bit(name: str) -> None:
    method, twin = small(name), small(name)
    train_steps(method, name, range(3))
    saved = copy.deepcopy(method.state_dict())
    assert not [key for key, value in saved.items() if not isinstance(value, Tensor)]
    twin.load_state_dict(saved)
    assert train_steps(method, name, range(3, 6)) == train_steps(twin, name, range(3, 6))


@pytest.mark.parametrize("name", METHODS)
def test_a_forward_changes_nothing_but_batch_norm_statistics(name: str) -> None:
    method = small(name)
    train_steps(method, name, range(2))
    before = state(method)
    method(batch(name, 2), clock(2)).loss.backward()
    method(batch(name, 3), clock(2)).loss.backward()  # a second micro-batch
    same(before, state(method))


@pytest.mark.parametrize("name", METHODS)
def test_a_skipped_step_leaves_no_trace(name: str) -> None:
    """By the loop's own one_step: a loss that is not finite, then the same steps as a twin that never saw it."""
    method, twin = small(name), small(name)
    for one in (method, twin):
        train_steps(one, name, range(2))
    before = copy.deepcopy(method.state_dict())
    broken = batch(name, 2)
    broken.crops[0][0] = float("nan")
    done = one_step(job(method), broken, clock(2))
    assert not done.finite
    after = method.state_dict()
    assert [key for key in before if not torch.equal(before[key], after[key])] == []
    assert train_steps(method, name, range(3, 5)) == train_steps(twin, name, range(3, 5))


@pytest.mark.parametrize("name", METHODS)
def test_the_trunk_and_the_projection_are_plain_vectors(name: str) -> None:
    method = small(name)
    h, z = method.embed(batch(name).crops[0])
    assert h.shape == (12, method.backbone.dim)
    assert z.ndim == 2
    assert next(iter(method.trunks())) == "backbone"


@pytest.mark.parametrize("name", METHODS)
def test_the_output_carries_a_scalar_loss_and_a_detached_embedding(name: str) -> None:
    out = small(name)(batch(name), clock(0))
    assert out.loss.shape == ()
    assert out.loss.requires_grad
    assert not out.embedding.requires_grad
    assert all(value.ndim == 0 and not value.requires_grad for value in out.logs.values())


@pytest.mark.parametrize("name", METHODS)
def test_half_precision_gives_a_finite_loss_in_full(name: str) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = small(name)(batch(name), clock(0))
    assert out.loss.isfinite()
    assert out.loss.dtype == torch.float32


class Unlabelled:
    """Images whose labels may not be looked at."""

    def __len__(self) -> int:
        return IMAGES

    def take(self, index: NDArray[np.int64]) -> NDArray[np.uint8]:
        return np.random.default_rng(0).integers(0, 255, (IMAGES, 16, 16, 3), dtype=np.uint8)[index]

    @property
    def labels(self) -> Any:
        raise AssertionError("labels were read")


@pytest.mark.parametrize("name", [name for name in METHODS if not captioned(name)])
def test_no_label_reaches_a_method(name: str) -> None:
    views = PRESETS[name]["scenes"]().views
    maker = ViewMaker(views, channels=3, seed=0, device=torch.device("cpu"), threads=1)
    loader = Loader(Unlabelled(), 12, seed=0)  # type: ignore[arg-type]
    method = small(name)
    for step in range(2):
        made = maker(loader.batch(step))
        made = Views(tuple(crop[..., :16, :16] for crop in made.crops), made.index)
        assert method(made, clock(step)).loss.isfinite()
        method.after_step(clock(step))
    assert set(Views.__dataclass_fields__) == {"crops", "index"}


@pytest.mark.parametrize("name", METHODS)
def test_the_switchboard_has_a_word_for_every_part(name: str) -> None:
    parts = small(name).parts()
    assert {"predictor", "target", "objective", "pairs"} <= parts.keys()
    assert all(parts.values())


@pytest.mark.parametrize("name", [name for name in METHODS if not captioned(name)])  # a caption is no crop
def test_too_few_crops_are_an_error_before_anything_is_built(name: str) -> None:
    recipe = plain(RECIPES[f"{name}/scenes"]())
    crops = recipe["views"]["crops"]
    recipe["views"]["crops"] = crops[:1] if crops_of(name) > 1 else [*crops, *crops]
    with pytest.raises(ConfigError, match=r"views\.crops: .* got \d"):
        from_dict(recipe)


@pytest.mark.parametrize("name", METHODS)
def test_what_is_frozen_has_no_gradient_and_what_is_trained_gets_one(name: str) -> None:
    method = small(name)
    train_steps(method, name, range(3))  # past the epoch in which some layers are frozen
    method.zero_grad(set_to_none=True)
    method(batch(name, 3), clock(3)).loss.backward()
    for key, parameter in method.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, key
    assert any(parameter.grad.abs().sum() > 0 for parameter in method.backbone.parameters())  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("name", "layer"), [("swav", "objective.prototypes.weight"), ("dino", "predictor.prototypes.weight")]
)
def test_the_loop_leaves_prototypes_alone_in_the_first_epoch_and_trains_them_after(name: str, layer: str) -> None:
    """By the loop's own one_step, which has to ask the method before the optimiser moves anything."""
    method = small(name)
    one = job(method)
    weight = method.get_parameter(layer)
    for step, moves in ((0, False), (1, False), (2, True)):  # two steps an epoch
        before = weight.detach().clone()
        assert one_step(one, batch(name, step), clock(step)).finite
        # SwAV brings its rows back to unit length after every step, which may move a last bit
        assert torch.allclose(weight, before, rtol=0, atol=1e-6) != moves
