"""The best finished trial of each role on validation is chosen, and a baseline is never the winner."""

from typing import Any

import pytest

from kdray.errors import TrainingError
from kdray.search.selection import best, choose, mark


def row(value: float | None, state: str = "finished", is_baseline: bool = False, error: str | None = None,
        student: str | None = "s") -> dict[str, Any]:
    return {"best": value, "state": state, "baseline": is_baseline, "error": error, "student": student}


def test_winner_and_baseline_are_the_best_that_finished():
    rows = [row(0.97, is_baseline=True), row(0.99, is_baseline=True), row(0.8), row(0.95, "stopped"), row(0.9),
            row(None, "failed", error="x"), row(0.7)]
    assert best(rows, "distilled") is rows[4]
    assert best(rows, "baseline") is rows[1]


def test_the_earlier_of_two_equals_wins():
    rows = [row(0.9, student="first"), row(0.9, student="second")]
    assert best(rows, "distilled")["student"] == "first"


@pytest.mark.parametrize("rows, cause", [
    ([row(0.9, is_baseline=True)], "all stopped early"),
    ([row(0.9, is_baseline=True), row(0.8, "stopped")], "all stopped early"),
    ([row(0.9, is_baseline=True), row(None, "failed", error="out of memory")], "out of memory"),
])
def test_without_a_finished_distilled_trial_there_is_no_winner(rows, cause):
    with pytest.raises(TrainingError, match=f"no distilled trial finished.*{cause}"):
        best(rows, "distilled")


def test_without_a_finished_baseline_there_is_nothing_to_compare_with():
    with pytest.raises(TrainingError, match=r"no baseline trial finished.*not a number"):
        best([row(0.9), row(None, "failed", is_baseline=True, error="not a number")], "baseline")


FAMILY = {"small": {"best": 0.8, "milliseconds": 2.0, "bytes": 10e6},
          "large": {"best": 0.9, "milliseconds": 6.0, "bytes": 40e6}}


@pytest.mark.parametrize("limits, name", [
    ({}, "large"), ({"max_ms": 6.0}, "large"), ({"max_ms": 5.9}, "small"), ({"max_mb": 40.0}, "large"),
    ({"max_mb": 39.9}, "small"), ({"max_ms": 10.0, "max_mb": 20.0}, "small")])
def test_the_best_within_the_limits_is_chosen(limits, name):
    found, constraint = choose(FAMILY, limits)
    assert found == name
    assert constraint is None if not limits else constraint["met"] and constraint["excess"] == {}


def test_where_none_is_within_it_is_the_nearest_and_by_how_much_is_said():
    name, constraint = choose(FAMILY, {"max_ms": 1.0, "max_mb": 8.0})
    assert name == "small" and constraint["met"] is False
    assert constraint["excess"] == pytest.approx({"max_ms": 1.0, "max_mb": 0.25})
    assert (constraint["max_ms"], constraint["max_mb"]) == (1.0, 8.0)


def test_the_winner_is_marked_and_its_baseline_where_there_are_several():
    rows = [row(0.8, is_baseline=True, student="p"), row(0.7, is_baseline=True, student="q"), row(0.9, student="w"),
            row(0.8, student="p"), row(None, "failed", is_baseline=True, student=None)]
    assert [mark(one, rows, "w", "p") for one in rows] == ["baseline", "", "winner", "", ""]
    assert [mark(one, rows, "w", None) for one in rows] == ["", "", "winner", "", ""]
    assert [mark(one, rows[1:3], "w", "q") for one in rows[1:3]] == ["", "winner"]
