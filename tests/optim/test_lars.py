"""LARS against the formula, one tensor and one number at a time."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from stopgrad.optim.config import OptimConfig
from stopgrad.optim.groups import clip
from stopgrad.optim.lars import Lars

SETTINGS = {"lr": 0.3, "momentum": 0.9, "weight_decay": 0.05, "trust": 0.02}


def norm(values: list[float]) -> float:
    return math.sqrt(sum(value * value for value in values))


def by_hand(
    weights: list[float],
    gradients: list[list[float]],
    rates: list[float],
    *,
    momentum: float,
    weight_decay: float,
    trust: float,
    trust_clip: bool = False,
    adapt: bool = True,
) -> list[float]:
    """One tensor after one step for each of `gradients`, at `rates`."""
    velocity = [0.0] * len(weights)
    for gradient, lr in zip(gradients, rates):
        update = [g + weight_decay * w for g, w in zip(gradient, weights)]
        ratio = 1.0
        if adapt and trust_clip and norm(weights) > 0 and norm(gradient) + weight_decay * norm(weights) > 0:
            ratio = min(trust * norm(weights) / (norm(gradient) + weight_decay * norm(weights)) / lr, 1.0)
        elif adapt and not trust_clip and norm(weights) > 0 and norm(update) > 0:
            ratio = trust * norm(weights) / norm(update)
        velocity = [momentum * v + ratio * u for v, u in zip(velocity, update)]
        weights = [w - lr * v for w, v in zip(weights, velocity)]
    return weights


def stepped(start: list[Tensor], gradients: list[list[Tensor]], rates: list[float], **settings: Any) -> list[Tensor]:
    """The tensors after one step for each of `gradients`, of one optimiser."""
    weights = [torch.nn.Parameter(tensor.clone()) for tensor in start]
    optimiser = Lars(weights, **{**SETTINGS, **settings})
    for of_step, lr in zip(gradients, rates):
        optimiser.param_groups[0]["lr"] = lr
        for weight, gradient in zip(weights, of_step):
            weight.grad = gradient.clone()
        optimiser.step()
    return [weight.detach() for weight in weights]


def drawn(shapes: list[tuple[int, ...]], dtype: torch.dtype, seed: int = 0, scale: float = 1.0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [scale * torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]


SHAPES: list[tuple[int, ...]] = [(4, 3), (7,), (2, 2, 3), (1,), ()]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"trust_clip": True},
        {"trust_clip": True, "trust": 0.2},
        {"adapt": False},
        {"momentum": 0.0},
        {"weight_decay": 0.0},
        {"weight_decay": 0.0, "trust_clip": True, "momentum": 0.5},
    ],
)
def test_it_is_the_formula(settings: dict[str, Any], dtype: torch.dtype) -> None:
    start = drawn(SHAPES, dtype)
    gradients = [drawn(SHAPES, dtype, seed=step + 1, scale=10 ** (step % 3 - 1)) for step in range(6)]
    rates = [0.3, 0.25, 0.4, 0.1, 0.02, 0.3]
    found = stepped(start, gradients, rates, **settings)
    rest = {name: value for name, value in {**SETTINGS, **settings}.items() if name != "lr"}
    for i, tensor in enumerate(found):
        slow = by_hand(
            start[i].flatten().tolist(), [each[i].flatten().tolist() for each in gradients], rates, **rest
        )  # fmt: skip
        exact = 1e-13 if dtype == torch.float64 else 2e-6
        torch.testing.assert_close(
            tensor.flatten().double(), torch.tensor(slow, dtype=torch.float64), rtol=exact, atol=exact
        )


def test_clipping_is_of_each_tensor_by_itself() -> None:
    start = [torch.full((2, 2), value, dtype=torch.float64) for value in (1.0, 100.0)]
    gradients = [[torch.ones(2, 2, dtype=torch.float64)] * 2]
    found = stepped(start, gradients, [0.5], weight_decay=0.0, trust=0.1, trust_clip=True)
    torch.testing.assert_close(found[0], start[0] - 0.1)  # trust |w| / |g| is below the rate of 0.5
    torch.testing.assert_close(found[1], start[1] - 0.5)  # it is 10, so the rate stands


def test_float64_stays_float64_beside_float32() -> None:
    start = [drawn([(3, 3)], dtype)[0] for dtype in (torch.float32, torch.float64, torch.float32)]
    gradients = [[drawn([(3, 3)], tensor.dtype, seed=1)[0] for tensor in start]]
    together = stepped(start, gradients, [0.3])
    alone = [stepped([w], [[g]], [0.3])[0] for w, g in zip(start, gradients[0])]
    for a, b in zip(together, alone):
        assert torch.equal(a, b)
    assert not torch.equal(together[1].float(), together[1])


@pytest.mark.parametrize("trust_clip", [False, True])
def test_a_tensor_of_zeros_moves_by_its_gradient_as_it_is(trust_clip: bool) -> None:
    (found,) = stepped([torch.zeros(2, 2)], [[torch.full((2, 2), 2.0)]], [0.3], trust_clip=trust_clip)
    assert torch.equal(found, torch.full((2, 2), -0.6))


@pytest.mark.parametrize("trust_clip", [False, True])
def test_a_gradient_of_zeros_without_decay_moves_nothing(trust_clip: bool) -> None:
    start = drawn([(3, 2)], torch.float32)
    (found,) = stepped(start, [[torch.zeros(3, 2)]], [0.3], weight_decay=0.0, trust_clip=trust_clip)
    assert torch.equal(found, start[0])


def test_a_gradient_of_zeros_with_decay_shrinks_by_rate_times_trust() -> None:
    start = drawn([(3, 2)], torch.float64)
    (found,) = stepped(start, [[torch.zeros(3, 2, dtype=torch.float64)]], [0.3])
    torch.testing.assert_close(found, start[0] * (1 - 0.3 * 0.02))


def test_without_adaptation_it_is_sgd() -> None:
    start, gradients = drawn(SHAPES, torch.float64), [drawn(SHAPES, torch.float64, seed=s) for s in (1, 2, 3)]
    weights = [torch.nn.Parameter(tensor.clone()) for tensor in start]
    sgd = torch.optim.SGD(weights, lr=0.3, momentum=0.9, weight_decay=0.05)
    for of_step in gradients:
        for weight, gradient in zip(weights, of_step):
            weight.grad = gradient
        sgd.step()
    for found, weight in zip(stepped(start, gradients, [0.3] * 3, adapt=False), weights):
        torch.testing.assert_close(found, weight.detach(), rtol=1e-14, atol=1e-14)


def test_a_step_is_as_long_as_its_share_of_the_tensor_whatever_the_gradient() -> None:
    start = drawn([(5, 4)], torch.float64)
    for scale in (1e-6, 1.0, 1e6):
        (found,) = stepped(start, [drawn([(5, 4)], torch.float64, 1, scale)], [0.3], weight_decay=0.0)
        assert float((found - start[0]).norm() / start[0].norm()) == pytest.approx(0.3 * 0.02, rel=1e-12)


def test_clipped_no_rate_is_above_the_schedules() -> None:
    """Where the tensor is long and the gradient short, the clipped step is plain SGD's."""
    start, gradient = [torch.full((2, 2), 100.0)], [torch.full((2, 2), 0.001)]
    (clipped,) = stepped(start, [gradient], [0.1], weight_decay=0.0, trust_clip=True)
    torch.testing.assert_close(clipped, start[0] - 0.1 * gradient[0], rtol=0, atol=0)


def test_a_parameter_without_a_gradient_is_left_as_it_is_with_its_velocity() -> None:
    start = drawn([(2, 3), (2, 3)], torch.float32)
    weights = [torch.nn.Parameter(tensor.clone()) for tensor in start]
    optimiser = Lars(weights, **SETTINGS)
    for weight in weights:
        weight.grad = torch.ones(2, 3)
    optimiser.step()
    still, velocity = weights[0].detach().clone(), optimiser.state[weights[0]]["momentum_buffer"].clone()
    weights[0].grad = None
    optimiser.step()
    assert torch.equal(weights[0].detach(), still)
    assert torch.equal(optimiser.state[weights[0]]["momentum_buffer"], velocity)
    assert not torch.equal(weights[1].detach(), still)


def test_a_group_without_any_gradient_is_passed_over() -> None:
    weights = [torch.nn.Parameter(torch.ones(2, 2)), torch.nn.Parameter(torch.ones(2, 2))]
    weights[1].grad = torch.ones(2, 2)
    Lars([{"params": weights[:1]}, {"params": weights[1:]}], **SETTINGS).step()
    assert torch.equal(weights[0].detach(), torch.ones(2, 2))
    assert not torch.equal(weights[1].detach(), torch.ones(2, 2))


def test_a_parameter_that_never_had_a_gradient_has_no_state() -> None:
    weights = [torch.nn.Parameter(torch.ones(2, 2)), torch.nn.Parameter(torch.ones(2, 2))]
    weights[0].grad = torch.ones(2, 2)
    optimiser = Lars(weights, **SETTINGS)
    optimiser.step()
    assert set(optimiser.state) == {weights[0]}


def test_without_momentum_there_is_no_state_to_keep() -> None:
    weight = torch.nn.Parameter(torch.ones(2, 2))
    weight.grad = torch.ones(2, 2)
    optimiser = Lars([weight], **{**SETTINGS, "momentum": 0.0})
    optimiser.step()
    assert not optimiser.state


def test_gradients_are_left_as_they_are() -> None:
    weight = torch.nn.Parameter(torch.ones(2, 2))
    weight.grad = torch.ones(2, 2)
    for settings in ({}, {"weight_decay": 0.0}, {"adapt": False, "weight_decay": 0.0, "momentum": 0.0}):
        Lars([weight], **{**SETTINGS, **settings}).step()
        assert torch.equal(weight.grad, torch.ones(2, 2))


class Reads(TorchDispatchMode):
    """Counts what a GPU would be waited for: a value of a tensor that Python asks for."""

    def __init__(self) -> None:
        super().__init__()
        self.found = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.found += "_local_scalar_dense" in str(func) or "nonzero" in str(func)
        return func(*args, **(kwargs or {}))


def lars_step(weights: list[torch.nn.Parameter]) -> None:
    for trust_clip in (False, True):
        Lars(weights, **SETTINGS, trust_clip=trust_clip).step()


def clip_model(weights: list[torch.nn.Parameter]) -> None:
    clip(weights, OptimConfig(clip_norm=0.1))


def clip_tensors(weights: list[torch.nn.Parameter]) -> None:
    clip(weights, OptimConfig(clip_norm=0.1, clip_scope="tensor"))


@pytest.mark.parametrize("act", [lars_step, clip_model, clip_tensors])
def test_nothing_waits_for_the_device(act: Callable[[list[torch.nn.Parameter]], None]) -> None:
    weights = [torch.nn.Parameter(tensor) for tensor in drawn(SHAPES, torch.float32)]
    for weight in weights:
        weight.grad = torch.ones_like(weight)
    with Reads() as reads:
        float(weights[0].detach().sum())
    assert reads.found == 1  # it can see
    with Reads() as reads:
        act(weights)
    assert reads.found == 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("act", [lars_step, clip_model, clip_tensors])
def test_a_gpu_comes_to_the_same_and_is_not_waited_for(act: Callable[[list[torch.nn.Parameter]], None]) -> None:
    weights = [torch.nn.Parameter(tensor) for tensor in drawn(SHAPES, torch.float64)]
    there = [torch.nn.Parameter(weight.detach().cuda()) for weight in weights]
    for a, b in zip(weights, there):
        a.grad, b.grad = torch.ones_like(a), torch.ones_like(b)
    act(weights)
    torch.cuda.set_sync_debug_mode("error")
    try:
        act(there)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for a, b in zip(weights, there):
        torch.testing.assert_close(b.detach().cpu(), a.detach())
        torch.testing.assert_close(b.grad.cpu(), a.grad)  # type: ignore[union-attr]
