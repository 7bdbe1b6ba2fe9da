"""Files of strangers that would run code if they could: each is refused in a line, and none of them has run.

Every payload is a real one: it is proved to go off where it is loaded as its format's own reader loads it.
"""

import hashlib
import io
import json
import os
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from stopgrad import cli
from stopgrad.recipe.text import dump
from stopgrad.recipes import recipe_named
from stopgrad.rundir import RunDir, as_json


class Gadget:
    """Pickled, it is a call of os.system."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch '{self.marker}'",)


def torch_zip(marker: Path) -> bytes:
    out = io.BytesIO()
    torch.save({"state_dict": Gadget(marker)}, out)
    return out.getvalue()


def torch_legacy(marker: Path) -> bytes:
    out = io.BytesIO()
    torch.save({"state_dict": Gadget(marker)}, out, _use_new_zipfile_serialization=False)
    return out.getvalue()


def bare_pickle(marker: Path) -> bytes:
    return pickle.dumps(Gadget(marker))


def numpy_object(marker: Path) -> bytes:
    out = io.BytesIO()
    np.save(out, np.array([Gadget(marker)], dtype=object), allow_pickle=True)
    return out.getvalue()


def numpy_archive(marker: Path) -> bytes:
    out = io.BytesIO()
    np.savez(out, x=np.array([Gadget(marker)], dtype=object))
    return out.getvalue()


def yaml_tag(marker: Path) -> bytes:
    return f"method: !!python/object/apply:os.system [\"touch '{marker}'\"]\n".encode()


def huge_header(marker: Path) -> bytes:
    return struct.pack("<Q", 1 << 30) + b"{"


GOES_OFF: dict[str, tuple[Callable[[Path], bytes], Callable[[bytes], object]]] = {
    "torch's zip": (torch_zip, lambda data: torch.load(io.BytesIO(data), weights_only=False)),
    "torch's older format": (torch_legacy, lambda data: torch.load(io.BytesIO(data), weights_only=False)),
    "a pickle": (bare_pickle, pickle.loads),
    "an array of objects": (numpy_object, lambda data: np.load(io.BytesIO(data), allow_pickle=True)),
    "an archive of arrays": (numpy_archive, lambda data: np.load(io.BytesIO(data), allow_pickle=True)["x"]),
    "a YAML tag": (yaml_tag, lambda data: yaml.load(data, yaml.UnsafeLoader)),
}
PAYLOADS = {**{name: make for name, (make, _) in GOES_OFF.items()}, "a header of a gigabyte": huge_header}


@pytest.mark.parametrize("name", GOES_OFF)
def test_the_payload_is_a_real_one(name: str, tmp_path: Path) -> None:
    make, read = GOES_OFF[name]
    read(make(tmp_path / "marker"))
    assert (tmp_path / "marker").exists()


def refused(words: list[str], marker: Path, capsys: pytest.CaptureFixture[str]) -> str:
    code = cli.run(words, debug=False)
    out, err = capsys.readouterr()
    assert code in (2, 65, 66), (code, err)
    assert not marker.exists(), "it ran"
    *progress, said = err.strip().splitlines()
    assert said.startswith("stopgrad: "), err
    assert not [line for line in progress if line.startswith("stopgrad: ")], err
    assert "Traceback" not in out + err
    assert "defect" not in err
    return err


@pytest.mark.parametrize("payload", PAYLOADS)
@pytest.mark.parametrize(
    "suffix", [".safetensors", ".pt", ".pth", ".pt2", ".npz", ".npy", ".ckpt", ".onnx", ".joblib", ".yaml", ".bin"]
)
def test_as_an_encoder_as_weights_to_begin_from_and_as_a_recipe(
    payload: str, suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    marker, file = tmp_path / "marker", tmp_path / f"gift{suffix}"
    file.write_bytes(PAYLOADS[payload](marker))
    for words in (
        ["eval", str(file), "--data", "scenes"],
        ["export", str(file), "-o", str(tmp_path / "out.onnx")],
        ["embed", str(file), "--data", "scenes", "-o", str(tmp_path / "out.npz")],
        ["train", "simsiam", "--init", str(file), "--out", str(tmp_path / "runs")],
        ["train", str(file), "--out", str(tmp_path / "runs")],
    ):
        refused(words, marker, capsys)


@pytest.mark.parametrize("payload", PAYLOADS)
def test_as_images_of_a_folder_and_members_of_archives(
    payload: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Named as images, arrays and tables that are read; what is no image is a bad file, and the rest is looked at."""
    marker, data = tmp_path / "marker", PAYLOADS[payload](tmp_path / "marker")
    folder = tmp_path / "images"
    folder.mkdir()
    for suffix in (".png", ".jpg", ".npy", ".tif", ".wav"):
        (folder / f"gift{suffix}").write_bytes(data)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("gift.npy", data)
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.add(folder / "gift.npy", "gift.npy")
    for source in (folder, tmp_path / "a.zip", tmp_path / "a.tar"):
        refused(["train", "simsiam", "--data", str(source), "--out", str(tmp_path / "runs")], marker, capsys)
    for suffix in (".csv", ".jsonl", ".txt"):
        table = tmp_path / f"table{suffix}"
        table.write_bytes(data)
        refused(["train", "simclr", "--data", str(table), "--out", str(tmp_path / "runs")], marker, capsys)


@pytest.mark.parametrize("payload", ["torch's zip", "torch's older format", "a pickle"])
def test_as_the_checkpoint_of_a_run_that_a_stranger_hands_on(
    payload: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a manifest that vouches for it: whoever made the folder made that as well."""
    marker, run = tmp_path / "marker", RunDir(tmp_path / "gift")
    data = PAYLOADS[payload](marker)
    run.checkpoints.mkdir(parents=True)
    settings = {"limit": 80}
    recipe = recipe_named("simsiam/scenes")
    text = dump(recipe).replace("limit: 0", f"limit: {settings['limit']}").replace("batch_size: 64", "batch_size: 16")
    run.recipe.write_text(text)
    name = "step000000005.ckpt"
    (run.checkpoints / name).write_bytes(data)
    run.manifest.write_bytes(as_json({"format": 1, "sha256": {name: hashlib.sha256(data).hexdigest()}}))
    run.status.write_text(json.dumps({"state": "interrupted"}))
    assert "refused, not a checkpoint of tensors" in refused(["train", str(run.path), "--resume"], marker, capsys)


def test_as_metadata_of_a_folder_of_distributed_checkpoints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    marker, folder = tmp_path / "marker", tmp_path / "dcp"
    folder.mkdir()
    (folder / ".metadata").write_bytes(bare_pickle(marker))
    for words in (["eval", str(folder), "--data", "scenes"], ["train", str(folder), "--resume"]):
        refused(words, marker, capsys)


def test_names_that_speak_to_the_terminal_are_written_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A class and a file that would clear the screen and set its title, were they printed as they are."""
    evil = "\x1b[2J\x1b]0;owned\x07"
    for kind in (evil, "b"):
        (tmp_path / "images" / kind).mkdir(parents=True)
        for i in range(6):
            pixels = np.random.default_rng(i).integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / kind / f"{i}{evil}.png")
        (tmp_path / "images" / kind / f"bad{evil}.png").write_bytes(b"no image")
    cli.run(["check", str(tmp_path / "images"), "--no-time"], debug=False)
    out, err = capsys.readouterr()
    assert "\x1b" not in out + err
    assert "\x07" not in out + err
    assert "owned" in out + err
