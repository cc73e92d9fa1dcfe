"""Rows of a split become what models are measured against: their gold, or what their teacher says where none have any.

Knows nothing about metrics.
"""

from typing import Any

import numpy as np

from kdray.cache.ensemble import open_cache
from kdray.corpus.rows import Rows
from kdray.storage import Store
from kdray.tasks import TASKS


def truth(store: Store, corpus: dict[str, Any], split: str, cache: str | None) -> list[np.ndarray]:
    """What each row of a split is measured against, (units, ...); `cache` is the key of its teacher's answers."""
    task, rows = TASKS[corpus["task"]], Rows.of_split(store, corpus, split)
    gold = rows.gold(task.output.shape(len(corpus["labels"])))
    if task.labelled:
        return gold
    assert cache is not None  # a live teacher is refused where it is measured against
    soft = open_cache(store, cache, split)
    return [task.truth(part, soft[row][1]) for row, part in enumerate(gold)]
