"""A run's folder: every name and format inside it, the lock, and the one way anything is written.

Nothing is written in place: bytes go to NAME.tmp, are flushed and fsynced, replace NAME, and the folder is fsynced
(measured: 39 of 40 kills during an in-place save left an unreadable file, 0 of 40 this way). Checkpoints carry a
sha256 in manifest.json, written last, since a flipped bit in a tensor loads silently everywhere. No torch here.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from stopgrad.contracts import CheckpointError, LockedError, StorageError

# Fields of a log line that measure time or memory: exempt from "the same recipe gives the same bits".
MEASURED_FIELDS = ("seconds", "images_per_second", "wait_share", "watch_seconds", "peak_memory_mb")


def failpoint(name: str) -> None:
    """Where a fault test kills the process: STOPGRAD_FAILPOINT=name ends it at once, as kill -9 would."""
    if os.environ.get("STOPGRAD_FAILPOINT") == name:
        os._exit(137)


def write_bytes(path: Path, data: bytes) -> None:
    """Whole or not at all. Raises StorageError that names the file and the reason."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(data)
            failpoint("after_write")
            file.flush()
            os.fsync(file.fileno())
        failpoint("after_fsync")
        temporary.replace(path)
        failpoint("after_replace")
        sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise storage_error(path, error, len(data)) from error


def check_place(path: Path) -> None:
    """Raises StorageError where `write_bytes` could not write: to be told before hours of work and not after."""
    if (error := _obstacle(path.parent)) is not None:
        raise storage_error(path, error)


def _obstacle(folder: Path) -> OSError | None:
    """Why no file can be made in `folder`, nor it itself; None where nothing is known to be in the way."""
    standing = _standing(folder)
    if not standing.is_dir():
        return NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    if not os.access(standing, os.W_OK | os.X_OK):
        return PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    return None


def _standing(path: Path) -> Path:
    """`path`, or the nearest above it that is there."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def free_bytes(path: Path) -> int | None:
    """What is free where `path` is or would be made; None where the file system does not say, as /proc."""
    with contextlib.suppress(OSError):
        usage = shutil.disk_usage(_standing(path))
        return usage.free if usage.total else None
    return None


def as_size(count: float) -> str:
    """Bytes as MB of 10^6 or GB of 10^9."""
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def as_json(value: object) -> bytes:
    return (json.dumps(value, indent=1, allow_nan=False) + "\n").encode()


def storage_error(path: Path, error: OSError, needed: int = 0) -> StorageError:
    """The one sentence for an OSError met while writing `path`."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        with contextlib.suppress(OSError):
            free = shutil.disk_usage(path.parent).free
            return StorageError(
                f"{path}: disk full: needs {needed / 1e6:.1f} MB, {free / 1e6:.1f} MB free; free some, then --resume"
            )
    return StorageError(
        f"{path}: can't be written ({error.strerror or error}); check the folder, or choose another place"
    )


def sync_folder(folder: Path) -> None:
    """A rename is on disk once its folder is."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class RunDir:
    """Names inside one run's folder, and how each is read and written.

    writes: False on every process but the first, which then writes and locks nothing.
    """

    def __init__(self, path: Path, writes: bool = True) -> None:
        self.path = path
        self.writes = writes
        self.recipe = path / "recipe.yaml"
        self.log = path / "log.jsonl"
        self.status = path / "status.json"
        self.results = path / "results.json"
        self.encoder = path / "encoder.safetensors"
        self.bad_files = path / "bad_files.csv"
        self.error_log = path / "error.log"
        self.gallery = path / "gallery"
        self.report = path / "report.html"
        self.checkpoints = path / "checkpoints"
        self.manifest = path / "checkpoints" / "manifest.json"
        self.lock_file = path / "lock"

    def tower(self, name: str) -> Path:
        """The encoder of a tower beside the backbone."""
        return self.path / f"{name}_encoder.safetensors"

    def write(self, path: Path, data: bytes) -> None:
        """A file of this folder, whole or not at all."""
        if self.writes:
            write_bytes(path, data)

    # --- status ---

    def set_status(self, state: str, **fields: object) -> None:
        """running, finished, interrupted or failed; what a supervisor reads, since exit codes get lost."""
        self.write(self.status, as_json({"state": state, **fields}))

    def state(self) -> dict[str, Any]:
        """The last status; {} where there is none, or none that can be read."""
        with contextlib.suppress(OSError, ValueError):
            found = json.loads(self.status.read_text())
            if isinstance(found, dict):
                return found
        return {}

    def begun(self) -> bool:
        """Whether anything was measured or saved here; a run that failed before its first step may be written over."""
        return self.log.exists() or self.checkpoints.exists()

    # --- place and lock ---

    def check_writable(self) -> None:
        """Raises StorageError where a run could not write here; nothing is written to find out."""
        if (error := _obstacle(self.path)) is not None:
            raise self._unwritable(error)

    def _unwritable(self, error: OSError) -> StorageError:
        reason = error.strerror or error
        return StorageError(f"{self.path}: this run's folder can't be written ({reason}); {self.elsewhere()}")

    def elsewhere(self) -> str:
        """What to type where this place will not do."""
        if self.begun():
            return "copy it to another disk and --resume the copy"
        return "choose another place: --out ELSEWHERE"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder; LockedError names the process that already does. A lock left by a dead one is taken over.

        Raises StorageError where no file can be made in it: before torch is imported, and before any image is read.
        """
        if not self.writes:
            yield
            return
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=self.path).close()  # the lock of an earlier run opens where no new file can be
            handle = os.open(self.lock_file, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise self._unwritable(error) from error
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                holder = os.read(handle, 64).decode(errors="replace").strip() or "another process"
                raise LockedError(
                    f"{self.path} is in use by process {holder}; wait for it, or choose another --name"
                ) from error
            try:
                os.ftruncate(handle, 0)
                os.write(handle, f"{os.getpid()}\n".encode())
            except OSError as error:  # a disk without room for a line
                raise self._unwritable(error) from error
            yield
        finally:
            os.close(handle)  # the kernel lets go of the lock with the handle, also when we are killed

    # --- log ---

    def append_log(self, line: Mapping[str, object]) -> None:
        """One JSON line, whole before this returns."""
        data = (json.dumps(line, allow_nan=False) + "\n").encode()
        try:
            with self.log.open("ab") as file:
                failpoint("before_log_line")
                file.write(data[: len(data) // 2])
                file.flush()
                failpoint("mid_log_line")
                file.write(data[len(data) // 2 :])
                file.flush()
        except OSError as error:
            raise storage_error(self.log, error, len(data)) from error

    def settle_log(self) -> int:
        """The log's length once it is on disk: what a checkpoint records must not outlive what it counts."""
        if not self.log.exists():
            return 0
        with self.log.open("rb+") as file:
            os.fsync(file.fileno())
            return file.seek(0, os.SEEK_END)

    def cut_log(self, length: int) -> None:
        """Drop what was logged after a checkpoint, so that resuming neither loses nor doubles a line."""
        if not self.writes or not self.log.exists():
            return
        if self.log.stat().st_size < length:
            raise CheckpointError(
                f"{self.log} is {self.log.stat().st_size} bytes, its checkpoint was made at {length}; "
                "it was cut or replaced since: start anew with another --name"
            )
        with self.log.open("rb+") as file:
            file.truncate(length)
            os.fsync(file.fileno())

    def read_log(self) -> list[dict[str, Any]]:
        """Every whole line; a torn last line of a killed run is left out."""
        lines: list[dict[str, Any]] = []
        if self.log.exists():
            for raw in self.log.read_bytes().split(b"\n"):
                with contextlib.suppress(ValueError):
                    value = json.loads(raw)
                    if isinstance(value, dict):
                        lines.append(value)
        return lines

    def verdict_lines(self) -> list[dict[str, Any]]:
        """What the verdict is made from: lines with measurements and of skipped steps, without labelled numbers."""
        lines = [line for line in self.read_log() if "std_ratio" in line or line.get("skipped")]
        return [{name: value for name, value in line.items() if name != "knn_top1"} for line in lines]

    # --- checkpoints ---

    def save_checkpoint(self, step: int, data: bytes, keep: int) -> Path:
        """Write `data`, then the manifest that vouches for it, then remove all but the newest `keep`."""
        path = self.checkpoints / f"step{step:09d}.ckpt"
        write_bytes(path, data)
        # a newer one was damaged, or this run would not have fallen back to an older step: it must not outlive this one
        known = {
            name: digest
            for name, digest in self._manifest().items()
            if name < path.name and (self.checkpoints / name).exists()
        }
        known[path.name] = hashlib.sha256(data).hexdigest()
        kept = sorted(known)[-keep:]
        failpoint("before_manifest")
        write_bytes(self.manifest, as_json({"format": 1, "sha256": {name: known[name] for name in kept}}))
        failpoint("before_purge")
        for old in self.checkpoints.glob("step*.ckpt"):
            if old.name not in kept:
                old.unlink(missing_ok=True)
                failpoint("mid_purge")
        return path

    def newest_checkpoint(self, say: Callable[[str], None]) -> tuple[Path, bytes] | None:
        """The newest checkpoint whose bytes are what was written; damaged ones are named, None where none was made.

        Raises CheckpointError where there were checkpoints and all of them are damaged.
        """
        if not self.checkpoints.is_dir():
            return None
        if self.writes:
            for leftover in self.checkpoints.glob("*.tmp"):
                leftover.unlink(missing_ok=True)
        manifest = self._manifest()
        files = sorted(self.checkpoints.glob("step*.ckpt"), reverse=True)
        damaged: list[str] = []
        for path in files:
            if path.name not in manifest:
                continue  # killed between the file and its manifest: nobody vouches for it
            data = path.read_bytes()
            if hashlib.sha256(data).hexdigest() == manifest[path.name]:
                if damaged:
                    say(f"{damaged[0]} is damaged (checksum differs); continuing from {path.name}")
                return path, data
            damaged.append(path.name)
        if damaged:
            raise CheckpointError(
                f"{self.checkpoints}: {', '.join(damaged)} damaged (checksum differs) and no other checkpoint is left; "
                "start anew with another --name"
            )
        if self.manifest.exists() and manifest.keys():
            raise CheckpointError(f"{self.checkpoints}: {', '.join(sorted(manifest))} missing; start anew with --name")
        return None

    def _manifest(self) -> dict[str, str]:
        if not self.manifest.exists():
            return {}
        try:
            found = json.loads(self.manifest.read_text())
            return {str(name): str(digest) for name, digest in found["sha256"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(
                f"{self.manifest} can't be read, so no checkpoint can be trusted; start anew with another --name"
            ) from error

    def log_error(self, text: str) -> None:
        """The traceback behind a one-line message; failing to write it must not hide the message."""
        if not self.writes:
            return
        with contextlib.suppress(OSError), self.error_log.open("a") as file:
            file.write(time.strftime("%Y-%m-%d %H:%M:%S ") + text + "\n")
