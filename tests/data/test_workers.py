"""Work in threads: in order, not far ahead, errors handed on, and a thread that hangs named."""

import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stopgrad.contracts import DataError
from stopgrad.data import DataConfig, from_listing, open_data, workers
from stopgrad.data.workers import Busy, in_threads


def test_work_in_threads_comes_back_in_order_and_is_not_far_ahead() -> None:
    started: list[int] = []

    def work(positions: range) -> list[int]:
        started.extend(positions)
        return [i**2 for i in positions]

    results = in_threads(work, (range(at, min(at + 7, 1000)) for at in range(0, 1000, 7)))
    first = [next(results) for _ in range(10)]
    assert first == [i**2 for i in range(10)]
    assert len(started) < 200
    assert list(results) == [i**2 for i in range(10, 1000)]


def test_an_error_in_a_thread_reaches_the_caller() -> None:
    def work(positions: range) -> list[int]:
        raise ValueError(f"at {positions[0]}")

    with pytest.raises(ValueError, match="at 0"):
        list(in_threads(work, [range(5), range(5, 10)]))


def test_results_that_nobody_wants_any_more_are_not_begun() -> None:
    begun: list[int] = []

    def work(position: int) -> list[int]:
        begun.append(position)
        time.sleep(0.01)
        return [position]

    results = in_threads(work, range(1000))
    next(results)
    results.close()  # type: ignore[attr-defined]
    count = len(begun)
    time.sleep(0.1)
    assert len(begun) == count < 100


def test_a_thread_is_stuck_once_as_many_looks_found_it_at_one_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "PATIENCE", 3)
    busy = Busy()
    with busy.at(b"a.jpg"):
        assert [busy.stuck() for _ in range(4)] == [None, None, None, b"a.jpg"]
    for _ in range(9):  # another turn each time, whatever its name
        with busy.at(b"a.jpg"):
            assert busy.stuck() is None
    assert busy.stuck() is None


def test_a_decode_that_hangs_is_an_error_with_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(40):
        pixels = np.random.default_rng(i).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i:02d}.png")
    real, never = from_listing._read, threading.Event()

    def hangs(member: from_listing.Member, reader: from_listing.Reader) -> from_listing._Read:
        if member.name == b"17.png":
            never.wait()
        return real(member, reader)

    monkeypatch.setattr(from_listing, "_read", hangs)
    monkeypatch.setattr(workers, "LOOK", 0.01)
    monkeypatch.setattr(workers, "FAREWELL", 0.01)
    monkeypatch.setenv("STOPGRAD_CACHE", str(tmp_path / "cache"))
    with pytest.raises(DataError, match=r"reading 17\.png has not come to an end .* take it away, and start again"):
        open_data(DataConfig(source=str(tmp_path)), 32)
    never.set()
    monkeypatch.setattr(from_listing, "_read", real)
    assert len(open_data(DataConfig(source=str(tmp_path)), 32).train) > 0  # nothing half-built was left
