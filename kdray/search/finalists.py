"""Each student's best trial and best baseline, on several seeds, become the winner of a sweep.

Knows nothing about the test split.
"""

import logging
from dataclasses import replace
from statistics import mean
from typing import Any

from kdray.config import SearchConfig
from kdray.export.footprint import footprint
from kdray.search.selection import LIMITS, best, choose
from kdray.search.sweep import Sweep, discard, run_sweep
from kdray.storage import Store, content_key

KIND = "selections"
logger = logging.getLogger("kdray")


def selection_key(sweep: str, search: SearchConfig, max_drop: float, threads: int) -> str:
    """Content key of a selection; what a student is served with matters where there are limits."""
    limits = {name: getattr(search, name) for name in LIMITS}
    served = {"threads": threads, "max_drop": max_drop} if any(limits.values()) else {}
    return content_key({"sweep": sweep, "seeds": search.seeds, **limits, **served})


def select(store: Store, key: str, sweep: Sweep, made: dict[str, Any], search: SearchConfig, max_drop: float,
           threads: int) -> dict[str, Any]:
    """Publishes the winner of the sweep whose manifest is `made`, trained in pairs with its baseline on all seeds.

    `students` has each student's keys, its mean validation metric and, where there are several or a limit, what it
    costs to serve on `threads` threads, `max_drop` being what int8 may lose; `pairs` the winner's and its baseline's
    keys by seed.
    """
    finalists = {name: _finalists(name, made["trials"]) for name in sweep.jobs}
    pairs = _pairs(sweep, finalists, search.seeds)
    limits = {name: value for name in LIMITS if (value := getattr(search, name)) is not None}
    students = {name: {**pairs[name][0], "best": mean(pair["best"] for pair in pairs[name])} for name in pairs}
    if limits or len(students) > 1:
        for student in students.values():
            student |= footprint(store, store.manifest("students", student["winner"]) or {}, max_drop, threads)
    name, constraint = choose(students, limits)
    _warn(pairs[name], constraint)
    with store.staging(KIND) as folder:
        return store.publish(KIND, key, folder, {
            "parents": {"sweep": made["key"]}, "students": students, "constraint": constraint, "name": name,
            "pairs": pairs[name], "winner": pairs[name][0]["winner"], "baseline": pairs[name][0]["baseline"]})


def _finalists(name: str, rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    own = [row for row in rows if row["name"] == name]
    return {role: best(own, role) for role in ("baseline", "distilled")}


def _pairs(sweep: Sweep, finalists: dict[str, dict[str, dict[str, Any]]],
           seeds: int) -> dict[str, list[dict[str, Any]]]:
    """By student and seed: keys of the winner and the baseline, and their validation metrics, `best` and `plain`."""
    first = {name: sweep.jobs[name].settings["seed"] for name in finalists}
    found = {name: [_pair(first[name], pair["distilled"], pair["baseline"])] for name, pair in finalists.items()}
    if seeds == 1:
        return found
    again = replace(sweep, points={
        name: {role: [{**row["point"], "seed": first[name] + more} for more in range(1, seeds)]
               for role, row in pair.items()} for name, pair in finalists.items()})
    logger.info("sweep: the best of each student and its baseline again, on %d more seeds", seeds - 1)
    rows = run_sweep(again)
    for name in finalists:
        own = [row for row in rows if row["name"] == name]
        found[name] += [_pair(won["point"]["seed"], won, plain)
                        for won, plain in zip([row for row in own if not row["baseline"]],
                                              [row for row in own if row["baseline"]], strict=True)
                        if won["state"] == plain["state"] == "finished"]
    discard(again)
    return found


def _pair(seed: int, won: dict[str, Any], plain: dict[str, Any]) -> dict[str, Any]:
    return {"seed": seed, "winner": won["student"], "baseline": plain["student"], "best": won["best"],
            "plain": plain["best"]}


def _warn(pairs: list[dict[str, Any]], constraint: dict[str, Any] | None) -> None:
    best, plain = (mean(pair[name] for pair in pairs) for name in ("best", "plain"))
    if plain > best:
        logger.warning("the baseline (%.4f) is better on validation than every distilled student (%.4f)", plain, best)
    if constraint and not constraint["met"]:
        logger.warning("no student is within the limits of the search; the nearest is above %s", " and ".join(
            f"search.{name} = {constraint[name]:g} by {share:.0%}" for name, share in constraint["excess"].items()))
