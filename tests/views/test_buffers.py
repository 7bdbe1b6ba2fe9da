"""Buffers of views are used again once nobody reads them, and never before."""

import gc
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from stopgrad.contracts import Batch
from stopgrad.views import PRESETS, ViewMaker, ViewsConfig, cpu
from stopgrad.views.maker import Buffers

CPU = torch.device("cpu")


def batch(epoch: int, count: int = 12) -> Batch:
    samples = np.random.default_rng(0).integers(0, 256, (count, 24, 24, 3), dtype=np.uint8)
    return Batch(samples, np.arange(count), epoch)


def maker() -> ViewMaker:
    return ViewMaker(ViewsConfig(image_size=16, crops=PRESETS["moco_v2_cifar"]), 3, 0, CPU, 1)


def test_views_that_somebody_holds_are_not_written_over() -> None:
    make = maker()
    held = [make(batch(epoch)).crops for epoch in range(4)]
    copies = [[crop.clone() for crop in crops] for crops in held]
    for epoch in range(4, 8):
        make(batch(epoch))
    assert all(torch.equal(a, b) for pair in zip(held, copies) for a, b in zip(*pair))


READERS = {
    "a slice": lambda tensor: tensor[1:2],
    "a transposed view": lambda tensor: tensor.T,
    "autograd": lambda tensor: (tensor * torch.ones(4, requires_grad=True)).sum(),
}


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
def test_whatever_still_reads_the_memory_keeps_it(reader: Callable[[torch.Tensor], torch.Tensor]) -> None:
    buffers = Buffers()
    address = (array := buffers.take((4, 4))).ctypes.data
    keeper = reader(torch.from_numpy(array))
    del array
    assert buffers.take((4, 4)).ctypes.data != address
    del keeper
    gc.collect()
    assert buffers.take((4, 4)).ctypes.data == address


def test_threads_that_share_a_maker_do_not_share_memory() -> None:
    make = maker()
    expected = {epoch: [crop.clone() for crop in make(batch(epoch)).crops] for epoch in range(4)}

    def again(epoch: int) -> bool:
        return all(
            torch.equal(a, b) for _ in range(25) for a, b in zip(make(batch(epoch)).crops, expected[epoch], strict=True)
        )

    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            assert all(pool.map(again, expected))
    finally:
        sys.setswitchinterval(usual)


def test_memory_does_not_grow_when_views_are_let_go() -> None:
    make = maker()
    for epoch in range(10):
        views = make(batch(epoch))  # the views of the epoch before are held while these are made
    assert len(views.crops) == 2
    assert len(make.buffers.arrays) == 4
    make(batch(0, count=7))  # another shape: what lies free of the old one goes
    assert {array.shape[0] for array in make.buffers.arrays} == {12, 7}
    del views


def test_how_many_views_are_worked_on_together_changes_no_pixel(monkeypatch: pytest.MonkeyPatch) -> None:
    together = maker()(batch(0)).crops
    monkeypatch.setattr(cpu, "TALL", 1)
    assert all(torch.equal(a, b) for a, b in zip(together, maker()(batch(0)).crops))
