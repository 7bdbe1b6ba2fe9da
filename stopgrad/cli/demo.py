"""`make demo`: a healthy SimSiam beside the same without stop-gradient, on the embedded data set.

At most 7 minutes on two CPU cores: both trainings are given minutes, which become epochs from a measured step time.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stopgrad.assemble import api
from stopgrad.assemble.report import report
from stopgrad.cli.show import print_diagnosis, print_scores
from stopgrad.contracts import ConfigError, StopgradError
from stopgrad.reporting.terminal import chart, curves
from stopgrad.rundir import RunDir

RUNS = Path("runs")
HEALTHY, COLLAPSED, PAGE = RUNS / "demo", RUNS / "demo-collapsed", RUNS / "demo-report.html"
MINUTES, COLLAPSED_MINUTES = 4.0, 1.0
INTERRUPTED = 130
# Without stop-gradient nothing is claimed about scores, so its evaluation is the short one.
# A minute is short, and the fall is what one wants to see: it is watched more often than a run would be.
WITHOUT = ("method.target=shared", "eval.linear=none", "eval.random_seeds=1", "watch.every_steps=50")


def main() -> int:
    """Train both, then print them side by side. Returns the exit code."""
    try:
        for path in (HEALTHY, COLLAPSED):
            replace(path)
        print("1/2  SimSiam as the paper has it, on scenes-v1 (synthetic images, embedded)", flush=True)
        healthy = api.train("simsiam/scenes", out=RUNS, name=HEALTHY.name, minutes=MINUTES)
        print("\n2/2  the same without stop-gradient: gradient flows into both views", flush=True)
        options = api.Options(settings=WITHOUT)
        collapsed = api.train(
            "simsiam/scenes", out=RUNS, name=COLLAPSED.name, minutes=COLLAPSED_MINUTES, options=options
        )
    except StopgradError as error:
        print(f"demo: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("\ndemo: interrupted; `make demo` starts again", file=sys.stderr)
        return INTERRUPTED
    print("\n" + side_by_side(RunDir(HEALTHY).read_log(), RunDir(COLLAPSED).read_log()))
    for title, finished in ((f"{HEALTHY}", healthy), (f"{COLLAPSED} (no stop-gradient)", collapsed)):
        print(f"\n{title}")
        print_diagnosis(finished.diagnosis)
    print("\nWhat the healthy run's features are worth (scenes-v1 is synthetic):")
    print_scores(healthy.results)
    try:
        page = f"\n  {report([HEALTHY, COLLAPSED], PAGE)}    both runs side by side; open it in a browser"
    except StopgradError as error:  # two good runs are not lost by a page
        page = f"\n  no report: {error}"
    print(
        f"\nWhere to look next:{page}"
        f"\n  {HEALTHY}/log.jsonl, results.json, encoder.safetensors    what a run leaves"
        f"\n  .venv/bin/stopgrad diagnose {COLLAPSED}       the verdict again, from the log"
        f"\n  .venv/bin/stopgrad train simsiam --data DIR --minutes 30   your own images"
        f"\n  .venv/bin/stopgrad methods simsiam                         every part is a setting: take one away"
    )
    return 0


def side_by_side(healthy: Sequence[Mapping[str, Any]], collapsed: Sequence[Mapping[str, Any]]) -> str:
    """The two curves of loss and of std_ratio."""
    charts = []
    for field in ("loss", "std_ratio"):
        charts.append(chart(field, {"healthy": curves(healthy, field), "collapsed": curves(collapsed, field)}))
    return "\n\n".join(charts)


def replace(path: Path) -> None:
    """Remove the demo's own earlier run; anything else under that name is somebody's and is left alone."""
    if not path.exists():
        return
    if not (path / "recipe.yaml").exists():
        raise ConfigError(f"{path} is there and holds no run; move it away, the demo writes its own folder there")
    with RunDir(path).locked():  # not while another demo writes it
        shutil.rmtree(path)


if __name__ == "__main__":
    sys.exit(main())
