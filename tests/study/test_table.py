"""Cells, what is escaped, and how a table is laid out."""

import pytest

from stopgrad.study.measured import Run, mean_and_std
from stopgrad.study.table import as_markdown, as_text, escaped, numbers, table


def run(seed: int, knn: float, **values: float) -> Run:
    return Run(state="finished", seed=seed, verdict="healthy", values={"knn_top1": knn, **values})


def test_std_is_that_of_a_sample_and_one_value_has_none() -> None:
    assert mean_and_std([1.0, 2.0, 6.0]) == {"mean": 3.0, "std": pytest.approx(7**0.5), "n": 3}
    assert mean_and_std([4.0]) == {"mean": 4.0, "std": None, "n": 1}


def test_a_row_is_the_mean_over_seeds_with_their_spread() -> None:
    rows = {
        "a": [run(0, 40.0, baseline_random_knn_top1=20.0, peak_memory_mb=1000.4), run(1, 44.0, peak_memory_mb=1200.4)],
        "b": [run(0, 30.0)],
    }
    found = table(rows, "method")
    assert found.head == ["method", "verdict", "kNN %", "random %", "peak MB"]
    assert found.rows == [["a", "2 healthy", "42.0 ± 2.8", "20.0", "1,100"], ["b", "healthy", "30.0", "–", "–"]]
    assert numbers(rows["a"])["knn_top1"]["n"] == 2


def test_without_labels_the_second_view_stands_beside_its_baselines() -> None:
    one = Run(state="finished", verdict="healthy", values={"retrieval_at_1": 80.0, "baseline_pixels_retrieval_at_1": 9})
    assert table({"a": [one]}, "run").head == ["run", "verdict", "second view %", "pixels %"]


def test_a_failed_run_says_why_once_with_its_seeds() -> None:
    failed = [Run(state="failed", seed=seed, why="loss is not finite") for seed in (1, 2)]
    found = table({"a": [run(0, 40.0), *failed, Run(seed=3)], "b": [Run(state="failed", seed=0, why="x" * 999)]}, "m")
    assert found.rows[0][:3] == ["a", "1 healthy, 2 failed, 1 to come", "40.0"]
    assert found.rows[1][:3] == ["b", "failed", "–"]
    assert found.notes[0] == ("a", "seeds 1, 2 failed: loss is not finite")
    assert len(found.notes[1][1]) == 300
    assert "- a: seeds 1, 2 failed: loss is not finite\n" in as_markdown(found)
    assert "\na: seeds 1, 2 failed: loss is not finite\n" in as_text(found, 200)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a|b", r"a\|b"),
        ("a\nb\r\n c", "a b c"),
        ("<img src=x onerror=alert(1)>", r"\<img src=x onerror=alert(1)\>"),
        ("[here](javascript:x)", r"\[here\](javascript:x)"),
        ("`rm` \\| &amp; *x*", r"\`rm\` \\\| \&amp; \*x\*"),
        ("moco_v2 _x_", r"moco_v2 \_x\_"),
        ("a\x1b[2Jb\u202ec", r"a\\x1b\[2Jb\\u202ec"),
    ],
)
def test_names_of_others_are_text_in_markdown(text: str, shown: str) -> None:
    assert escaped(text) == shown


def test_a_name_of_others_can_not_leave_its_cell() -> None:
    evil = "x | 99.9 |\n| forged | 100"
    found = as_markdown(table({evil: [run(0, 40.0)], "b": [Run(state="failed", why=evil)]}, "run"))
    rows = [line for line in found.splitlines() if line.startswith("|")]
    assert len(rows) == 4  # head, ruler and the two
    assert {line.replace(r"\|", "").count("|") for line in rows} == {4}
    assert "forged" not in {line.split(" ")[1] for line in rows}


def test_text_has_no_control_characters_and_fits_the_terminal() -> None:
    wide = {f"{name}_top1_or_so": 1.0 for name in "abc"}
    rows = {"evil\x1b[2J\nname": [run(0, 40.0, linear_top1=50.0, std_ratio=1.0, effective_rank=9.0, **wide)]}
    text = as_text(table(rows, "run"), 50)
    assert "\x1b" not in text
    assert r"evil\x1b[2J name" in text
    blocks = text.split("\n\n")
    assert len(blocks) == 2
    assert all(len(line) <= 50 for line in text.splitlines())
    assert all(block.startswith("run ") for block in blocks)
    assert [len(block.splitlines()) for block in blocks] == [2, 2]
