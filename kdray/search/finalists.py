"""A sweep's best trial becomes a winner and its baseline, both trained anew on seeds that the sweep has not seen.

The best of many trials is in part the luckiest, and a baseline of one try is not. Trained anew, both have as many
seeds, none of which anything was chosen by: what is left between them is what the teacher gives.

Knows nothing about the test split.
"""

import logging
from dataclasses import replace
from statistics import mean
from typing import Any

from kdray.config import SearchConfig
from kdray.evaluation.answers import HERE, Where
from kdray.export.footprint import footprint
from kdray.search.selection import LIMITS, Rows, best, choose, finalists, kept, of_student, paired_points, pairs_of
from kdray.search.sweep import Sweep, discard, run_sweep
from kdray.storage import Store, content_key

KIND = "selections"
logger = logging.getLogger("kdray")


def selection_key(sweep: str, search: SearchConfig, max_drop: float, threads: int) -> str:
    """Content key of a selection; what a student is served with matters where there are limits."""
    limits = {name: getattr(search, name) for name in LIMITS}
    served = {"threads": threads, "max_drop": max_drop} if any(limits.values()) else {}
    return content_key({"layout": 2, "sweep": sweep, "seeds": search.seeds, **limits, **served})


def select(store: Store, key: str, sweep: Sweep, made: dict[str, Any], search: SearchConfig, max_drop: float,
           threads: int, where: Where = HERE) -> dict[str, Any]:
    """Publishes winner and baseline of the sweep whose manifest is `made`.

    `students` has each student's best trial, its validation metric and, where there are several or a limit, what it
    costs to serve on `threads` threads, with an int8 that loses `max_drop` at most and is checked `where` others are;
    `trials` are those of the pairs, and `pairs` the students of each seed. Raises TrainingError where no seed has both.
    """
    limits = {name: value for name in LIMITS if (value := getattr(search, name)) is not None}
    measured = bool(limits) or len(sweep.jobs) > 1
    found = {name: best(of_student(made["trials"], name), "distilled") for name in sweep.jobs}
    students = {name: {"trial": row["student"], "best": row["best"], **(
        footprint(store, store.manifest("students", row["student"]) or {}, max_drop, threads, where)
        if measured else {})} for name, row in found.items()}
    name, constraint = choose(students, limits)
    rows = _train(sweep, name, finalists(of_student(made["trials"], name)), search.seeds)
    pairs = pairs_of(rows)
    _warn(pairs, constraint)
    with store.staging(KIND) as folder:
        return store.publish(KIND, key, folder, {
            "parents": {"sweep": made["key"]}, "students": students, "constraint": constraint, "name": name,
            "trials": rows, "seeds": search.seeds, "pairs": pairs, **kept(pairs)})


def _train(sweep: Sweep, name: str, settings: dict[str, dict[str, Any] | None], seeds: int) -> Rows:
    """Rows of the winner's and the baseline's settings on each seed."""
    job = sweep.jobs[name]
    again = replace(sweep, jobs={name: job}, points={name: paired_points(settings, job.settings["seed"], seeds)})
    logger.info("sweep: the best trial and its baseline anew, on %d seed%s that the sweep has not seen", seeds,
                "s" * (seeds > 1))
    rows = run_sweep(again)
    discard(again)
    return rows


def _warn(pairs: list[dict[str, Any]], constraint: dict[str, Any] | None) -> None:
    best, plain = (mean(pair[name] for pair in pairs) for name in ("best", "plain"))
    if plain > best:
        logger.warning("the baseline (%.4f) is better on validation than the distilled student (%.4f)", plain, best)
    if constraint and not constraint["met"]:
        logger.warning("no student is within the limits of the search; the nearest is above %s", " and ".join(
            f"search.{name} = {constraint[name]:g} by {share:.0%}" for name, share in constraint["excess"].items()))
