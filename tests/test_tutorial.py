"""docs/tutorial.md as its reader types it, on small synthetic scenes: commands in order, files and headings it shows.

Only what is listed here stands in for something: a folder, a command or an option that is not is a failure, so the
tutorial can't drift away from the program unnoticed.
"""

import itertools
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stopgrad import cli
from stopgrad.assemble import minutes, rehearse
from stopgrad.data import scenes

TUTORIAL = Path(__file__).resolve().parents[1] / "docs" / "tutorial.md"

SMALL = ("--set", "backbone.width=8", "loop.batch_size=16", "eval={linear: none, random_seeds: 1}", "loop.threads=1")
# Command: what is added to it, and what both the tutorial and the run must print.
KNOWN: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "check": (SMALL, ("Images", "Sizes", "Duplicates", "Suggested", "Time, measured here", "A run can start.")),
    "views": ((), ("images, each beside its views of three epochs",)),
    "train": (SMALL, ("Verdict:", "this run", "knn_top1", "retrieval_at_1", "recipe.yaml, report.html")),
    "report": ((), ("open it in a browser",)),
    "export": ((), ("sha256", "Checked:", "To load it:")),
    "embed": ((), ("features each, float32", "Next: numpy.load")),
    "neighbours": ((), ("similarity  split", "the query and its")),
    "duplicates": ((), ("cosine 0.99 or above",)),
}
INSTEAD = {"--minutes": "0.01"}  # options whose value is another here
QUERIES = ("neu/test/scratches/scratches_241.jpg", "imagenette/test/n03394916/ILSVRC2012_val_00015542.JPEG")
IMAGES = 15  # training images of a class; a third as many test images


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TUTORIAL.read_text(), flags=re.MULTILINE | re.DOTALL)


def commands() -> Iterator[tuple[list[str], str]]:
    """(the words after `stopgrad`, what the tutorial shows below them), in order."""
    for block in blocks("console"):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            line, _, shown = part.replace("\\\n", " ").partition("\n")
            words = shlex.split(line)
            assert words[0] == "stopgrad", f"the tutorial types {line!r}, which this test does not know"
            yield words[1:], shown


def draw(folder: Path, classes: tuple[str, ...], side: int, suffix: str, gray: bool) -> None:
    """Scenes as class folders in train/ and test/: synthetic stand-ins for the images of the tutorial."""
    for split, seed, count in (("train", scenes.TRAIN_SEED, IMAGES), ("test", scenes.TEST_SEED, IMAGES // 3)):
        rgb, _ = scenes.render_rgb(seed, np.arange(count * len(classes)), side)
        for number, pixels in enumerate(rgb):
            name = classes[number % len(classes)]
            path = folder / split / name / f"{name}_{number}.{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).convert("L" if gray else "RGB").save(path)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with the two data sets of the tutorial, in small."""
    root = tmp_path_factory.mktemp("tutorial")
    steel = ("crazing", "inclusion", "patches", "pitted_surface", "rolled-in_scale", "scratches")
    draw(root / "neu", steel, 48, "jpg", gray=True)
    draw(root / "imagenette", ("n01440764", "n02102040", "n03394916", "n03888257"), 48, "JPEG", gray=False)
    for query in QUERIES:
        folder = root / Path(query).parent
        next(folder.iterdir()).rename(root / query)
    return root


def typed(words: list[str]) -> list[str]:
    """The command as it is run here."""
    known = KNOWN.get(words[0])
    assert known is not None, f"the tutorial types `stopgrad {words[0]}`, which this test does not know"
    changed = [INSTEAD.get(before, word) for before, word in zip(["", *words], words)]
    return [*changed, *known[0]]


def test_the_tutorial_runs_and_leaves_what_it_names(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    pytest.importorskip("jinja2")
    monkeypatch.chdir(place)
    monkeypatch.setattr(minutes, "MEASURED_SECONDS", 0.1)
    monkeypatch.setattr(rehearse, "REHEARSED", (20, 60))
    ran = set()
    for words, shown in commands():
        command = typed(words)
        code = cli.run(command, debug=False)
        printed = capsys.readouterr()
        assert code == 0, f"stopgrad {shlex.join(words)}: {printed.err[-2000:]}"
        for phrase in KNOWN[words[0]][1]:
            assert phrase in printed.out + printed.err, f"stopgrad {words[0]} does not say {phrase!r}"
            assert not shown.strip() or phrase in shown, f"the tutorial's `stopgrad {words[0]}` lacks {phrase!r}"
        outputs = [after for word, after in itertools.pairwise(words) if word in ("-o", "--output")]
        for file in outputs:
            assert Path(file).stat().st_size > 0
        ran.add(words[0])
    assert {"check", "views", "train", "report", "export", "embed", "neighbours"} <= ran
    for name in re.findall(r"`(runs/[^`\s]+|[\w-]+\.(?:png|html|csv|npz|onnx))`", TUTORIAL.read_text()):
        assert Path(name).exists(), f"the tutorial names {name}, which its commands do not leave"
    for block in blocks("python"):
        exec(compile(block, str(TUTORIAL), "exec"), {})
