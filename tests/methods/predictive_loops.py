"""CPC written out in loops, beside a method's own weights: the oracle of test_cpc.py. Nothing of the package is used
but the numbers that negatives are drawn with, and what they mean is worked out here."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from stopgrad import rng
from stopgrad.contracts import Clock
from stopgrad.nn.patches import Patches
from stopgrad.nn.sequence import SequenceTrunk
from stopgrad.siamese.predictive import OverTime, Predictive

Place = tuple[int, int]  # step, and which of the predictions side by side


class Frames(SequenceTrunk):
    """A toy of a sequence: [B, 2 T] -> T latents of two samples each."""

    def __init__(self) -> None:
        super().__init__(3, 4)
        self.linear = nn.Linear(2, 3)

    def latents(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear(x.unflatten(1, (-1, 2)))
        return out

    def in_words(self, needed: int) -> tuple[str, str]:
        return "frames", f"use {2 * needed} samples"


class Encoder(nn.Module):
    """A toy of a patch encoder: [N, 1, 4, 4] -> [N, 3]"""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(16, 3)
        self.dim = 3

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear(x.flatten(1))
        return out


def grid_trunk(size: int = 8) -> Patches:
    return Patches(Encoder(), 4, size)


class PaddedFrames(Frames):
    """The same, where two samples of 0 are no frame."""

    padded = True

    def there(self, x: Tensor) -> Tensor:
        return (x.unflatten(1, (-1, 2)) != 0).any(dim=2)


def oracle(
    method: Predictive,
    x: Tensor,
    index: Tensor,
    clock: Clock,
    groups: list[int] | None = None,
    lengths: list[int] | None = None,
) -> Any:
    """(loss, share of targets found) of one batch, by the weights of `method`.  lengths: steps of each sequence, what
    comes behind is padding."""
    w = dict(method.named_parameters())
    over_time = isinstance(method, OverTime)
    z = _frames(w, x) if over_time else _patches(w, x)  # a list of {place: latent}
    steps = 1 + max(t for t, _ in z[0])
    places = list(z[0])
    if lengths:
        z = [{place: latent for place, latent in of.items() if place[0] < n} for of, n in zip(z, lengths)]
    losses, hits = [], []
    for direction in range(len(method.predictors)):
        turn = {(t, p): _turned((t, p), steps, direction) for t, p in places}  # place after turning -> place in z
        for k in range(1, method.steps + 1):
            weight = w[f"predictors.{direction}.{k - 1}.weight"]
            of_step: list[Any] = []
            for b in range(len(x)):
                turned = {place: z[b][origin] for place, origin in turn.items() if origin in z[b]}
                c = _gru(w, turned) if over_time else _rows(w, turned, direction, steps)
                for (t, p), context in c.items():
                    # over time every step ahead has the same anchors; over rows, and where there is padding, those
                    # that have a row or frame there
                    furthest = t + method.skip + (method.steps if over_time and not lengths else k)
                    if furthest >= steps:
                        continue
                    predicted, target = weight @ context, (t + method.skip + k, p)
                    if target not in turned:
                        continue
                    own = predicted @ turned[target]
                    others = [
                        predicted @ z[j][place]
                        for j, place in _negatives(method, z, b, index, clock, (direction, k), groups)
                        if (j, place) != (b, turn[target])
                    ]
                    total: Any = own.exp() + sum(other.exp() for other in others)
                    of_step.append(-(own.exp() / total).log())
                    hits.append((k, direction, all(own > other for other in others)))
            losses.append(sum(of_step) / len(of_step))
    of_steps: dict[Any, list[bool]] = {}
    for k, direction, hit in hits:
        of_steps.setdefault((k, direction), []).append(hit)
    found = [sum(each) / len(each) for each in of_steps.values()]
    return sum(losses) / len(losses), sum(found) / len(found)


def _turned(place: Place, side: int, times: int) -> Place:
    """Where what stands at `place` after so many quarter turns to the left stood before."""
    for _ in range(times):
        place = (place[1], side - 1 - place[0])
    return place


def _frames(w: dict[str, Tensor], x: Tensor) -> list[dict[Place, Tensor]]:
    weight, bias = w["backbone.linear.weight"], w["backbone.linear.bias"]
    return [{(t, 0): weight @ row[2 * t : 2 * t + 2] + bias for t in range(len(row) // 2)} for row in x]


def _patches(w: dict[str, Tensor], x: Tensor) -> list[dict[Place, Tensor]]:
    weight, bias = w["backbone.encoder.linear.weight"], w["backbone.encoder.linear.bias"]
    grid = x.shape[-1] // 2 - 1
    return [
        {
            (r, c): weight @ image[0, 2 * r : 2 * r + 4, 2 * c : 2 * c + 4].flatten() + bias
            for r in range(grid)
            for c in range(grid)
        }
        for image in x
    ]


def _gru(w: dict[str, Tensor], z: dict[Place, Tensor]) -> dict[Place, Tensor]:
    """Cho et al. 2014, as torch writes it: reset, update and new, in this order."""
    wi, wh, bi, bh = (w[f"backbone.gru.{name}_l0"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    d = wh.shape[1]
    h, out = torch.zeros(d, dtype=wi.dtype), {}
    for t in range(len(z)):
        own, past = wi @ z[t, 0] + bi, wh @ h + bh
        reset, update = torch.sigmoid(own[:d] + past[:d]), torch.sigmoid(own[d : 2 * d] + past[d : 2 * d])
        new = torch.tanh(own[2 * d :] + reset * past[2 * d :])
        h = (1 - update) * new + update * h
        out[t, 0] = h
    return out


def _rows(w: dict[str, Tensor], z: dict[Place, Tensor], direction: int, side: int) -> dict[Place, Tensor]:
    name = f"contexts.{direction}."
    into, bias = w[f"{name}into.weight"][:, :, 0, 0], w[f"{name}into.bias"]
    x = {place: into @ latent + bias for place, latent in z.items()}
    layer = 0
    while f"{name}layers.{layer}.weight" in w:
        weight, bias = w[f"{name}layers.{layer}.weight"], w[f"{name}layers.{layer}.bias"]
        y = {}
        for r, c in x:
            total = x[r, c] + bias
            for up in (0, 1):
                for left in (-1, 0, 1):
                    if (r - up, c + left) in x:
                        total = total + weight[:, :, 1 - up, left + 1] @ x[r - up, c + left].clamp_min(0)
            y[r, c] = total
        x, layer = y, layer + 1
    return x


def _negatives(
    method: Predictive,
    z: list[dict[Place, Tensor]],
    b: int,
    index: Tensor,
    clock: Clock,
    which: tuple[int, int],
    groups: list[int] | None,
) -> list[tuple[int, Place]]:
    """Sequence and place of everything the latents of sequence b are told from, their own target not yet left out."""
    whence, drawn = method.candidates.whence, method.candidates.drawn
    allowed = []
    for j in range(len(z)):
        alike = groups is not None and groups[b] == groups[j]
        fits = {
            "batch": True,
            "other_sequences": j != b,
            "own_sequence": j == b,
            "same_group": alike,
            "same_group_others": alike and j != b,
        }[whence]
        allowed += [(j, place) for place in sorted(z[j])] if fits else []
    if not drawn or not allowed:
        return allowed
    direction, k = which
    view = direction * method.steps + k - 1
    words = rng.bits(rng.NEGATIVES, clock.seed, clock.step, index.numpy(), drawn, view=view)[b]
    return [allowed[int(word) * len(allowed) // 2**32] for word in words]
