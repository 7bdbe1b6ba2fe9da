"""Text charts against grids small enough to write down."""

from stopgrad.reporting.terminal import chart, curves


def test_a_rising_line_goes_from_the_bottom_left_to_the_top_right() -> None:
    drawn = chart("loss", {"healthy": [(0, 0.0), (1, 1.0), (2, 2.0)]}, width=3, height=3)
    assert drawn.splitlines() == [
        "loss   (h = healthy)",
        "    2.00 |  h",
        "         | h",
        "    0.00 |h",
        "    step 0 2",
    ]


def test_two_lines_are_told_apart_and_a_star_stands_where_they_meet() -> None:
    drawn = chart("x", {"healthy": [(0, 0), (1, 1)], "collapsed": [(0, 0), (1, 0)]}, width=2, height=2).splitlines()
    assert drawn[1].endswith("| h")
    assert drawn[2].endswith("|*c")


def test_points_in_one_column_are_averaged() -> None:
    drawn = chart("x", {"a": [(0, 0), (10, 0), (11, 2), (12, 1)], "b": [(0, 2), (100, 2)]}, width=5, height=3)
    assert "|*" not in drawn
    assert drawn.splitlines()[2].endswith("|a")  # mean of 0, 0, 2, 1 is 0.75: the middle row


def test_a_flat_line_and_an_empty_log_are_drawn_too() -> None:
    assert chart("x", {"a": [(0, 1.0), (1, 1.0)]}, width=2, height=2).splitlines()[2].endswith("|aa")
    assert chart("x", {"a": []}) == "x: nothing was logged"


def test_a_curve_leaves_out_lines_without_the_field_and_values_that_are_no_numbers() -> None:
    log: list[dict[str, object]] = [
        {"step": 1, "loss": 0.5},
        {"step": 2},
        {"step": 3, "loss": None},
        {"step": 4, "loss": 1},
    ]
    assert curves(log, "loss") == [(1.0, 0.5), (4.0, 1.0)]
