"""A cache and the hard labels of its rows become a picture of what the teacher says.

Knows nothing about how to print it, nor what logits mean.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from kdray.cache.ensemble import open_cache
from kdray.corpus.rows import Rows
from kdray.outputs.base import Summary
from kdray.storage import Store
from kdray.tasks import TASKS

_SHARDS = 256


@dataclass(frozen=True)
class Described:
    """The teacher on some rows of a split."""

    rows: int
    targets: int
    summary: Summary


def summarise(store: Store, cache: dict[str, Any], split: str) -> Described | None:
    """The split's summary over at most 256 evenly spaced shards; None where the split has no target."""
    soft, labels = open_cache(store, cache["key"], split), cache["schema"]["labels"]
    rows = Rows.open(store.fetch("corpus", cache["parents"]["corpus"]), split)
    output = TASKS[cache["schema"]["task"]].output
    chosen, shape = _chosen(len(soft), cache["rows_per_shard"]), output.shape(len(labels))
    found = [soft[row] for row in chosen]
    gold = np.concatenate([output.seen(rows.gold_of(row, shape), units)
                           for row, (units, _) in zip(chosen, found, strict=True)])
    if len(gold) == 0:
        return None
    logits = np.concatenate([logits for _, logits in found])
    output = output.among(np.concatenate([units for units, _ in found]))
    return Described(len(chosen), len(gold), output.summary(logits, gold, labels))


def _chosen(rows: int, per_shard: int) -> np.ndarray:
    shards = -(-rows // per_shard)
    numbers: Any = np.unique(np.linspace(0, shards - 1, min(shards, _SHARDS)).round().astype(int)) if shards else []
    return np.concatenate([np.empty(0, int), *(
        np.arange(number * per_shard, min((number + 1) * per_shard, rows)) for number in numbers)])
