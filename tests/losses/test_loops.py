"""Every loss equals its formula written out in loops, in value and in gradient, in any precision and under autocast."""

import inspect
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import stopgrad.losses as losses
from tests.losses import loops

Arguments = tuple[object, ...]


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def unit(seed: int, *shape: int) -> Tensor:
    return F.normalize(draw(seed, *shape), dim=1)


SAME = torch.tensor([True, False, False, True, False])
X, Y, Z = draw(0, 5, 3), draw(1, 5, 3), draw(2, 5, 3)
U, V, W = unit(3, 5, 3), unit(4, 5, 3), unit(5, 7, 3)
CODES = F.softmax(draw(6, 5, 4), dim=1)
F_MATRIX = draw(7, 3, 3) @ draw(7, 3, 3).T / 3

CASES: dict[str, tuple[str, Arguments]] = {
    "nt_xent": ("nt_xent", (X, Y, 0.5)),
    "nt_xent, two images": ("nt_xent", (X[:2], Y[:2], 0.2)),
    "nt_xent_queries": ("nt_xent_queries", (Z, X, Y, 0.3)),
    "nt_xent_queries, a slice": ("nt_xent_queries", (Z[2:4], X, Y, 0.3, 2)),
    "nt_xent_queries, other view only": ("nt_xent_queries", (Z[2:4], X, None, 0.3, 2)),
    "instance_spreading": ("instance_spreading", (X, Y, 0.4)),
    "instance_spreading_queries": ("instance_spreading_queries", (Z, X, Y, 0.4)),
    "instance_spreading_queries, a slice": ("instance_spreading_queries", (Z[2:4], X, Y, 0.4, 2)),
    "info_nce": ("info_nce", (U, V, W, 0.2)),
    "info_nce_batch": ("info_nce_batch", (U, V, 0.2)),
    "info_nce_batch, a slice": ("info_nce_batch", (U[1:3], V, 0.2, 1)),
    "non_parametric_softmax": ("non_parametric_softmax", (U, W, torch.tensor([3, 0, 6, 6, 1]), 0.2)),
    "nce": ("nce", (draw(8, 5), draw(9, 5, 3), 11, 2.5, 0.6)),
    "nt_logistic_queries": ("nt_logistic_queries", (Z, X, Y, 0.3)),
    "nt_logistic_queries, a slice, other view only": ("nt_logistic_queries", (Z[2:4], X, None, 0.3, 2)),
    "nt_logistic_queries, semi-hard": ("nt_logistic_queries", (Z, X, Y, 0.3, 0, True)),
    "margin_queries": ("margin_queries", (Z, X, Y, 0.4)),
    "margin_queries, a slice": ("margin_queries", (Z[2:4], X, Y, 0.9, 2)),
    "margin_queries, semi-hard": ("margin_queries", (Z, X, Y, 0.4, 0, True)),
    "margin_contrastive": ("margin_contrastive", (X, Y, SAME, 1.9)),
    "margin_contrastive, far": ("margin_contrastive", (X, Y, ~SAME, 0.5)),
    "triplet": ("triplet", (X, Y, Z, 0.2)),
    "n_pair": ("n_pair", (X, Y)),
    "logistic": ("logistic", (X, Y, 0.1, -1.5)),
    "barlow_twins": ("barlow_twins", (X, Y, 0.005)),
    "barlow_twins, heavy": ("barlow_twins", (X, Y, 2.0)),
    "vicreg": ("vicreg", (0.8 * X, 1.3 * Y)),
    "vicreg, other weights": ("vicreg", (0.8 * X, 1.3 * Y, 2.0, 3.0, 5.0)),
    "sinkhorn": ("sinkhorn", (draw(10, 5, 4), 0.7, 3)),
    "sinkhorn, once": ("sinkhorn", (draw(10, 5, 4), 0.7, 1)),
    "swapped_prediction": ("swapped_prediction", (draw(10, 5, 4), CODES, 0.3)),
    "centred_cross_entropy": ("centred_cross_entropy", (draw(10, 5, 4), draw(11, 5, 4), draw(12, 4), 0.6, 0.4)),
    "correlation": ("correlation", (X,)),
    "unigrad": ("unigrad", (X, Y, F_MATRIX, 3.0)),
}
each = pytest.mark.parametrize("case", CASES)


def learnable(arguments: Arguments) -> list[Tensor]:
    return [x for x in arguments if isinstance(x, Tensor) and x.is_floating_point()]


def fresh(case: str, dtype: torch.dtype = torch.float64) -> tuple[Callable[..., Tensor], Arguments]:
    """The loss and its arguments, cast, as leaves that want a gradient."""
    name, arguments = CASES[case]
    cast = [
        x.detach().to(dtype).clone().requires_grad_() if isinstance(x, Tensor) and x.is_floating_point() else x
        for x in arguments
    ]
    return getattr(losses, name), tuple(cast)


def backward(value: Tensor, arguments: Arguments) -> list[Tensor]:
    """The gradient of every input; 0 where none reaches it. Weighted, so that a gradient that sums to 0 shows."""
    weights = torch.arange(1, value.numel() + 1, dtype=torch.float64).sin().view_as(value).to(value.dtype)
    inputs = learnable(arguments)
    grads = torch.autograd.grad((value * weights).sum(), inputs, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for x, g in zip(inputs, grads, strict=True)]


@each
def test_value_and_gradient_are_those_of_the_loops(case: str) -> None:
    loss, arguments = fresh(case)
    slow_loss = getattr(loops, CASES[case][0])
    fast, slow = loss(*arguments), slow_loss(*arguments)
    assert fast.dtype == torch.float64
    torch.testing.assert_close(fast, slow, rtol=1e-11, atol=1e-12)
    for ours, theirs in zip(backward(fast, arguments), backward(slow, arguments), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("case", [case for case in CASES if case != "unigrad"])  # its value is not its gradient's
def test_the_gradient_is_that_of_finite_differences(case: str) -> None:
    loss, arguments = fresh(case)
    assert torch.autograd.gradcheck(loss, arguments)


@each
def test_float32_comes_near_to_float64(case: str) -> None:
    loss, arguments = fresh(case, torch.float32)
    value = loss(*arguments)
    assert value.dtype == torch.float32
    exact = loss(*fresh(case)[1])
    torch.testing.assert_close(value.double(), exact, rtol=1e-5, atol=1e-5)


@each
def test_autocast_changes_nothing_and_half_precision_comes_out_as_float32(case: str) -> None:
    loss, arguments = fresh(case, torch.float32)
    plain = loss(*arguments)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        automatic = loss(*arguments)
    assert torch.equal(automatic, plain)
    for ours, theirs in zip(backward(automatic, arguments), backward(plain, arguments), strict=True):
        assert torch.equal(ours, theirs)

    _, half = fresh(case, torch.bfloat16)
    value = loss(*half)
    assert value.dtype == torch.float32
    widened = tuple(x.float() if isinstance(x, Tensor) and x.is_floating_point() else x for x in half)
    assert torch.equal(value, loss(*widened))
    assert all(g.dtype == torch.bfloat16 and bool(g.isfinite().all()) for g in backward(value, half))


@pytest.mark.parametrize(
    "case",
    [case for case, (name, _) in CASES.items() if "temperature" in inspect.signature(getattr(losses, name)).parameters],
)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_low_temperature_is_finite_in_half_precision_under_autocast(case: str, dtype: torch.dtype) -> None:
    loss, arguments = fresh(case, dtype)
    name, _ = CASES[case]
    bound = inspect.signature(getattr(losses, name)).bind(*arguments)
    bound.arguments["temperature"] = 0.05
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(*bound.args)
    assert value.dtype == torch.float32
    assert bool(value.isfinite())
    assert all(bool(g.isfinite().all()) for g in backward(value, arguments))


@each
def test_arguments_may_be_given_by_name(case: str) -> None:
    loss, arguments = fresh(case, torch.bfloat16)
    named = inspect.signature(loss).bind(*arguments).arguments
    assert torch.equal(loss(**named), loss(*arguments))


def test_no_public_loss_is_without_a_loop() -> None:
    elsewhere = {"negative_cosine", "softmax_similarity"}  # test_cosine.py
    assert set(losses.__all__) == {name for name, _ in CASES.values()} | elsewhere | {"vicreg_terms"}  # vicreg's sum


def test_nothing_is_written_into_the_inputs() -> None:
    for case in CASES:
        loss, arguments = fresh(case)
        before = [x.detach().clone() for x in learnable(arguments)]
        loss(*arguments)
        assert all(torch.equal(x, y) for x, y in zip(learnable(arguments), before, strict=True)), case
