"""The run folder: whole or absent, vouched for by checksums, held by one process."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stopgrad import rundir
from stopgrad.contracts import CheckpointError, LockedError, StorageError
from stopgrad.rundir import RunDir, write_bytes


def quiet(_: str) -> None:
    """Says nothing."""


def with_checkpoints(path: Path, count: int = 3, keep: int = 2) -> RunDir:
    run = RunDir(path)
    for i in range(count):
        run.save_checkpoint(i, bytes([i]) * 100, keep)
    return run


def test_a_write_is_flushed_to_disk_before_it_replaces_and_the_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    real_fsync, real_replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (calls.append("fsync"), real_fsync(handle))[1])
    monkeypatch.setattr(Path, "replace", lambda self, to: (calls.append("replace"), real_replace(self, to))[1])
    write_bytes(tmp_path / "a", b"x")
    assert calls == ["fsync", "replace", "fsync"]
    assert (tmp_path / "a").read_bytes() == b"x"


def test_a_full_disk_leaves_the_old_file_and_says_how_much_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bytes(tmp_path / "a", b"old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match=r"disk full: needs 2\.0 MB"):
        write_bytes(tmp_path / "a", b"n" * 2_000_000)
    assert (tmp_path / "a").read_bytes() == b"old"
    assert not list(tmp_path.glob("*.tmp"))


def test_only_the_newest_checkpoints_are_kept_and_the_newest_is_read(tmp_path: Path) -> None:
    run = with_checkpoints(tmp_path)
    assert sorted(path.name for path in run.checkpoints.glob("*.ckpt")) == ["step000000001.ckpt", "step000000002.ckpt"]
    found = run.newest_checkpoint(quiet)
    assert found is not None
    assert found[1] == b"\x02" * 100


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(offset=st.integers(0, 799), cut=st.integers(0, 99), flip=st.booleans())
def test_any_flipped_bit_and_any_cut_is_noticed_and_the_one_before_is_used(
    tmp_path: Path, offset: int, cut: int, flip: bool
) -> None:
    run = with_checkpoints(tmp_path / "run")
    newest = run.checkpoints / "step000000002.ckpt"
    data = bytearray(newest.read_bytes())
    data[offset // 8] ^= 1 << (offset % 8)
    newest.write_bytes(bytes(data) if flip else newest.read_bytes()[:cut])
    said: list[str] = []
    found = run.newest_checkpoint(said.append)
    assert found is not None
    assert found[0].name == "step000000001.ckpt"
    assert "step000000002.ckpt is damaged" in said[0]
    assert "continuing from step000000001.ckpt" in said[0]


def test_when_every_checkpoint_is_damaged_it_says_which(tmp_path: Path) -> None:
    run = with_checkpoints(tmp_path)
    for path in run.checkpoints.glob("*.ckpt"):
        path.write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"step000000002\.ckpt, step000000001\.ckpt damaged"):
        run.newest_checkpoint(quiet)


def test_a_new_checkpoint_outlives_a_damaged_later_one(tmp_path: Path) -> None:
    run = with_checkpoints(tmp_path, keep=2)
    (run.checkpoints / "step000000002.ckpt").write_bytes(b"damaged")
    run.save_checkpoint(2, b"again", keep=1)
    assert [path.name for path in run.checkpoints.glob("*.ckpt")] == ["step000000002.ckpt"]
    found = run.newest_checkpoint(quiet)
    assert found is not None
    assert found[1] == b"again"


def test_a_manifest_that_can_not_be_read_trusts_nothing(tmp_path: Path) -> None:
    run = with_checkpoints(tmp_path)
    run.manifest.write_text('{"sha256": [1]}')
    with pytest.raises(CheckpointError, match="no checkpoint can be trusted"):
        run.newest_checkpoint(quiet)


def test_no_checkpoint_yet_is_none_and_leftovers_are_removed(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    assert run.newest_checkpoint(quiet) is None
    run.checkpoints.mkdir()
    (run.checkpoints / "step000000001.ckpt.tmp").write_bytes(b"half")
    assert run.newest_checkpoint(quiet) is None
    assert not list(run.checkpoints.iterdir())


FAILPOINTS = ["after_write", "after_fsync", "after_replace", "before_manifest", "before_purge", "mid_purge"]


@pytest.mark.parametrize("point", FAILPOINTS)
def test_a_kill_at_any_point_of_a_save_leaves_a_good_checkpoint(tmp_path: Path, point: str) -> None:
    with_checkpoints(tmp_path)
    code = (
        "import sys; from pathlib import Path; from stopgrad.rundir import RunDir;"
        "RunDir(Path(sys.argv[1])).save_checkpoint(3, b'3' * 100, 2)"
    )
    environment = {**os.environ, "STOPGRAD_FAILPOINT": point}
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=environment, check=False)
    assert done.returncode == 137
    found = RunDir(tmp_path).newest_checkpoint(quiet)
    assert found is not None
    assert found[1] in (b"\x02" * 100, b"3" * 100)


def test_a_second_process_is_told_who_holds_the_folder_and_a_dead_ones_lock_is_taken_over(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from stopgrad.rundir import RunDir\n"
        "with RunDir(Path(sys.argv[1])).locked():\n  print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdin is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(LockedError, match=f"in use by process {holder.pid}"), RunDir(tmp_path).locked():
        raise AssertionError("two processes hold one folder")
    holder.kill()
    holder.wait()
    holder.stdout.close()
    holder.stdin.close()
    with RunDir(tmp_path).locked():
        assert (tmp_path / "lock").read_text().strip() == str(os.getpid())


def test_the_log_is_cut_to_its_checkpoint_and_a_torn_line_is_left_out(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.append_log({"step": 1})
    length = run.log.stat().st_size
    run.append_log({"step": 2})
    with run.log.open("ab") as file:
        file.write(b'{"step": 3, "lo')
    assert [line["step"] for line in run.read_log()] == [1, 2]
    run.cut_log(length)
    assert [line["step"] for line in run.read_log()] == [1]
    with pytest.raises(CheckpointError, match="was cut or replaced"):
        run.cut_log(10_000)


def test_a_process_that_is_not_the_first_writes_and_locks_nothing(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run", writes=False)
    with run.locked():
        run.set_status("running")
    assert not run.path.exists()


def test_a_folder_that_can_not_be_made_is_an_error_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="choose another place"), RunDir(tmp_path / "file" / "run").locked():
        raise AssertionError("held a folder that can't exist")


def test_the_verdict_never_sees_a_labelled_number(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.append_log({"step": 1, "std_ratio": 0.5, "knn_top1": 99.0})
    run.append_log({"step": 2, "loss": -0.5})
    run.append_log({"step": 3, "loss": None, "skipped": True})
    assert [sorted(line) for line in run.verdict_lines()] == [["std_ratio", "step"], ["loss", "skipped", "step"]]


def test_the_state_of_a_damaged_status_file_is_unknown_not_a_crash(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    assert run.state() == {}
    run.set_status("finished", verdict="healthy")
    assert run.state() == {"state": "finished", "verdict": "healthy"}
    run.status.write_text("{")
    assert run.state() == {}
    assert json.loads(rundir.as_json({"a": 1})) == {"a": 1}
