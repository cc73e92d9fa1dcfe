"""The winner is the best finished distilled trial on validation, and the baseline is never it."""

from typing import Any

import pytest

from kdray.errors import TrainingError
from kdray.search.selection import baseline, winner


def row(best: float | None, state: str = "finished", is_baseline: bool = False, error: str | None = None,
        student: str | None = "s") -> dict[str, Any]:
    return {"best": best, "state": state, "baseline": is_baseline, "error": error, "student": student}


def test_the_winner_is_the_best_that_finished():
    rows = [row(0.99, is_baseline=True), row(0.8), row(0.95, "stopped"), row(0.9), row(None, "failed", error="x"),
            row(0.7)]
    assert winner(rows) is rows[3]
    assert baseline(rows) is rows[0]


def test_the_earlier_of_two_equals_wins():
    rows = [row(0.9, student="first"), row(0.9, student="second")]
    assert winner(rows)["student"] == "first"


@pytest.mark.parametrize("rows, cause", [
    ([row(0.9, is_baseline=True)], "all stopped early"),
    ([row(0.9, is_baseline=True), row(0.8, "stopped")], "all stopped early"),
    ([row(0.9, is_baseline=True), row(None, "failed", error="out of memory")], "out of memory"),
])
def test_without_a_finished_distilled_trial_there_is_no_winner(rows, cause):
    with pytest.raises(TrainingError, match=f"no distilled trial finished.*{cause}"):
        winner(rows)
