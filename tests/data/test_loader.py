"""The order of images: each once an epoch, the same for any number of processes, a function of (seed, step)."""

import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from stopgrad import rng
from stopgrad.contracts import ConfigError, DataError
from stopgrad.data.loader import Loader, Subset, hold_out


class Numbered:
    """Image i is a pixel of value i; its label is i too."""

    def __init__(self, count: int) -> None:
        self.labels: NDArray[np.int64] | None = np.arange(count)
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> NDArray[Any]:
        return np.full((1, 1, 1), index, np.uint8)

    def name(self, index: int) -> str:
        return f"number {index}"

    def take(self, index: NDArray[np.int64]) -> Sequence[NDArray[Any]]:
        return [self[int(i)] for i in index]


def values(samples: Sequence[NDArray[Any]]) -> list[int]:
    return [int(sample[0, 0, 0]) for sample in samples]


def test_each_image_comes_at_most_once_an_epoch_and_the_rest_is_less_than_a_batch() -> None:
    loader = Loader(Numbered(103), 10, seed=3)
    assert loader.steps_per_epoch == 10
    for epoch in (0, 1, 7):
        batches = [loader.batch(step) for step in range(epoch * 10, epoch * 10 + 10)]
        seen = np.concatenate([batch.index for batch in batches])
        assert len(set(seen.tolist())) == 100
        assert {batch.epoch for batch in batches} == {epoch}


def test_every_image_comes_exactly_once_where_batches_fit() -> None:
    loader = Loader(Numbered(60), 12, seed=0)
    seen = np.concatenate([loader.index(step) for step in range(5, 10)])
    assert sorted(seen.tolist()) == list(range(60))


def test_samples_are_the_images_of_the_index() -> None:
    batch = Loader(Numbered(50), 8, seed=1).batch(4)
    assert values(batch.samples) == batch.index.tolist()


@pytest.mark.parametrize("world", [1, 2, 4])
def test_the_global_batches_are_the_same_for_any_number_of_processes(world: int) -> None:
    alone = Loader(Numbered(101), 8, seed=5)
    ranks = [Loader(Numbered(101), 8, seed=5, rank=rank, world=world) for rank in range(world)]
    for step in (0, 3, 11, 12, 40):
        parts = [rank.batch(step) for rank in ranks]
        assert {len(part.index) for part in parts} == {8 // world}
        assert np.concatenate([part.index for part in parts]).tolist() == alone.index(step).tolist()
        assert ranks[0].steps_per_epoch == alone.steps_per_epoch


def test_a_step_is_the_same_in_whatever_order_steps_are_asked_for() -> None:
    forward, fresh = Loader(Numbered(40), 8, seed=2), Loader(Numbered(40), 8, seed=2)
    first = [forward.index(step).tolist() for step in range(20)]
    assert [fresh.index(step).tolist() for step in reversed(range(20))] == first[::-1]


def test_the_order_is_the_permutation_of_seed_and_epoch() -> None:
    loader = Loader(Numbered(40), 8, seed=2)
    assert loader.index(5 * 3 + 1).tolist() == rng.permutation(40, 2, 3)[8:16].tolist()


def test_seeds_and_epochs_have_orders_of_their_own() -> None:
    orders = [tuple(Loader(Numbered(64), 64, seed=seed).index(step)) for seed in (0, 1) for step in (0, 1)]
    assert len(set(orders)) == 4


def test_only_the_orders_that_prefetching_can_need_are_kept() -> None:
    loader = Loader(Numbered(64), 64, seed=0)
    for step in range(20):
        loader.index(step)
    assert len(loader._orders) <= 3


def test_a_loader_can_be_pickled() -> None:
    loader = Loader(Numbered(40), 8, seed=2)
    assert pickle.loads(pickle.dumps(loader)).index(7).tolist() == loader.index(7).tolist()


def test_fewer_images_than_a_batch_is_an_error_with_the_largest_batch_that_fits() -> None:
    with pytest.raises(DataError, match=r"7 training images are fewer than one batch of 256.*--batch-size 6"):
        Loader(Numbered(7), 256, seed=0, world=2)
    assert Loader(Numbered(7), 6, seed=0, world=2).steps_per_epoch == 1
    with pytest.raises(DataError, match="usable batch is 0: add images"):
        Loader(Numbered(1), 2, seed=0, world=2)


@pytest.mark.parametrize(("batch", "near"), [(7, 6), (1, 2), (0, 2)])
def test_a_batch_that_can_not_be_shared_evenly_is_an_error_with_one_that_can(batch: int, near: int) -> None:
    with pytest.raises(ConfigError, match=f"multiple of 2, such as {near}"):
        Loader(Numbered(100), batch, seed=0, world=2)


def test_a_subset_is_a_split_of_its_own() -> None:
    part = Subset(Numbered(20), np.array([5, 3, 19]))
    assert len(part) == 3
    assert part.labels is not None
    assert part.labels.tolist() == [5, 3, 19]
    assert values([part[i] for i in range(3)]) == [5, 3, 19]
    assert values(part.take(np.array([2, 0]))) == [19, 5]


def test_a_subset_of_images_without_labels_has_none() -> None:
    images = Numbered(4)
    images.labels = None
    assert Subset(images, np.array([1])).labels is None


def test_held_out_images_are_the_same_for_a_seed_and_never_kept() -> None:
    kept, held = hold_out(Numbered(100), 20, seed=1)
    again = hold_out(Numbered(100), 20, seed=1)
    other = hold_out(Numbered(100), 20, seed=2)
    assert (len(kept), len(held)) == (80, 20)
    assert sorted([*kept.index, *held.index]) == list(range(100))
    assert held.index.tolist() == again[1].index.tolist() != other[1].index.tolist()


@pytest.mark.parametrize("count", [0, 100, 101, -1])
def test_holding_out_nothing_or_everything_is_an_error(count: int) -> None:
    with pytest.raises(DataError, match="from 1 to 99"):
        hold_out(Numbered(100), count, seed=0)


def test_a_part_calls_its_images_what_the_split_calls_them() -> None:
    inner = Subset(Numbered(10), np.array([7, 2, 5]))
    assert [inner.name(i) for i in range(3)] == ["number 7", "number 2", "number 5"]
    assert Subset(inner, np.array([2])).name(0) == "number 5"
