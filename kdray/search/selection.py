"""A table of trials becomes settings to compare, pairs of students, and of these a winner and its baseline.

By validation metric and what a student may cost; the test split has no part in it. Knows nothing about Ray.
"""

from typing import Any

from kdray.errors import TrainingError
from kdray.search.describe import BASELINE

Rows = list[dict[str, Any]]
"""Rows of the table of trials, as `run_sweep` gives them."""
LIMITS = {"max_ms": ("milliseconds", 1.0), "max_mb": ("bytes", 1e6)}
"""Setting of the search: what of a student it limits, and the setting's unit in that."""
_SIDES = {"winner": "distilled", "baseline": "baseline"}
"""What is compared, and the role of its trials."""


def best(rows: Rows, role: str) -> dict[str, Any]:
    """One student's finished trial of a role with the largest validation metric, the earlier one of two equals.

    `role` is `baseline` or `distilled`. Raises TrainingError where none finished.
    """
    own = _of_role(rows, role)
    finished = [row for row in own if row["state"] == "finished"]
    if not finished:
        causes = [row["error"] for row in own if row["error"]]
        raise TrainingError(f"no {role} trial finished; first cause: {causes[0] if causes else 'all stopped early'}")
    return max(finished, key=lambda row: row["best"])


def of_student(rows: Rows, name: str) -> Rows:
    """The trials of one student."""
    return [row for row in rows if row["name"] == name]


def finalists(rows: Rows) -> dict[str, dict[str, Any] | None]:
    """One student's trials whose settings winner and baseline are to have; None where the baseline had no trials.

    Raises TrainingError where none finished.
    """
    return {side: best(rows, role) if _of_role(rows, role) or side == "winner" else None
            for side, role in _SIDES.items()}


def paired_points(settings: dict[str, dict[str, Any] | None], first: int, seeds: int) -> dict[str, Rows]:
    """Points by role of the pairs to train: the settings of the `finalists` on `seeds` seeds behind `first`."""
    points = {side: row["point"] if row else BASELINE for side, row in settings.items()}
    return {role: [{**points[side], "seed": first + more} for more in range(1, seeds + 1)]
            for side, role in _SIDES.items()}


def pairs_of(rows: Rows) -> Rows:
    """By seed: keys of the winner and the baseline, and their validation metrics, `best` and `plain`.

    `rows` are the trials of the `paired_points`; a seed on which either failed has no pair. Raises TrainingError where
    there is none.
    """
    both = list(zip(*(_of_role(rows, role) for role in _SIDES.values()), strict=True))
    found = [{"seed": won["point"]["seed"], "winner": won["student"], "baseline": plain["student"],
              "best": won["best"], "plain": plain["best"]}
             for won, plain in both if won["state"] == plain["state"] == "finished"]
    if not found:
        cause = next(row["error"] for row in rows if row["error"])
        raise TrainingError(f"the best trial and its baseline finished on no seed that the sweep has not seen; first "
                            f"cause: {cause}. Try more (search.seeds), or a lower training.lr")
    return found


def kept(pairs: Rows) -> dict[str, str]:
    """Keys of winner and baseline: of each, the best on validation, so that both have as many tries."""
    return {side: max(pairs, key=lambda pair: pair[metric])[side]
            for side, metric in (("winner", "best"), ("baseline", "plain"))}


def mark(row: dict[str, Any], rows: Rows, winner: str, baseline: str) -> str:
    """What a trial of the table `rows` is: `winner`, `baseline` where there are several to choose from, else nothing.

    `winner` and `baseline` are the keys of the chosen students.
    """
    if not row["baseline"]:
        return "winner" if row["student"] == winner else ""
    several = sum(other["baseline"] for other in rows) > 1
    return "baseline" if several and row["student"] == baseline else ""


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


def _of_role(rows: Rows, role: str) -> Rows:
    return [row for row in rows if row["baseline"] == (role == "baseline")]


def _excess(student: dict[str, Any], limits: dict[str, float]) -> dict[str, float]:
    """Share of a limit by which the student is above it, for each that it is above."""
    found = {}
    for limit, most in limits.items():
        field, unit = LIMITS[limit]
        if student[field] > most * unit:
            found[limit] = student[field] / (most * unit) - 1
    return found
