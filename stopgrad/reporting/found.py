"""What is there of a run: everything a report shows, read from its folder. Nothing that is missing is an error."""

from __future__ import annotations

import base64
import contextlib
import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stopgrad.contracts import Result
from stopgrad.diagnose import Diagnosis
from stopgrad.rundir import RunDir

GALLERY_FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """RUN/gallery as stopgrad/eval/gallery.py writes it."""

    index: Mapping[str, Any]
    thumbs: str  # data: URL of a JPEG
    views: str
    views_size: tuple[int, int]  # width, height; pixels
    thumbs_size: tuple[int, int]
    sounds: Mapping[int, str] = field(default_factory=dict)  # position -> data: URL of a WAV; of sounds, of some

    @property
    def size(self) -> int:
        """Bytes it adds to a page."""
        return len(self.thumbs) + len(self.views) + sum(map(len, self.sounds.values()))


@dataclass(frozen=True, kw_only=True)
class Found:
    """One run. Fields are empty where the run left nothing: it may have failed at any point."""

    name: str  # escaped, told apart from the other runs of the report
    path: str
    diagnosis: Diagnosis
    state: str  # running, finished, interrupted, failed, or "" where nothing says
    message: str  # why it stopped
    recipe: Mapping[str, Any]  # nested plain settings
    recipe_text: str
    log: Sequence[Mapping[str, Any]]
    results: Sequence[Result]
    gallery: Gallery | None
    bad_files: int = 0
    facts: Mapping[str, str] = field(default_factory=dict)
    one: str = "an image"  # what a sample is called, and several
    many: str = "images"

    @property
    def steps(self) -> int:
        return next((line["step"] for line in reversed(self.log) if type(line.get("step")) is int), 0)

    @property
    def synthetic(self) -> bool:
        """Whether the images were rendered and are no photographs of anything."""
        said = any("(synthetic)" in row.protocol for row in self.results)
        return said or bool(self.gallery and self.gallery.index.get("synthetic")) or self.source.startswith("scenes")

    @property
    def source(self) -> str:
        """The data's name: of a folder its last part."""
        source = printable(str(self.recipe.get("data", {}).get("source", "")))
        return Path(source).name or source

    @property
    def finished(self) -> bool:
        return self.state == "finished" or bool(self.results)


def read_run(
    run: RunDir, name: str, diagnosis: Diagnosis, recipe: Mapping[str, Any], words: tuple[str, str] | None = None
) -> Found:
    """All that a folder holds. The caller has read the recipe and judged the log, which stand on higher floors.

    words: what a sample is called and what several are; None: an image, images.
    """
    status = run.state()
    gallery = read_gallery(run.gallery)
    one, many = words or ("an image", "images")
    return Found(
        name=printable(name),
        path=printable(str(run.path)),
        diagnosis=diagnosis,
        state=str(status.get("state", "")),
        message=printable(str(status.get("message", ""))),
        recipe=recipe,
        recipe_text=printable(run.recipe.read_text(errors="replace"), keep="\n") if run.recipe.exists() else "",
        log=run.read_log(),
        results=read_results(run.results),
        gallery=gallery,
        bad_files=count_rows(run.bad_files),
        facts={str(k): printable(str(v)) for k, v in gallery.index["facts"].items()} if gallery else {},
        one=one,
        many=many,
    )


def read_results(path: Path) -> list[Result]:
    """The rows of results.json; none where there is no such file, or none that can be read."""
    with contextlib.suppress(OSError, ValueError):
        return results_in(path.read_text())
    return []


def results_in(text: str) -> list[Result]:
    """Raises ValueError where the text is no results.json."""
    try:
        rows = [Result(**row) for row in json.loads(text, parse_constant=_no_number)]
    except (TypeError, RecursionError) as error:
        raise ValueError(f"no rows: {error}") from error
    for row in rows:
        texts = all(isinstance(part, str) for part in (row.name, row.split, row.protocol))
        if not texts or type(row.n) is not int or not isinstance(row.value, float | int | str | None):
            raise ValueError(f"no row: {row.as_dict()!r:.200}")
    return rows


def _no_number(word: str) -> float:
    raise ValueError(f"{word} is no number")


def read_gallery(folder: Path) -> Gallery | None:
    """The gallery, or None where it is absent, cut short or of another format."""
    try:
        index = json.loads((folder / "gallery.json").read_text(), parse_constant=_no_number)
        if index["format"] != GALLERY_FORMAT or not isinstance(index.get("facts"), dict):
            return None
        # not by the names in the index: in a stranger's run they could be any file of this machine
        thumbs, views = ((folder / name).read_bytes() for name in ("thumbs.jpg", "views.jpg"))
        return Gallery(
            index=index,
            thumbs=as_url(thumbs),
            views=as_url(views),
            views_size=jpeg_size(views),
            thumbs_size=jpeg_size(thumbs),
            sounds={at: as_url(sound, "audio/wav") for at, sound in read_sounds(folder, index.get("sounds", []))},
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def read_sounds(folder: Path, positions: Sequence[object]) -> Iterator[tuple[int, bytes]]:
    """(position, WAV file) of those of a gallery that are there and are files of sound."""
    for at in positions:
        if type(at) is not int or at < 0:
            raise ValueError(f"{at!r} is no position of a sound")
        with contextlib.suppress(OSError):
            file = (folder / "sounds" / f"{at}.wav").read_bytes()
            if file.startswith(b"RIFF"):
                yield at, file


def as_url(file: bytes, kind: str = "image/jpeg") -> str:
    return f"data:{kind};base64," + base64.b64encode(file).decode()


def jpeg_size(data: bytes) -> tuple[int, int]:
    """(width, height) from the frame header. Raises ValueError where there is none."""
    at = 2
    while at + 9 < len(data) and data[at] == 0xFF:
        if 0xC0 <= data[at + 1] <= 0xC3:
            return int.from_bytes(data[at + 7 : at + 9], "big"), int.from_bytes(data[at + 5 : at + 7], "big")
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    raise ValueError("no JPEG")


def count_rows(path: Path) -> int:
    """Rows of a CSV file below its header."""
    with contextlib.suppress(OSError, csv.Error, UnicodeDecodeError), path.open(newline="") as file:
        return max(0, sum(1 for _ in csv.reader(file)) - 1)
    return 0


def printable(text: str, keep: str = "") -> str:
    """Control and direction characters written out, but for `keep`: a name must not turn the text around it."""
    return "".join(c if c.isprintable() or c in keep else repr(c)[1:-1] for c in text)
