"""The table, the chart and the README's section say what the results say."""

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from benchmarks import draw, run
from benchmarks.pairs import Goal, Pair, alone, paired

TWICE = paired("views", "views/s", [(20, 10), (22, 11), (30, 10)], "them <b>", goal=Goal(floor=1.5, target=4))
SLOW = alone("first step", "seconds", [6.0, 12.0, 9.0], goal=Goal(floor=10, target=5, at="most"))
BESIDE_OURSELVES = paired("16 times the data", "images/s", [(9, 10)], "ours", goal=Goal(floor=0.9, target=0.95))
PLAIN = alone("memory", "MB", [100.0])


def test_a_ratio_is_the_median_of_the_rounds_and_not_of_the_medians() -> None:
    pair = paired("x", "1/s", [(10, 1), (1, 1), (30, 10)], "them")
    assert (pair.ratio, pair.low, pair.high) == (3, 1, 10)
    assert pair.ratio != pair.ours / pair.rival  # type: ignore[operator]


@pytest.mark.parametrize(
    ("at", "value", "reached"),
    [("least", 9, "no"), ("least", 10, "floor"), ("least", 20, "target"), ("most", 21, "no"), ("most", 20, "floor")],
)
def test_what_is_reached_follows_the_direction(at: str, value: float, reached: str) -> None:
    goal = Goal(floor=10, target=20) if at == "least" else Goal(floor=20, target=10, at="most")
    assert goal.met(value) == reached


def test_the_table_says_what_was_not_reached() -> None:
    assert "| 2.00 | 2.00 to 3.00 | 1.5 / 4 | floor |" in draw.row(TWICE.as_dict())
    assert "| 9 |  | seconds |  | 6 to 12 | at most 10 / 5 | floor |" in draw.row(SLOW.as_dict())
    assert draw.row(PLAIN.as_dict()).endswith("|  |  |")
    assert "| no |" in draw.row(paired("x", "1/s", [(1, 1)], "them", goal=Goal(floor=2, target=3)).as_dict())


def test_page_chart_and_section_come_from_the_results_alone(tmp_path: Path) -> None:
    results = tmp_path / "benchmarks" / "results"
    results.mkdir(parents=True)
    (tmp_path / "README.md").write_text("before\n<!-- bench -->\nold\n<!-- /bench -->\nafter\n")
    for name, pairs in (("views", [TWICE, PLAIN]), ("start", [SLOW, BESIDE_OURSELVES])):
        (results / f"{name}.json").write_text(json.dumps([pair.as_dict() for pair in pairs]))
    draw.all_of(results)
    draw.all_of(results)  # again: nothing is added
    readme = (tmp_path / "README.md").read_text()
    assert readme.startswith("before\n<!-- bench -->\n")
    assert readme.endswith("<!-- /bench -->\nafter\n")
    assert "old" not in readme
    assert readme.count("| views |") == readme.count("| first step |") == 1
    assert "| memory |" not in readme  # it has no goal
    assert "| memory |" in (results / "README.md").read_text()
    chart = ET.fromstring((results / "speed.svg").read_text())
    text = "".join(chart.itertext())
    assert "them <b>" in text
    assert "2.00x" in text
    assert "first step" not in text  # it has no rival
    assert "16 times the data" not in text  # the chart is of others


def test_every_group_has_measures() -> None:
    pytest.importorskip("lightly", reason="the rivals are in .bench alone")
    assert all(run.measures(group) for group in run.GROUPS)


@pytest.mark.parametrize("name", ["view", "forwards.resnet"])
def test_a_wrong_name_says_what_is_allowed(name: str) -> None:
    with pytest.raises(SystemExit, match=r"allowed: .*(views|resnet18)"):
        run.main([name])


def test_results_in_the_repository_can_be_read() -> None:
    files = [path for path in run.RESULTS.glob("*.json") if path.stem not in draw.NOT_PAIRS]
    assert files
    for path in files:
        assert all(Pair(**pair).name for pair in json.loads(path.read_text())), path


def test_a_measure_takes_the_place_of_its_last_one_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "views.json"
    run.keep(path, [TWICE, PLAIN])
    run.keep(path, [paired("views", "views/s", [(5, 1)], "them <b>"), SLOW])
    found = [(pair["name"], pair["ours"]) for pair in json.loads(path.read_text())]
    assert found == [("views", 5), ("memory", 100.0), ("first step", 9.0)]
