"""A batch that memory does not hold: what fits is tried, and said."""

from pathlib import Path
from typing import Any

import pytest
import torch

from stopgrad.assemble import api
from stopgrad.contracts import Clock, OutOfMemoryError, Output, Views
from stopgrad.rundir import RunDir
from stopgrad.siamese.family import Siamese
from stopgrad.training import out_of_memory
from stopgrad.training.progress import Progress
from tests.training.small_run import SETTINGS

WORDS = "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to"


def narrow(monkeypatch: pytest.MonkeyPatch, most: int, words: str = WORDS) -> list[int]:
    """A machine that holds so many images at a time, and what was tried on it."""
    real, tried = Siamese.forward, list[int]()

    def forward(self: Siamese, views: Views, clock: Clock) -> Output:
        tried.append(len(views.index))
        if len(views.index) > most:
            raise RuntimeError(words)
        return real(self, views, clock)

    monkeypatch.setattr(Siamese, "forward", forward)
    return tried


def train(out: Path, method: str, *settings: str) -> Any:
    own = [setting for setting in SETTINGS if method == "simsiam" or "predictor" not in setting]
    options = api.Options(settings=(*own, *settings))
    return api.train(f"{method}/scenes", out=out, name="a", options=options, progress=Progress(quiet=True))


@pytest.mark.parametrize(
    ("method", "most", "said"),
    [
        ("simsiam", 9, "--batch-size 7 fits, or the same batch in parts: --set loop.accumulate=5"),
        ("simsiam", 15, "--batch-size 15 fits, or the same batch in parts: --set loop.accumulate=2"),
        ("simclr", 9, "--batch-size 7 fits"),  # its batch norm would make parts another loss
        ("simsiam", 1, "--batch-size 15 may fit, or"),
    ],
)
def test_the_largest_batch_that_fits_is_found_and_said(
    method: str, most: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = narrow(monkeypatch, most)
    with pytest.raises(OutOfMemoryError, match=r"out of memory at step 0: 30 images at a time, 2 views of 32, 32") as e:
        train(tmp_path, method)
    assert said in str(e.value)
    assert ("accumulate" in str(e.value)) == (method != "simclr")
    assert tried[:3] == [30, 15, 7][: len(tried)]
    assert RunDir(tmp_path / "a").state()["exit_code"] == 71


def test_where_a_batch_is_taken_in_parts_already_it_is_the_batch_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    narrow(monkeypatch, 4)
    with pytest.raises(OutOfMemoryError, match=r"10 images at a time.* --batch-size 6 fits, .* loop.accumulate=15"):
        train(tmp_path, "simsiam", "loop.accumulate=3")


def test_what_is_said_to_fit_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    narrow(monkeypatch, 9)
    assert train(tmp_path, "simsiam", "loop.accumulate=5", "loop.epochs=1").trained


def test_another_error_is_not_taken_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    narrow(monkeypatch, 9, "mat1 and mat2 shapes cannot be multiplied")
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        train(tmp_path, "simsiam")
    assert out_of_memory.is_it(torch.OutOfMemoryError("CUDA out of memory"))
    assert out_of_memory.is_it(MemoryError())
    assert not out_of_memory.is_it(ValueError(WORDS))
