"""A cache is read whole, and a sample of its rows is run through the teacher again.

Knows nothing about Ray: the sample is small.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from kdray.cache.manifest import stored_table
from kdray.cache.plan import parse_schema
from kdray.cache.reader import SoftTargets
from kdray.cache.receipts import check_listed
from kdray.corpus.rows import Rows
from kdray.errors import CacheError, ModelError
from kdray.models.folder import fingerprint, locate
from kdray.models.forward import predict
from kdray.progress import progress
from kdray.storage import Store
from kdray.tasks import TASKS
from kdray.teacher.runner import load_teacher

_READERS, _AHEAD = 16, 256
"""Shards that are read at once, and that are asked for before the progress is told."""
_TOLERANCE = {"float32": 1e-3, "float16": 1e-2, "bfloat16": 1e-1}
"""How far another batch may move a logit, as a share of the largest: a few units of the precision's last place."""


@dataclass(frozen=True)
class Rerun:
    """What the teacher said again."""

    rows: int
    largest: float
    """Largest difference of a logit."""
    allowed: float
    flipped: int
    """Targets with another decision."""


def check_shards(store: Store, cache: dict[str, Any]) -> list[str]:
    """Reads every shard where it is stored against its checksum; a complaint for each that is missing or corrupt.

    Raises CacheError where the table of the shards is.
    """
    table = stored_table(store, cache)
    report, complaints = progress("verify", len(table), "shards"), list[str]()
    with ThreadPoolExecutor(_READERS) as readers:
        for start in range(0, len(table), _AHEAD):
            part = table[start:start + _AHEAD]
            complaints += filter(None, readers.map(partial(_complaint, store), part))
            report.advance(len(part))
    report.close()
    return complaints


def _complaint(store: Store, shard: np.void) -> str:
    try:
        check_listed(store, shard)
    except CacheError as error:
        return str(error)
    return ""


def rerun(store: Store, cache: dict[str, Any], teacher: str | None, rows: int, seed: int) -> Rerun:
    """Runs `rows` random rows through the teacher, in the cache's precision on this machine's processor.

    `teacher` names its folder where it is not where the cache was filled from. Raises ModelError where the teacher is
    not the one with the cache's fingerprint.
    """
    schema = parse_schema(cache["schema"])
    folder = cached_teacher(store, cache, teacher)
    task, corpus = TASKS[schema.task], store.manifest("corpus", cache["parents"]["corpus"]) or {}
    model, output = load_teacher(schema, folder, 0), task.output
    random, differences, flipped, count, peak = np.random.default_rng(seed), [0.0], 0, 0, 1.0
    for split, total in cache["rows"].items():
        share = min(total, max(1, round(rows * total / max(1, sum(cache["rows"].values())))))
        chosen = np.sort(random.choice(total, share, replace=False))
        found = predict(model, task, Rows.of_split(store, corpus, split), chosen,
                        corpus["pad_token_id"])
        soft = SoftTargets(store, cache["key"], split)
        for row, again in zip(chosen, found, strict=True):
            units, kept = soft[row]
            own = output.among(units)
            differences.append(float(np.abs(again - kept).max(initial=0)))
            peak = max(peak, float(np.abs(kept).max(initial=0)))
            flipped += int((~own.alike(own.decide(kept), own.decide(again))).sum())
        count += len(chosen)
    allowed = _TOLERANCE[schema.precision] * peak + cache["codec_error"]["largest_logit"]
    return Rerun(count, max(differences), allowed, flipped)


def cached_teacher(store: Store, cache: dict[str, Any], given: str | None = None) -> Path:
    """Folder of the teacher that filled a cache; `given` names it where it has moved.

    Raises ModelError where it is another one by now.
    """
    key = cache.get("teacher_key")
    folder = locate(given or cache["teacher_model"]) if given or key is None else store.fetch("teachers", key)
    found = fingerprint(folder, TASKS[cache["schema"]["task"]])
    if found != cache["schema"]["teacher"]:
        raise ModelError(f"{folder} has the fingerprint {found}, the cache's teacher {cache['schema']['teacher']}: "
                         "it has changed since. Name the teacher's folder with --teacher")
    return folder
