"""Heads: layers as the papers have them, unit vectors, prototypes on the sphere."""

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from stopgrad.nn.heads import (
    GroupNorm,
    Normalise,
    Prototypes,
    StandardisedLinear,
    SymmetricLinear,
    WeightNormPrototypes,
    dino_mlp,
    mlp,
)


def layers(head: nn.Sequential) -> list[str]:
    return [
        type(part).__name__ + ("+bias" if isinstance(part, nn.Linear) and part.bias is not None else "")
        for part in head
    ]


def unit(count: int, dim: int) -> torch.Tensor:
    return F.normalize(torch.randn(count, dim), dim=1)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (("batch", "none", {}), ["Linear", "BatchNorm", "ReLU", "Linear+bias"]),
        (
            ("batch", "none", {"hidden_bias": True, "output_bias": False}),
            ["Linear+bias", "BatchNorm", "ReLU", "Linear"],
        ),
        (
            ("batch", "none", {"hidden_bias": True, "output_bias": True}),
            ["Linear+bias", "BatchNorm", "ReLU", "Linear+bias"],
        ),
        (("batch", "none", {"output_bias": False}), ["Linear", "BatchNorm", "ReLU", "Linear"]),
        (("batch", "batch_no_affine", {}), ["Linear", "BatchNorm", "ReLU", "Linear", "BatchNorm"]),
        (("none", "none", {"activation": "gelu"}), ["Linear+bias", "GELU", "Linear+bias"]),
    ],
    ids=["simsiam", "byol", "swav", "moco_v3", "projector", "gelu"],
)
def test_an_mlp_has_its_biases_where_the_paper_has_them(
    given: tuple[Any, Any, dict[str, Any]], expected: list[str]
) -> None:
    hidden, output, options = given
    assert layers(mlp([4, 8, 3], hidden, output, **options)) == expected


def test_dinos_projector_is_a_gelu_mlp_with_small_weights_and_unit_vectors() -> None:
    torch.manual_seed(0)
    head = dino_mlp(64, 256, 32, layers=3)
    assert layers(head) == ["Linear+bias", "GELU", "Linear+bias", "GELU", "Linear+bias", "Normalise"]
    assert layers(dino_mlp(4, 8, 2, layers=1)) == ["Linear+bias", "Normalise"]
    assert layers(dino_mlp(4, 8, 2, 2, "batch")) == ["Linear+bias", "BatchNorm", "GELU", "Linear+bias", "Normalise"]
    for layer in head:
        if isinstance(layer, nn.Linear):
            assert float(layer.weight.detach().std()) == pytest.approx(0.02, rel=0.05)
            assert not layer.bias.any()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        z = head(torch.randn(5, 64))
    assert z.dtype == torch.float32
    torch.testing.assert_close(z.norm(dim=1), torch.ones(5))


def test_a_zero_vector_has_a_finite_gradient() -> None:
    x = torch.zeros(2, 3, requires_grad=True)
    Normalise()(x).sum().backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()


def test_swavs_prototypes_are_cosines_and_are_put_back_on_the_sphere_in_place_without_gradient() -> None:
    torch.manual_seed(0)
    prototypes, z = Prototypes(8, 5), unit(6, 8)
    assert prototypes(z).shape == (6, 5)
    torch.testing.assert_close(prototypes(z), F.cosine_similarity(z[:, None], prototypes.weight[None], dim=2))
    optimiser, weight = torch.optim.SGD(prototypes.parameters(), lr=1.0), prototypes.weight
    prototypes(z).square().sum().backward()
    optimiser.step()
    assert not torch.allclose(prototypes.weight.norm(dim=1), torch.ones(5), atol=1e-3)
    direction = F.normalize(prototypes.weight.detach(), dim=1)
    prototypes.normalise()
    assert torch.equal(prototypes.weight, direction)
    assert prototypes.weight is weight
    assert prototypes.weight.requires_grad
    assert [name for name, _ in prototypes.named_parameters()] == ["weight"]


def test_dinos_prototypes_are_weight_normalised_with_a_gain_of_1() -> None:
    torch.manual_seed(0)
    ours, z = WeightNormPrototypes(8, 5), unit(6, 8)
    theirs = nn.Linear(8, 5, bias=False)
    theirs.load_state_dict(ours.state_dict())
    theirs = nn.utils.parametrizations.weight_norm(theirs)
    parts = theirs.parametrizations.weight
    parts.original0.data.fill_(1)  # the gain
    torch.testing.assert_close(ours(z), theirs(z))
    assert float(ours(z).detach().abs().max()) <= 1 + 1e-6
    weights = torch.randn(6, 5)
    (ours(z) * weights).sum().backward()
    (theirs(z) * weights).sum().backward()
    torch.testing.assert_close(ours.weight.grad, parts.original1.grad)
    along = (ours.weight.grad * ours.weight).sum(1)  # type: ignore[operator]
    torch.testing.assert_close(along, torch.zeros(5), atol=1e-5, rtol=0)
    longer = copy.deepcopy(ours)
    with torch.no_grad():
        longer.weight.mul_(7)
    torch.testing.assert_close(longer(z), ours(z))


def test_group_norm_stands_behind_rows_of_mean_0_and_knows_no_batch() -> None:
    torch.manual_seed(0)
    head = mlp([6, 32, 3], "group", "none")
    assert layers(head) == ["StandardisedLinear", "GroupNorm", "ReLU", "Linear+bias"]
    x = torch.randn(5, 6)
    torch.testing.assert_close(head(x)[:1], head(x[:1]))
    rows = head[0].weight - head[0].weight.mean(dim=1, keepdim=True)
    expected = x @ (rows / rows.norm(dim=1, keepdim=True)).T
    torch.testing.assert_close(head[0](x), expected)
    grouped = expected.view(5, 16, 2)
    unit = (grouped - grouped.mean(2, keepdim=True)) / (grouped.var(2, keepdim=True, unbiased=False) + 1e-5).sqrt()
    torch.testing.assert_close(head[1](expected), unit.view(5, 32))
    assert isinstance(head[0], StandardisedLinear)
    for dim, groups in ((512, 16), (24, 4), (16, 8), (8, 4), (7, 1), (1, 1)):
        assert GroupNorm(dim).num_groups == groups


def test_a_symmetric_layer_gives_its_matrix_a_symmetric_gradient() -> None:
    layer = SymmetricLinear(4).double()
    x = torch.randn(5, 4, dtype=torch.float64)
    torch.testing.assert_close(layer(x), x @ (layer.weight + layer.weight.T) / 2)
    (gradient,) = torch.autograd.grad(layer(x).square().sum(), layer.weight)
    torch.testing.assert_close(gradient, gradient.T)
