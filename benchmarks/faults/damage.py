"""A checkpoint that is torn, cut or changed by a bit: noticed, named, and the one before it is used."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

from benchmarks.faults.forks import attempt, ended, undisturbed
from benchmarks.faults.runs import differing
from stopgrad.contracts import StopgradError
from stopgrad.rundir import RunDir


def flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ (1 << at % 8)]) + data[at + 1 :]


def cut(data: bytes, at: int) -> bytes:
    return data[:at]


def zero_tail(data: bytes, at: int) -> bytes:
    return data[:at] + b"\0" * (len(data) - at)


WAYS: dict[str, Callable[[bytes, int], bytes]] = {"a bit flipped": flip, "cut off": cut, "zeros at its end": zero_tail}
RESUMED = 5  # of the damaged runs, how many are gone on with to their end, each way


def damaged(out: Path, method: str, count: int, seed: int) -> list[str]:
    """What went wrong with `count` damages of the newest checkpoint or the manifest, in every region of both."""
    undisturbed(out, method)
    whole, draw, wrong = RunDir(out / "whole"), random.Random(seed), []
    newest, before = sorted(whole.checkpoints.glob("*.ckpt"), reverse=True)[:2]
    for turn in range(count):
        way, target = list(WAYS)[turn % 3], (newest, whole.manifest)[turn % 4 == 3]
        data = target.read_bytes()
        region = draw.uniform(turn / count, (turn + 1) / count)
        broken = WAYS[way](data, int(region * len(data)))
        if broken == data:  # zeros where zeros were
            continue
        copy = RunDir(out / f"damaged-{turn}")
        shutil.copytree(whole.path, copy.path)
        (copy.checkpoints / target.name).write_bytes(broken)
        wrong += [f"{target.name}, {way}: {what}" for what in judged(copy, target, newest, before)]
        if turn < 3 * RESUMED and not wrong:
            copy.status.unlink()
            for name in ("results.json", "encoder.safetensors"):
                (copy.path / name).unlink()
            code = ended(attempt(out, copy.path.name, method))
            found = differing(copy.path, whole.path) if code == 0 else [f"ended with code {code}"]
            if (
                target == newest or code != 65
            ):  # a manifest that can't be read vouches for nothing: refused, and said so
                wrong += [f"{target.name}, {way}, gone on with: {what}" for what in found]
        shutil.rmtree(copy.path)
    return wrong


def judged(copy: RunDir, target: Path, newest: Path, before: Path) -> list[str]:
    said: list[str] = []
    try:
        found = copy.newest_checkpoint(said.append)
    except StopgradError as error:  # of the manifest: nothing is vouched for any more
        return [] if target != newest and str(copy.checkpoints) in str(error) else [f"refused: {error}"]
    if target == newest:
        wrong = [] if found and found[0].name == before.name else ["the one before was not used"]
        return wrong + ([] if any(newest.name in line for line in said) else ["it was not named"])
    return [] if found is None or found[1] in (newest.read_bytes(), before.read_bytes()) else ["other bytes were used"]
