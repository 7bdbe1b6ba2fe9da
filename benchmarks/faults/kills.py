"""kill -9 at random moments until a run is finished: not a bit of it may differ from one that never was killed.

python -m benchmarks.faults.kills OUT METHOD KILLS SEED [SETTING ...]
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

from benchmarks.faults.forks import attempt, ended, undisturbed
from benchmarks.faults.runs import differing


def killed(out: Path, method: str, kills: int, seed: int, settings: tuple[str, ...] = ()) -> list[str]:
    """What differs; nothing, as it should be. A run that is finished before its kill is set aside and begun again."""
    span, draw = undisturbed(out, method, settings), random.Random(seed)
    for landed in range(kills):
        child = attempt(out, "killed", method, settings)
        time.sleep(draw.uniform(0.05, 0.9) * span)
        os.kill(child, signal.SIGKILL)
        if ended(child) == 0:
            (out / "killed").rename(out / f"killed-{landed}")
    if code := ended(attempt(out, "killed", method, settings)):
        return [f"the last attempt ended with code {code}"]
    runs = [path for path in (out / "again", *out.glob("killed*")) if (path / "results.json").exists()]
    return [f"{path.name}: {part}" for path in runs for part in differing(path, out / "whole")]


if __name__ == "__main__":
    _, folder, name, count, number, *more = sys.argv
    if found := killed(Path(folder), name, int(count), int(number), tuple(more)):
        sys.exit("\n".join(found))
