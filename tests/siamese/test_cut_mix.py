"""Images pasted into each other: the same pixels, the same share of the target, drawn from seed, epoch and index."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from stopgrad import rng
from stopgrad.contracts import Clock, Views
from stopgrad.siamese.cut_mix import GRID, CutMixed, areas, boxes_of, mixed, pasted
from stopgrad.siamese.family import Siamese
from tests.methods.small import batch, small


def test_a_box_has_the_share_it_was_drawn_for_where_the_edges_allow() -> None:
    middle = boxes_of(np.array([[0.25, 0.5, 0.5], [1 - 1e-9, 0.5, 0.5], [0.0, 0.3, 0.3]]))
    assert middle.tolist() == [[2, 6, 2, 6], [0, 8, 0, 8], [2, 2, 2, 2]]
    assert areas(middle).tolist() == [0.25, 1.0, 0.0]
    corner = boxes_of(np.array([[0.25, 0.0, 0.99]]))
    assert corner.tolist() == [[0, 2, 6, 8]]
    many = boxes_of(np.random.default_rng(0).random((500, 3)))
    assert (many >= 0).all()
    assert (many <= GRID).all()
    assert (areas(many) >= 0).all()


@pytest.mark.parametrize("side", [8, 16, 12])
def test_pixels_are_those_of_the_other_inside_the_box(side: int) -> None:
    generator = torch.Generator().manual_seed(0)
    crop, other = (torch.randn(3, 2, side, side, generator=generator) for _ in range(2))
    boxes = torch.tensor([[0, 8, 0, 8], [2, 6, 4, 8], [3, 3, 0, 8]])
    found = pasted(crop, other, boxes)
    for i, (top, bottom, left, right) in enumerate(boxes.tolist()):
        for y in range(side):
            for x in range(side):
                inside = top <= y * GRID / side // 1 < bottom and left <= x * GRID / side // 1 < right
                assert torch.equal(found[i, :, y, x], (other if inside else crop)[i, :, y, x])
    if side % GRID == 0:
        assert float((found[1] == other[1]).float().mean()) == 0.25


def test_targets_are_averaged_as_unit_vectors_by_area() -> None:
    t = torch.tensor([[2.0, 0.0], [0.0, 3.0], [1.0, 1.0]], dtype=torch.float64)
    found = mixed(t, torch.tensor([1, 2, 2]), torch.tensor([0.75, 1.0, 0.2]))
    half = 0.5**0.5
    torch.testing.assert_close(found, torch.tensor([[0.75, 0.25], [0.0, 1.0], [half, half]], dtype=torch.float64))


def method(**changes: Any) -> Siamese:
    made = small("unigrad", **changes).double()
    assert isinstance(made, Siamese)
    return made


def by_hand(twin: Siamese, views: Views, clock: Clock, share: float) -> tuple[list[Tensor], dict[int, Tensor]]:
    """Mixed crops and mixed targets, an image after the other."""
    index = views.index.numpy()
    drawn = rng.uniform(rng.CUT_MIX, clock.seed, clock.epoch, index, draws=5)
    whole = twin.target(views, {}, twin, (0, 1), clock)
    crops, targets = [crop.clone() for crop in views.crops], {view: rows.clone() for view, rows in whole.items()}
    for i, (who, cut, y, x, whether) in enumerate(drawn.tolist()):
        partner = int(who * len(index))
        half = 8 * cut**0.5 / 2
        edges = [min(max(round(v), 0), 8) for v in (8 * y - half, 8 * y + half, 8 * x - half, 8 * x + half)]
        top, bottom, left, right = (2 * edge for edge in edges) if whether < share else (0, 0, 0, 0)  # of 16 pixels
        kept = 1 - (bottom - top) * (right - left) / 256
        for view in (0, 1):
            crops[view][i, :, top:bottom, left:right] = views.crops[view][partner, :, top:bottom, left:right]
            own, other = (row / row.norm() for row in (whole[view][i], whole[view][partner]))
            targets[view][i] = kept * own + (1 - kept) * other
    return crops, targets


@pytest.mark.parametrize("target", ["momentum", "stop_gradient"])
def test_a_step_is_the_reading_written_out(target: str) -> None:
    views, now = batch("unigrad", dtype=torch.float64), Clock(3, 10, 5, seed=7)
    ours, twin = method(cut_mix=0.7, target=target), method(target=target)
    crops, t = by_hand(twin, views, now, 0.7)
    z = {view: twin.projector(twin.backbone(crops[view])) for view in (0, 1)}
    expected, _ = twin.objective(z, z, t, twin.pairs, views.index, now)
    out = ours(views, now)
    assert out.loss.item() == pytest.approx(expected.item(), rel=1e-9)
    gradients = torch.autograd.grad(out.loss, list(ours.projector.parameters()))
    for a, b in zip(gradients, torch.autograd.grad(expected, list(twin.projector.parameters())), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-10)
    assert 0 < float(out.logs["kept"]) < 1


def test_what_is_mixed_follows_from_seed_epoch_and_index() -> None:
    views = batch("unigrad", dtype=torch.float64)

    def loss(seed: int = 0, step: int = 0, share: float = 1.0) -> float:
        return method(cut_mix=share)(views, Clock(step, 10, 5, seed=seed)).loss.item()

    assert loss() == loss()
    assert loss(step=4) == loss(step=0)  # one epoch
    assert len({loss(), loss(seed=1), loss(step=5), loss(share=0.5)}) == 4


def test_without_it_there_is_nothing_of_it() -> None:
    assert isinstance(method(cut_mix=0.5), CutMixed)
    assert not isinstance(method(), CutMixed)
