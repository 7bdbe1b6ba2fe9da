"""The machine before the first step: room, a folder that can be written, threads, shared memory; one line each."""

import errno
import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from stopgrad import cli
from stopgrad.assemble import api, build, machine, preflight
from stopgrad.contracts import StorageError
from stopgrad.recipe import Recipe
from stopgrad.rundir import RunDir
from stopgrad.training.progress import Progress
from tests.training.small_run import SETTINGS, go_on, start

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def small(*settings: str) -> Recipe:
    return api.compose("simsiam", api.Options(settings=(*SETTINGS, *settings)))


def command(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = cli.run(list(words), debug=False)
    out, err = capsys.readouterr()
    return code, out, err


def free_is(monkeypatch: pytest.MonkeyPatch, count: int | None) -> None:
    for module in (machine, preflight):
        monkeypatch.setattr(module, "free_bytes", lambda path: count)


# --- what a run writes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [(), ("optim.momentum=0", "loop.keep_checkpoints=1")])
def test_what_is_counted_is_what_a_run_writes(settings: tuple[str, ...], tmp_path: Path) -> None:
    path = start(tmp_path, "a", "loop.epochs=2", *settings).path
    run, recipe = RunDir(path), small(*settings)
    kept = sorted(run.checkpoints.glob("step*.ckpt"))
    assert len(kept) == recipe.loop.keep_checkpoints
    weights = (len(kept) + 1) * kept[-1].stat().st_size + run.encoder.stat().st_size
    counted = machine.needed_bytes(recipe) - machine.BESIDES
    framing = 40_000  # bytes that torch.save, safetensors and the state of the random numbers add, a file
    assert weights - framing * (len(kept) + 2) <= counted <= weights
    besides = sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) - weights
    assert besides < machine.BESIDES


def test_weights_that_a_run_begins_from_are_counted() -> None:
    plain = small()
    begun = small("backbone.init=/encoder.safetensors")
    encoder = sum(value.nbytes for value in build.build_method(plain, 0).backbone.state_dict().values())
    assert machine.needed_bytes(begun) - machine.needed_bytes(plain) == encoder


def test_a_disk_that_is_too_small_ends_the_run_before_its_first_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    free_is(monkeypatch, machine.needed_bytes(small()) - 1)
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    code, out, err = command(capsys, "train", "simsiam", "--out", str(tmp_path), "--name", "a", *settings)
    assert code == 74
    assert "Traceback" not in out + err
    last = err.strip().splitlines()[-1]
    assert f"{tmp_path}/a: the run needs 40.6 MB" in last
    assert "and 40.6 MB are free" in last
    assert last.endswith("choose another place: --out ELSEWHERE")
    run = RunDir(tmp_path / "a")
    assert not run.begun()
    assert run.state()["exit_code"] == 74
    free_is(monkeypatch, machine.needed_bytes(small()))
    assert start(tmp_path, "a", "loop.epochs=1").trained


def test_a_resumed_run_needs_less_by_what_it_has_and_is_checked_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stopgrad.assemble.towers.save_encoder", _fail)
    with pytest.raises(RuntimeError, match="on purpose"):
        start(tmp_path, "a")
    monkeypatch.undo()
    run = RunDir(tmp_path / "a")
    there = sum(file.stat().st_size for file in run.checkpoints.glob("step*.ckpt"))
    assert there > 0
    missing = machine.needed_bytes(small()) - there
    free_is(monkeypatch, missing - 1)
    with pytest.raises(StorageError, match="are free; free some, or copy it to another disk and --resume the copy"):
        go_on(run.path)
    free_is(monkeypatch, missing)
    assert go_on(run.path).trained


def _fail(*_: object) -> None:
    raise RuntimeError("on purpose")


def test_a_file_system_that_tells_no_size_is_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free_is(monkeypatch, None)
    machine.check_space(RunDir(tmp_path), 10**15)


def test_a_process_that_is_not_the_first_needs_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free_is(monkeypatch, 0)
    machine.check_machine(RunDir(tmp_path, writes=False), small(), CPU, print)
    with pytest.raises(StorageError):
        machine.check_machine(RunDir(tmp_path), small(), CPU, print)


# --- a folder that can't be written -----------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["/proc", "/sys"])
def test_an_out_that_is_read_only_is_one_line_before_any_image_is_read(
    place: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stopgrad.media.images.open_data", _fail)
    code, out, err = command(capsys, "train", "simsiam", "--data", "scenes", "--out", place, "--name", "a")
    assert code == 74
    assert out == ""
    assert err.startswith(f"stopgrad: {place}/a: this run's folder can't be written (")
    assert err.endswith("choose another place: --out ELSEWHERE\n")
    assert len(err.splitlines()) == 1


def test_a_run_that_became_read_only_is_one_line_when_it_is_resumed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = start(tmp_path, "a", "loop.epochs=1").path
    before = sorted(file.name for file in path.iterdir())

    def refuse(*_: object, **__: object) -> None:  # the lock of the first time opens, a new file can't be made
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    code, _, err = command(capsys, "train", str(path), "--resume")
    assert code == 74
    assert err == (
        f"stopgrad: {path}: this run's folder can't be written (Read-only file system); "
        "copy it to another disk and --resume the copy\n"
    )
    assert sorted(file.name for file in path.iterdir()) == before


def test_a_disk_without_room_for_a_line_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("stopgrad.rundir.os.write", full)
    code, _, err = command(capsys, "train", "simsiam", "--data", "scenes", "--out", str(tmp_path), "--name", "a")
    assert code == 74
    assert err.startswith(f"stopgrad: {tmp_path}/a: this run's folder can't be written (No space left on device); ")
    assert len(err.splitlines()) == 1


# --- threads and shared memory ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "torchs", "settings", "threads", "warns"),
    [
        ("64", 64, "loop.threads=0", 2, True),
        ("64,2", 2, "loop.threads=0", 2, True),  # torch had bounded them
        ("64", 64, "loop.threads=5", 5, False),
        ("2", 2, "loop.threads=0", 2, False),
        ("1", 1, "loop.threads=0", 1, False),
        ("many", 2, "loop.threads=0", 2, False),
    ],
)
def test_threads_beyond_the_cores_are_bounded_and_that_is_said(
    asked: str, torchs: int, settings: str, threads: int, warns: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    monkeypatch.setattr(torch, "get_num_threads", lambda: torchs)
    monkeypatch.setattr(build, "cores", lambda: 2)
    lines: list[str] = []
    assert build.resolve(small(settings), CPU, lines.append).loop.threads == threads
    said = "OMP_NUM_THREADS=64 is more than the cores there are: compute threads are 2 of 2"
    assert [line.partition(";")[0] for line in lines] == ([said] if warns else [])


def test_a_run_says_that_its_threads_are_bounded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "640000")
    monkeypatch.setattr("stopgrad.media.images.open_data", _fail)
    _, _, err = command(capsys, "train", "simsiam", "--data", "scenes", "--out", str(tmp_path), "--name", "a")
    assert len([line for line in err.splitlines() if line.startswith("OMP_NUM_THREADS=640000 is more")]) == 1


@pytest.mark.parametrize(
    ("world", "device", "free", "warns"),
    [
        (2, GPU, 1_000_000, True),
        (2, GPU, 67_108_864, False),
        (2, CPU, 1_000_000, False),
        (1, GPU, 1_000_000, False),
    ],
)
def test_little_shared_memory_is_a_warning_where_processes_share_gpus(
    world: int, device: torch.device, free: int, warns: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine.dist, "world", lambda: world)
    monkeypatch.setattr(machine, "free_bytes", lambda path: free)
    lines: list[str] = []
    machine.check_machine(RunDir(tmp_path, writes=False), small(), device, lines.append)
    assert bool(lines) == warns
    assert all("/dev/shm has 1.0 MB free" in line and "docker run --shm-size=1g" in line for line in lines)
    assert bool(machine.shared_memory_note(device, tmp_path / "none")) == (world == 2 and device == GPU)


# --- check ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    draw = np.random.default_rng(0)
    for i in range(40):
        Image.fromarray(draw.integers(0, 256, (40, 40, 3), np.uint8)).save(tmp_path / "photos" / f"{i}.png")
    return tmp_path / "photos"


def test_check_shows_what_is_free_and_what_is_needed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free_is(monkeypatch, 3_000_000_000)
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    monkeypatch.setattr(build, "cores", lambda: 2)
    found = preflight.check(str(folder), timed=False, progress=Progress(quiet=True))
    assert found.problem == ""
    section = dict(found.sections)["Machine"]
    assert section[0][1].startswith("3.0 GB free at runs/simsiam-photos, which needs up to ")
    assert section[1] == ("cache", f"3.0 GB free at {os.environ['STOPGRAD_CACHE']}")
    assert section[-1][1].startswith("OMP_NUM_THREADS=64 is more than the cores")
    facts = found.facts
    assert (facts["run_free_bytes"], facts["cache_free_bytes"], facts["threads"]) == (3_000_000_000, 3_000_000_000, 2)
    assert machine.BESIDES < facts["run_bytes"] < 10 * machine.BESIDES


def test_check_counts_a_row_of_the_bank_for_every_image(folder: Path) -> None:
    recipe = api.compose("instdisc", api.Options(data=str(folder)))
    found = preflight.check(str(folder), method="instdisc", timed=False, progress=Progress(quiet=True))
    rows = machine.needed_bytes(recipe, found.facts["train"]) - machine.needed_bytes(recipe)
    assert rows == (recipe.loop.keep_checkpoints + 1) * (found.facts["train"] - 1) * recipe.method.projector.dim * 4
    assert found.facts["run_bytes"] == machine.needed_bytes(recipe, found.facts["train"])


def cramped(monkeypatch: pytest.MonkeyPatch) -> str:
    free_is(monkeypatch, 10_000_000)
    return "runs/simsiam-photos: the run needs .* MB .* 10.0 MB are free; .*--out ELSEWHERE"


def closed(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr("stopgrad.rundir.os.access", lambda path, mode: False)
    return r"runs/simsiam-photos: this run's folder can't be written \(Permission denied\); .*--out ELSEWHERE"


def no_cache(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("STOPGRAD_CACHE", "/proc/cache")
    return "cache folder /proc/cache: can't be written .* STOPGRAD_CACHE=/"


@pytest.mark.parametrize("spoil", [cramped, closed, no_cache])
def test_check_ends_with_74_where_the_disk_is_the_reason(
    spoil: Callable[[pytest.MonkeyPatch], str],
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said = spoil(monkeypatch)
    monkeypatch.setattr(preflight, "rehearse", _fail)
    found = preflight.check(str(folder), progress=Progress(quiet=True))
    assert isinstance(found.error, StorageError)
    assert re.match(said, found.problem)
    code, out, err = command(capsys, "check", str(folder))
    assert code == 74
    assert "A run can start" not in out
    assert len([line for line in err.splitlines() if line.startswith("stopgrad:")]) == 1


def test_free_bytes_are_those_of_the_nearest_folder_that_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stopgrad.rundir import free_bytes

    asked: list[Path] = []

    def usage(path: Path) -> SimpleNamespace:
        asked.append(path)
        return SimpleNamespace(total=10, free=7)

    assert free_bytes(Path("/proc/none")) is None
    monkeypatch.setattr("stopgrad.rundir.shutil.disk_usage", usage)
    assert free_bytes(tmp_path / "a" / "b") == 7
    assert asked == [tmp_path]
