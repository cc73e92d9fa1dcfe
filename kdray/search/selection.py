"""A table of trials becomes the baseline and the winner, by validation metric alone."""

from typing import Any

from kdray.errors import TrainingError


def baseline(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The trial without distillation."""
    return next(row for row in rows if row["baseline"])


def winner(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The finished distilled trial with the largest validation metric, the earlier one where two are equal.

    Raises TrainingError where no distilled trial finished.
    """
    finished = [row for row in rows if row["state"] == "finished" and not row["baseline"]]
    if not finished:
        causes = [row["error"] for row in rows if row["error"]]
        raise TrainingError(f"no distilled trial finished; first cause: {causes[0] if causes else 'all stopped early'}")
    return max(finished, key=lambda row: row["best"])
