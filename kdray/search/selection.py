"""A table of trials becomes a winner and its baseline, by validation metric and what a student may cost.

Knows nothing about Ray. The test split has no part in it.
"""

from typing import Any

from kdray.errors import TrainingError

LIMITS = {"max_ms": ("milliseconds", 1.0), "max_mb": ("bytes", 1e6)}
"""Setting of the search: what of a student it limits, and the setting's unit in that."""


def best(rows: list[dict[str, Any]], role: str) -> dict[str, Any]:
    """One student's finished trial of a role with the largest validation metric, the earlier one of two equals.

    `role` is `baseline` or `distilled`. Raises TrainingError where none finished.
    """
    own = [row for row in rows if row["baseline"] == (role == "baseline")]
    finished = [row for row in own if row["state"] == "finished"]
    if not finished:
        causes = [row["error"] for row in own if row["error"]]
        raise TrainingError(f"no {role} trial finished; first cause: {causes[0] if causes else 'all stopped early'}")
    return max(finished, key=lambda row: row["best"])


def mark(row: dict[str, Any], rows: list[dict[str, Any]], winner: str, baseline: str | None) -> str:
    """What a trial of the table `rows` is: `winner`, `baseline` where there are several to choose from, else nothing.

    `winner` and `baseline` are the keys of the chosen students.
    """
    if not row["baseline"]:
        return "winner" if row["student"] == winner else ""
    several = sum(other["baseline"] for other in rows) > 1
    return "baseline" if several and baseline and row["student"] == baseline else ""


def choose(students: dict[str, dict[str, Any]], limits: dict[str, float]) -> tuple[str, dict[str, Any] | None]:
    """Name of the best student within `limits`, and what is to be said of them; None where there are none.

    A student has `best`, and `milliseconds` and `bytes` where there are limits. Where none is within, it is the one
    that exceeds them by the smallest share, and `excess` says by how much.
    """
    excess = {name: _excess(student, limits) for name, student in students.items()}
    within = [name for name in students if not excess[name]]
    if within:
        name = max(within, key=lambda name: students[name]["best"])
    else:
        name = min(students, key=lambda name: max(excess[name].values()))
    return name, {**dict.fromkeys(LIMITS), **limits, "met": bool(within), "excess": excess[name]} if limits else None


def _excess(student: dict[str, Any], limits: dict[str, float]) -> dict[str, float]:
    """Share of a limit by which the student is above it, for each that it is above."""
    found = {}
    for limit, most in limits.items():
        field, unit = LIMITS[limit]
        if student[field] > most * unit:
            found[limit] = student[field] / (most * unit) - 1
    return found
