"""An encoder into a file others can use, checked on images before it is said to be there.

.safetensors and .onnx are read back in a process that can't import stopgrad (`alone`), a .pt2 program is run in memory
before it is written: reading one from a file can run code. Nothing stands under the wanted name until the check passed.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from stopgrad.contracts import CheckpointError, ConfigError, Preprocess
from stopgrad.encoder import alone
from stopgrad.encoder.entrance import entrance
from stopgrad.encoder.file import Encoder, encoder_bytes
from stopgrad.encoder.pixels import largest
from stopgrad.nn.backbones import SMALL_STEM, TIMM_ARGUMENTS
from stopgrad.rundir import check_place, write_bytes

FORMATS = (".safetensors", ".onnx", ".pt2")
TOLERANCE = 1e-5  # of a feature, or of the largest feature where that is above 1
IMAGES = 8  # in batches of 1, 2 and 5
SECONDS = 600


@dataclass(frozen=True, kw_only=True, slots=True)
class Exported:
    """A file that was written and checked."""

    path: Path
    size: int  # bytes
    sha256: str
    checked: str  # how, in a sentence
    difference: float | None  # the largest from torch, of a feature; None where tensors were compared
    lines: tuple[str, ...]  # Python that loads it


def check_format(path: Path) -> None:
    """Raises ConfigError where the name ends in nothing that can be written, StorageError where its folder can't be."""
    if path.suffix not in FORMATS:
        raise ConfigError(
            f"export: {path.name!r} must end in {', '.join(FORMATS[:-1])} or {FORMATS[-1]}; that says the format"
        )
    if path.is_dir():
        raise ConfigError(f"export: {path} is a folder; name a file, such as {path / 'encoder'}{FORMATS[0]}")
    check_place(path)


def export_encoder(encoder: Encoder, path: Path, samples: NDArray[np.float32], seen: str) -> Exported:
    """Write the encoder as the suffix of `path` says, once it computes the same as `encoder`.

    samples: [8, C, S, S] pixels, values as decoded, or what else goes in (`entrance.as_input`).  seen: what those
    samples are, in words.
    Raises ConfigError (a format without its library), CheckpointError (other features), StorageError.
    """
    check_format(path)
    assert len(samples) == IMAGES
    into = entrance(encoder)
    backbone = encoder.backbone.cpu().eval()
    batches = [torch.from_numpy(samples[a:b]) for a, b in alone.BATCHES]
    with torch.no_grad():
        expected = np.concatenate([into.model.eval()(batch).numpy() for batch in batches])  # [8, dim]
    plain = plain_timm(encoder)
    difference: float | None = None
    if path.suffix == ".pt2":
        from stopgrad.encoder.program import exported_program, program_bytes

        program = exported_program(encoder)
        run = program.module()
        with torch.no_grad():
            found = np.concatenate([run(batch).numpy() for batch in batches])
        data = program_bytes(encoder, program)
        difference, where = _compare(path, found, expected), "run in memory before it was written"
    else:
        data = _onnx(encoder) if path.suffix == ".onnx" else encoder_bytes(encoder)
        answer = _read_alone(path, data, samples, encoder, plain)
        if "features" in answer:
            reader = "onnxruntime" if path.suffix == ".onnx" else "plain timm"
            difference, where = _compare(path, answer["features"], expected), f"{reader}, a process without stopgrad"
        else:
            _compare_tensors(path, answer["checksums"], backbone)
            where = f"all {len(answer['checksums'])} tensors read by a process without stopgrad, equal by checksum"
    write_bytes(path, data)
    if difference is None:
        split = {"none": "", "lab": " in two halves"}.get(encoder.config.split, " for each sensor")
        own = f"{encoder.config.name}{split}"
        own += " with layers of a projector" if encoder.config.kept else ""
        checked = f"{where}; {own} is stopgrad's own architecture, so features need stopgrad or .onnx"
    else:
        checked = (
            f"{where}, on {IMAGES} {into.called} of {seen} in batches of 1, 2 and 5: "
            f"largest difference from torch {difference:.1e}, of features up to {np.abs(expected).max():.2g}"
        )
    return Exported(
        path=path,
        size=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        checked=checked,
        difference=difference,
        lines=loading_lines(encoder, path, plain),
    )


def plain_timm(encoder: Encoder) -> dict[str, Any] | None:
    """What `timm.create_model(NAME, ...)` and three lines need to be this backbone; None for our own architecture."""
    arguments = getattr(encoder.backbone, TIMM_ARGUMENTS, None)
    if arguments is None:
        return None
    return {"arguments": arguments, "small_stem": getattr(encoder.backbone, SMALL_STEM, 0)}


def loading_lines(encoder: Encoder, path: Path, plain: dict[str, Any] | None) -> tuple[str, ...]:
    """Python that loads the file and says what goes in."""
    name, preprocess, into = str(path), encoder.preprocess, entrance(encoder)
    if path.suffix == ".onnx":
        return (
            "import onnxruntime",
            f"session = onnxruntime.InferenceSession({name!r})",
            f'features = session.run(["features"], {{"{into.name}": {into.name}}})[0]',
            into.comment,
        )
    if path.suffix == ".pt2":
        return (
            "import torch",
            f"encoder = torch.export.load({name!r}).module()  # only files you trust: loading one can run code",
            f"features = encoder({into.name})",
            into.comment,
        )
    shape = "[B, " + ", ".join(map(str, into.shape)) + "]"
    ours = (
        "import stopgrad",
        f"encoder = stopgrad.load({name!r})  # {into.called} {shape}{', normalised' if into.name == 'pixels' else ''}",
        f"result = stopgrad.embed({name!r}, 'folder/of/{into.called}')  # result.features [N, {encoder.dim}]",
    )
    if plain is None or not isinstance(preprocess, Preprocess):
        return ours
    cut = into.comment.rpartition("; ")[2]
    given = "".join(f", {key}={value!r}" for key, value in plain["arguments"].items())
    small = plain["small_stem"]
    stem = (
        f"model.conv1 = torch.nn.Conv2d({preprocess.channels}, {small}, 3, 1, 1, bias=False)  # the small-image stem",
        "model.maxpool = torch.nn.Identity()",
    )
    means = f"mean {_short(preprocess.mean)}, std {_short(preprocess.std)}"
    return (
        *ours,
        "# or without stopgrad:",
        "import timm, torch, safetensors.torch" if small else "import timm, safetensors.torch",
        f"model = timm.create_model({encoder.config.name!r}{given})",
        *(stem if small else ()),
        f"model.load_state_dict(safetensors.torch.load_file({name!r}))",
        f"# then model.eval(); images {shape}: {cut}, / {largest(encoder)}, {means}",
    )


def _short(values: tuple[float, ...]) -> str:
    return "(" + ", ".join(f"{value:.4g}" for value in values[:4]) + (", ...)" if len(values) > 4 else ")")


def _onnx(encoder: Encoder) -> bytes:
    try:
        import onnxruntime  # noqa: F401  # the other process needs it, and tells less well what is missing
    except ImportError as error:
        raise ConfigError("export to .onnx is checked in onnxruntime: pip install 'stopgrad[onnx]'") from error
    from stopgrad.encoder.graph import onnx_bytes

    return onnx_bytes(encoder)


def _read_alone(
    path: Path, data: bytes, samples: NDArray[np.float32], encoder: Encoder, plain: dict[str, Any] | None
) -> dict[str, NDArray[Any]]:
    """What a process without stopgrad finds in the file."""
    with tempfile.TemporaryDirectory(prefix="stopgrad-export-") as folder:
        model, images, answer = (Path(folder) / name for name in (f"model{path.suffix}", "images.npy", "answer.npz"))
        model.write_bytes(data)
        np.save(images, samples, allow_pickle=False)
        request = {
            "model": str(model),
            "images": str(images),
            "answer": str(answer),
            "input": entrance(encoder).name,
            "largest": largest(encoder),
            "arguments": None,
            "small_stem": 0,
            **(plain or {}),
        }
        (Path(folder) / "request.json").write_text(json.dumps(request))
        command = [sys.executable, "-I", str(Path(alone.__file__)), str(Path(folder) / "request.json")]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False, cwd=folder)
        except subprocess.TimeoutExpired as error:
            raise CheckpointError(f"{path}: reading it back took over {SECONDS} s; nothing was written") from error
        if done.returncode:
            said = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise CheckpointError(f"{path}: can't be read without stopgrad ({said}); nothing was written")
        with np.load(answer, allow_pickle=False) as found:
            return {name: found[name] for name in found.files}


def _compare(path: Path, found: NDArray[Any], expected: NDArray[Any]) -> float:
    difference = float(np.abs(found - expected).max()) if found.shape == expected.shape else float("inf")
    allowed = TOLERANCE * max(1.0, float(np.abs(expected).max()))
    if not difference <= allowed:
        raise CheckpointError(
            f"{path}: its features differ from torch's by {difference:.1e} (allowed: {allowed:.1e}); nothing was "
            "written: try another format"
        )
    return difference


def _compare_tensors(path: Path, found: NDArray[Any], backbone: torch.nn.Module) -> None:
    state = backbone.state_dict()
    expected = [
        f"{name} {list(value.shape)} {hashlib.sha256(value.contiguous().numpy().tobytes()).hexdigest()}"
        for name, value in sorted(state.items())
    ]
    if found.tolist() != expected:
        raise CheckpointError(f"{path}: other tensors were read back than were written; nothing was kept, try again")
