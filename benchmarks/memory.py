"""Memory: of a run on a large packed store, and of knowing a million names. Each in a process of its own.

A run's own memory is RssAnon of /proc/PID/status, read every 10 ms while it goes on: pages of the mapped store are
RssFile, which the kernel takes back whenever it wants them. Where a process measures itself, it is VmHWM, its peak of
both (ru_maxrss won't do: a child inherits the size of the process that started it). MB are 10^6 bytes.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.pairs import Goal, Pair, alone, paired

POLL = 0.01  # seconds between two looks at a running process
PATIENCE = 600.0  # seconds a child gets to its last step
SIDE = 32  # pixels
CLASSES = 10
FIELDS = ("VmHWM", "VmRSS", "RssAnon", "RssFile")


def megabytes(pid: int | str = "self") -> dict[str, float]:
    """What /proc says of a process, MB; all 0 once it is gone."""
    found = dict.fromkeys(FIELDS, 0.0)
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return found
    for line in lines:
        name, _, value = line.partition(":")
        if name in found:
            found[name] = int(value.split()[0]) * 1024 / 1e6
    return found


def plain_environment(cache: Path) -> dict[str, str]:
    """Ours with another cache and no GPU; compiled modules are kept, as an installed package has them."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "STOPGRAD_CACHE": str(cache), "CUDA_VISIBLE_DEVICES": ""}


def call(*words: object, cache: Path = Path("unused")) -> list[Any]:
    """This module as a child; the JSON it prints last."""
    command = [sys.executable, "-m", "benchmarks.memory", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, env=plain_environment(cache))
    if done.returncode:
        raise SystemExit(f"bench: {' '.join(command)} failed: {done.stderr.strip().splitlines()[-1:]}")
    return list(json.loads(done.stdout.splitlines()[-1]))


def needs(folder: Path, size: float) -> None:
    """Ends the measure before it fills the disk."""
    free = shutil.disk_usage(folder).free
    if free < 1.2 * size:
        raise SystemExit(
            f"bench: {folder} has {free / 1e9:.1f} GB free, {1.2 * size / 1e9:.1f} are needed; free some, or choose "
            "another: TMPDIR=/folder/with/space"
        )


# --- a run on a packed store ------------------------------------------------------------------------------------------


@dataclass
class Repeated:
    """A Listing of images that are in the store already and are never read."""

    images: int
    left_out: Any = None  # the store remembers it

    def __post_init__(self) -> None:
        self.label, self.place = b"repeated", "nowhere"
        self.stamp: tuple[bytes, ...] = (b"repeated", b"%d" % self.images)

    def count(self) -> int | None:
        return self.images

    def members(self, wanted: Iterable[int] | None = None, most: int = -1) -> Iterator[Any]:
        raise AssertionError("the store should have been there")

    def layout(self, kept: NDArray[np.int64]) -> Any:
        raise AssertionError("the store should have been there")

    def share_read(self) -> float:
        return 1.0

    def close(self) -> None:
        pass


def build(images: int) -> None:
    """The store of `Repeated(images)`: a thousand random images over and over, each under a name of its own."""
    from stopgrad.data import from_listing, pack
    from stopgrad.data.decode import DecodeSettings
    from stopgrad.data.listing import LeftOut
    from stopgrad.data.sources import DataConfig

    random = np.random.default_rng(0).integers(0, 256, (1000, SIDE, SIDE, 3), np.uint8)

    def fill(writer: pack.PackWriter) -> None:
        for i in range(images):
            writer.add(random[i % len(random)], i, f"images/{i % CLASSES}/{i:08d}.png")
        rows = np.arange(images)
        left = {"bad": [], "ignored": 0, "found": {}, "notes": []}
        assert left.keys() == {*LeftOut.__dataclass_fields__}
        facts = {
            "bad": [],
            "classes": [str(i) for i in range(CLASSES)],
            "rule": from_listing.BY_CONTENT,
            "notes": [],
            "left out": left,
        }
        writer.finish(rows % CLASSES, (rows % 5 == 0).astype(np.uint8), facts)

    config = DataConfig()
    settings = DecodeSettings(
        config.channels, config.max_side, config.min_side, config.max_megapixels, depth=config.depth
    )
    pack.open_or_build(from_listing._key(Repeated(images), from_listing.image_reader(settings)), config.channels, fill)
    print(json.dumps([megabytes()["VmHWM"]]))


def train(images: int, out: Path) -> None:
    """`stopgrad train simsiam/scenes` on that store, until it is stopped."""
    from stopgrad import cli
    from stopgrad.data import sources
    from stopgrad.data.listing import Listing

    def repeated(source: str) -> Listing:
        return Repeated(images)

    sources.list_source = repeated
    words = ["train", "simsiam/scenes", "--data", "repeated", "--out", str(out), "--name", "run"]
    sys.exit(cli.run([*words, "--image-size", str(SIDE), "--set", "loop.log_every_steps=1"], debug=True))


@dataclass(frozen=True)
class Seen:
    """The peaks of one run, MB."""

    anonymous: float
    mapped: float
    whole: float  # of both together


def peaks(images: int, steps: int, folder: Path) -> Seen:
    """A run on `images` of the store in `folder`, from its start until `steps` steps are done."""
    from stopgrad.rundir import RunDir

    out = folder / f"runs-{images}"
    command = [sys.executable, "-m", "benchmarks.memory", "train", str(images), str(out)]
    said = folder / "said.txt"
    with said.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env=plain_environment(folder))
    run, end = RunDir(out / "run"), time.monotonic() + PATIENCE
    most, looks = dict.fromkeys(FIELDS, 0.0), 0
    try:
        while process.poll() is None and time.monotonic() < end:
            now = megabytes(process.pid)
            most = {name: max(most[name], now[name]) for name in FIELDS}
            looks += 1
            if looks % 20 == 0 and any(line["step"] >= steps for line in run.read_log()):
                break
            time.sleep(POLL)
        else:
            last = said.read_text(errors="replace").strip().splitlines()[-1:]
            raise SystemExit(f"bench: the run on {images:,} images did not get to step {steps}: {last}")
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()
    return Seen(most["RssAnon"], most["RssFile"], most["VmHWM"])


def packed(images: int = 2_000_000, few: int = 20_000, steps: int = 20) -> list[Pair]:
    """Peak memory of a run of `simsiam/scenes` on `images` and on `few` images of 32 px."""
    found: dict[int, Seen] = {}
    with tempfile.TemporaryDirectory(prefix="stopgrad-bench-") as name:
        folder = Path(name)
        needs(folder, SIDE * SIDE * 3 * images)
        for count in (few, images):
            call("build", count, cache=folder)
            found[count] = peaks(count, steps, folder)
    more = (found[images].anonymous - found[few].anonymous) * 1e6 / (images - few)
    pairs = []
    for count in (images, few):
        seen = found[count]
        note = (
            f"`simsiam/scenes`, to step {steps}: peak of RssAnon; beside it pages of the store and of libraries, "
            f"RssFile {seen.mapped:.0f}; both together at most {seen.whole:.0f}"
        )
        if count == images:
            note += f"; {more:.0f} bytes for each image more"
        pairs.append(alone(f"a run on {count:,} packed images of {SIDE} px: memory", "MB", [seen.anonymous], note=note))
    return pairs


# --- names ------------------------------------------------------------------------------------------------------------


def make_files(folder: Path, count: int, a_class: int = 1000) -> Path:
    """`count` empty files, a thousand in a folder; and a list of them, whose path is returned."""
    paths = folder / "list.txt"
    with paths.open("w") as file:
        for i in range(count):
            inside = folder / "images" / f"class_{i // a_class:04d}"
            if i % a_class == 0:
                inside.mkdir(parents=True)
            os.close(os.open(f"{inside}/image_{i:08d}.jpg", os.O_CREAT | os.O_WRONLY))
            file.write(f"images/{inside.name}/image_{i:08d}.jpg\n")
    return paths


def index(source: str) -> None:
    """All that is known of a source before its store is looked for. Prints seconds, peak MB, MB before it."""
    from stopgrad.data import folder, layout, path_list  # noqa: F401  (what listing imports is not its memory)
    from stopgrad.data.sources import list_source

    before = megabytes()["VmHWM"]
    begin = time.perf_counter()
    listing = list_source(source)
    count = listing.count() or 0
    found = listing.layout(np.arange(count))
    seconds = time.perf_counter() - begin
    print(json.dumps([count, len(found.classes), seconds, megabytes()["VmHWM"], before]))


def index_lightly(source: str) -> None:
    """lightly's dataset of a folder, which lists it. Prints the same."""
    from lightly.data import LightlyDataset

    before = megabytes()["VmHWM"]
    begin = time.perf_counter()
    dataset = LightlyDataset(source)
    seconds = time.perf_counter() - begin
    print(json.dumps([len(dataset), 0, seconds, megabytes()["VmHWM"], before]))


def names(count: int = 1_000_000, rounds: int = 3) -> list[Pair]:
    """Seconds and peak memory until a folder, or a list of paths, is known: names, sizes, times, classes."""
    with tempfile.TemporaryDirectory(prefix="stopgrad-bench-") as name:
        paths = make_files(Path(name), count)
        folder = Path(name) / "images"
        work: Mapping[str, tuple[str, Path]] = {
            "folder": ("index", folder),
            "list": ("index", paths),
            "lightly": ("index-lightly", folder),
        }
        found: dict[str, list[list[Any]]] = {what: [] for what in work}
        for command, source in work.values():  # the kernel then knows the folders
            call(command, source)
        for _ in range(rounds):
            for what, (command, source) in work.items():
                found[what].append(call(command, source))
    for what, runs in found.items():
        if runs[0][0] != count:
            raise SystemExit(f"bench: {what} knows {runs[0][0]:,} of {count:,} images; nothing is compared")
    speed = {what: [count / run[2] for run in runs] for what, runs in found.items()}
    note = (
        "empty files, 1,000 in a folder, the kernel's caches warm; ours also reads sizes, times and "
        f"{found['folder'][0][1]:,} classes"
    )
    pairs = [
        paired(
            f"index of a folder of {count:,} names",
            "names/s",
            list(zip(speed["folder"], speed["lightly"], strict=True)),
            "LightlyDataset",
            note=note,
        ),
        alone(f"index of a list of {count:,} paths", "names/s", speed["list"]),
    ]
    for what in ("folder", "list"):
        least = found[what][0][4]
        rival = f"; LightlyDataset of the same: {found['lightly'][0][3]:.0f}" if what == "folder" else ""
        pairs.append(
            alone(
                f"index of a {what} of {count:,} names: memory",
                "MB",
                [run[3] for run in found[what]],
                goal=Goal(floor=1000, target=500, at="most"),
                note=f"peak of the whole process, {least:.0f} of it before the index{rival}",
            )
        )
    return pairs


MEASURES: dict[str, Callable[[], list[Pair]]] = {"packed": packed, "names": names}

if __name__ == "__main__":
    what, *rest = sys.argv[1:]
    if what == "build":
        build(int(rest[0]))
    elif what == "train":
        train(int(rest[0]), Path(rest[1]))
    else:
        {"index": index, "index-lightly": index_lightly}[what](rest[0])
