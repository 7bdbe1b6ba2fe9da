"""Finished runs side by side: numbers, settings that differ, runs that are no such thing, and hostile ones."""

import json
from pathlib import Path

import pytest

from stopgrad.contracts import ConfigError, MissingInputError
from stopgrad.study.measured import differing, read_finished
from stopgrad.study.side_by_side import side_by_side
from tests.reporting import made
from tests.study.fakes import finished


def test_two_runs_stand_beside_each_other_with_what_differs(tmp_path: Path) -> None:
    crops = "views.crops.1.blur=0.25"
    a = finished(tmp_path / "a", "seed=1", "optim.base_lr=0.5", knn=41.0)
    b = finished(tmp_path / "b", "seed=2", "eval.k=[5]", crops, knn=39.0, verdict="partly_collapsed")
    found = side_by_side([a, b])
    assert found.scores.rows[0][:4] == ["a", "healthy", "41.0", "25.0"]
    assert found.scores.rows[1][:4] == ["b", "partly_collapsed", "39.0", "25.0"]
    assert found.differences == {
        "seed": [1, 2],
        "views.crops.1.blur": [0.0, 0.25],
        "optim.base_lr": [0.5, 0.96],
        "eval.k": [[20, 200], [5]],
    }
    text = found.text(200)
    assert "optim.base_lr       0.5        0.96\n" in text
    assert "scored on different images" not in text
    assert r"| eval.k | \[20, 200\] | \[5\] |" in found.markdown()
    assert json.loads(found.json())["runs"]["b"]["values"]["knn_top1"] == 39.0


def test_a_setting_that_one_run_does_not_have_is_a_gap(tmp_path: Path) -> None:
    one = finished(tmp_path / "a")
    more = "{size: 16}"
    crop = "{}"
    many = finished(tmp_path / "b", f"views.crops=[{crop}, {crop}, {more}]")
    (_, first), (_, second) = read_finished(one), read_finished(many)
    assert differing([first, second])["views.crops.2.size"] == [None, 16]
    assert "| views.crops.2.size | – | 16 |" in side_by_side([one, many]).markdown()


def test_runs_of_the_same_name_are_told_apart_and_one_run_is_not_two(tmp_path: Path) -> None:
    a, b = finished(tmp_path / "x" / "run"), finished(tmp_path / "y" / "run")
    assert list(side_by_side([a, b]).runs) == [str(a), str(b)]
    with pytest.raises(ConfigError, match="1 run named; name two or more"):
        side_by_side([a, tmp_path / "y" / ".." / "x" / "run"])


def test_scores_on_different_images_are_not_set_beside_each_other_in_silence(tmp_path: Path) -> None:
    a, b = finished(tmp_path / "a"), finished(tmp_path / "b")
    other = (b / "results.json").read_text().replace("0123456789ab", "ba9876543210")
    (b / "results.json").write_text(other)
    assert side_by_side([a, b]).sentences[0].startswith("These runs were scored on different images")
    assert side_by_side([a, b]).text(100).count("Protocol: ") == 2


@pytest.mark.parametrize("state", ["running", "interrupted", "failed"])
def test_a_run_that_is_not_finished_says_how_to_finish_it(state: str, tmp_path: Path) -> None:
    half = made.run(tmp_path / "half", state=state, pictures=False)
    with pytest.raises(MissingInputError, match=rf"not finished \({state}\); .*`stopgrad train .*half --resume`"):
        side_by_side([finished(tmp_path / "a"), half])


def test_what_is_no_run_is_told(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingInputError, match=r"empty: no run there \(no recipe.yaml\)"):
        side_by_side([finished(tmp_path / "a"), tmp_path / "empty"])
    torn = finished(tmp_path / "torn")
    (torn / "results.json").write_text("[")
    with pytest.raises(MissingInputError, match=r"no results that can be read; delete .*status\.json and type"):
        side_by_side([finished(tmp_path / "b"), torn])


def test_what_a_stranger_wrote_into_a_run_is_harmless(tmp_path: Path) -> None:
    evil = finished(tmp_path / "<b>|`x`\nrow")
    rows = [
        {**made.row("verdict", "fine | \x1b[2J\n| forged"), "protocol": "p"},
        {**made.row("knn_top1", 10**400), "protocol": "data <script>; \u202e"},
        made.row("retrieval_at_1", 1.0),
        made.row("linear_top1", 7.0),
    ]
    text = json.dumps(rows).replace("7.0", "1e999")
    (evil / "results.json").write_text(text)
    (evil / "log.jsonl").write_text('{"step": 1, "images_per_second": 1e-320}\n{"step": "x", "images_per_second": 1}\n')
    found = side_by_side([evil, finished(tmp_path / "b")])
    run = next(iter(found.runs.values()))
    assert "knn_top1" not in run.values  # no number that a table can hold
    assert "linear_top1" not in run.values
    assert "minutes" not in run.values
    page, shown = found.markdown(), found.text(120)
    assert "\x1b" not in page + shown
    assert "\u202e" not in page + shown
    assert "<b>" not in page.replace(r"\<b\>", "")
    lines = [line.replace(r"\|", "") for line in page.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines[:4]}) == 1
    assert not any(line.startswith("| forged") for line in page.splitlines() + shown.splitlines())
    json.loads(found.json())
