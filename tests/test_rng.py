"""Counters: published vectors, independence of the batch, and each position once."""

import numpy as np
import pytest

from stopgrad import rng


def test_philox_gives_the_published_vectors() -> None:
    """Known answers of Random123 (kat_vectors, philox4x32 10)."""
    zeros = np.zeros(4, dtype=np.uint64)
    ones = np.full(4, 0xFFFFFFFF, dtype=np.uint64)
    pi = np.array([0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344], dtype=np.uint64)
    assert [hex(v) for v in rng.philox(zeros, 0)] == ["0x6627e8d5", "0xe169c58d", "0xbc57ac4c", "0x9b00dbd8"]
    assert [hex(v) for v in rng.philox(ones, (1 << 64) - 1)] == ["0x408f276d", "0x41c83b0e", "0xa20bc7c6", "0x6d5451fd"]
    key = 0xA4093822 | 0x299F31D0 << 32
    assert [hex(v) for v in rng.philox(pi, key)] == ["0xd16cfe09", "0x94fdcceb", "0x5001e420", "0x24126ea1"]


def test_a_samples_numbers_do_not_depend_on_its_batch() -> None:
    index = np.array([5, 2**40, 9])
    together = rng.uniform(rng.VIEWS, 3, 1, index, draws=7, view=1)
    for row, one in enumerate(index):
        alone = rng.uniform(rng.VIEWS, 3, 1, np.array([one]), draws=7, view=1)
        assert np.array_equal(alone[0], together[row])


def test_every_part_of_the_counter_changes_the_numbers() -> None:
    index = np.arange(4)
    reference = rng.bits(rng.VIEWS, 0, 0, index, 4)
    others = [
        rng.bits(rng.ORDER, 0, 0, index, 4),
        rng.bits(rng.VIEWS, 1, 0, index, 4),
        rng.bits(rng.VIEWS, 0, 1, index, 4),
        rng.bits(rng.VIEWS, 0, 0, index + 4, 4),
        rng.bits(rng.VIEWS, 0, 0, index, 4, view=1),
    ]
    for other in others:
        assert not np.any(reference == other)


def test_numbers_are_uniform_by_a_chi_square_bound() -> None:
    values = rng.uniform(rng.VIEWS, 0, 0, np.arange(20_000), draws=4)
    counts = np.bincount((values.ravel() * 64).astype(int), minlength=64)
    chi_square = ((counts - 1250.0) ** 2 / 1250.0).sum()
    assert 30 < chi_square < 110  # 63 degrees of freedom: outside once in ten thousand seeds, and this seed is fixed
    assert values.min() >= 0
    assert values.max() < 1


def test_a_permutation_has_each_position_once_and_every_epoch_its_own() -> None:
    first, second = rng.permutation(1000, seed=0, epoch=0), rng.permutation(1000, seed=0, epoch=1)
    assert sorted(first) == list(range(1000))
    assert not np.array_equal(first, second)
    assert np.array_equal(first, rng.permutation(1000, seed=0, epoch=0))


def test_a_permutation_is_the_same_however_it_is_put_together(monkeypatch: pytest.MonkeyPatch) -> None:
    words = rng.bits(rng.ORDER, 3, 2, np.arange(1000), 2)
    whole = np.argsort((words[:, 0] << np.uint64(32)) | words[:, 1], kind="stable")
    assert np.array_equal(rng.permutation(1000, seed=3, epoch=2), whole)
    monkeypatch.setattr(rng, "_BLOCK", 96)
    assert np.array_equal(rng.permutation(1000, seed=3, epoch=2), whole)
