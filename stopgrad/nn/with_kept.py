"""A backbone and the first layers of a projector as one trunk: what SimCLR v2 fine-tunes (arXiv:2006.10029, section 2).

To evaluation, export and file it is a backbone like any other, with `.dim`. `kept` has the modules of those layers in
the projector's order and under its names, so that their tensors go from the one into the other as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from stopgrad import rng
from stopgrad.contracts import ConfigError
from stopgrad.nn import heads
from stopgrad.nn.kept import Activation, KeptLayer, Norm

_ACTIVATIONS: dict[type[nn.Module], Activation] = {nn.ReLU: "relu", nn.GELU: "gelu"}


class WithKept(nn.Module):
    """[B, ...] -> [B, dim], through `trunk` and `kept`."""

    def __init__(self, trunk: nn.Module, kept: nn.Sequential, dim: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.kept = kept
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.kept(self.trunk(x))
        return out


def with_kept(trunk: nn.Module, layers: Sequence[KeptLayer], seed: int) -> WithKept:
    """`trunk`, which has `.dim`, and new layers on it; global random state is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(rng.torch_seed(seed, 3))
        modules: list[nn.Module] = []
        width = int(trunk.dim)  # type: ignore[arg-type]
        for layer in layers:
            modules += [nn.Linear(width, layer.width, bias=layer.bias), *heads.norm(layer.norm, layer.width)]
            if layer.activation != "none":
                modules.append(nn.ReLU(inplace=True) if layer.activation == "relu" else nn.GELU())
            width = layer.width
    return WithKept(trunk, nn.Sequential(*modules), width).train(trunk.training)


def widths_in(tensors: Mapping[str, Tensor]) -> list[int]:
    """Of the kept layers in a trunk's state, in order."""
    linear = {name: value for name, value in tensors.items() if name.startswith("kept.") and value.ndim == 2}
    return [int(linear[name].shape[0]) for name in sorted(linear, key=lambda name: int(name.split(".")[1]))]


def first_layers(projector: nn.Module, count: int) -> tuple[tuple[KeptLayer, ...], dict[str, Tensor]]:
    """The first `count` layers of a projector: what they are, and their tensors as `WithKept.kept` names them.

    Raises ConfigError where it has fewer, or where one of them is of a kind that is not known.
    """
    parts = list(projector) if isinstance(projector, nn.Sequential) else [projector]
    begins = [i for i, part in enumerate(parts) if isinstance(part, nn.Linear)]
    if count > len(begins):
        has = "1 layer" if len(begins) == 1 else f"{len(begins)} layers" if begins else "no layer"
        raise ConfigError(
            f"--from-projector-layer {count}: the projector has {has}; use {len(begins)}{' or less' * bool(begins)}"
        )
    ends = [*begins[1:], len(parts)]
    layers = tuple(_described(parts[begin:end]) for begin, end in zip(begins[:count], ends))
    kept = nn.Sequential(*parts[: ends[count - 1]]) if count else nn.Sequential()
    return layers, {name: value.detach().cpu().clone() for name, value in kept.state_dict().items()}


def _described(parts: Sequence[nn.Module]) -> KeptLayer:
    """One linear layer and what stands before the next."""
    linear, rest = parts[0], list(parts[1:])
    assert isinstance(linear, nn.Linear)
    norm: Norm = "none"
    activation: Activation = "none"
    if rest and isinstance(rest[0], _BatchNorm):
        norm = "batch" if rest.pop(0).weight is not None else "batch_no_affine"
    elif rest and isinstance(rest[0], nn.LayerNorm):
        norm = "layer"
        rest.pop(0)
    if rest and type(rest[0]) in _ACTIVATIONS:
        activation = _ACTIVATIONS[type(rest.pop(0))]
    if rest:
        raise ConfigError(
            f"--from-projector-layer: the projector has a {type(rest[0]).__name__}, which can't be kept; keep fewer "
            "layers, or none with --from-projector-layer 0"
        )
    return KeptLayer(width=linear.out_features, norm=norm, bias=linear.bias is not None, activation=activation)
