"""Rows of a split become what models are measured against: what they say themselves, or what their teacher says.

Knows nothing about metrics.
"""

from typing import Any

from kdray.cache.ensemble import Ensemble, open_cache
from kdray.cache.reader import SoftTargets
from kdray.corpus.rows import Rows
from kdray.storage import Store
from kdray.tasks import TASKS, Task


def truth(store: Store, corpus: dict[str, Any], split: str, cache: str | None) -> list[Any]:
    """What each row of a split is measured against; `cache` is the key of its teacher's answers."""
    task, rows = TASKS[corpus["task"]], Rows.of_split(store, corpus, split)
    soft = None if task.labelled or cache is None else open_cache(store, cache, split)
    return truth_of(task, rows, len(corpus["labels"]), soft)


def truth_of(task: Task, rows: Rows, labels: int, soft: SoftTargets | Ensemble | None) -> list[Any]:
    """The same of rows that are open; `soft` says what their teacher does where the task is not `labelled`."""
    said = []
    if not task.labelled:
        assert soft is not None  # a live teacher is refused where it is measured against
        said = [soft[row][1] for row in range(len(rows))]
    return task.truth(rows.gold(task.output.shape(labels)), rows.raw(task), said)
