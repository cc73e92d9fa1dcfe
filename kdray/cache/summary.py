"""A cache and the hard labels of its rows become a picture of the teacher: how often it agrees, how sure it is.

Knows nothing about how to print it.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import log_softmax

from kdray.cache.ensemble import open_cache
from kdray.corpus.rows import UNLABELLED, Rows
from kdray.storage import Store

BINS = 10
_SHARDS = 256


@dataclass(frozen=True)
class Summary:
    """The teacher on some targets of a split."""

    rows: int
    targets: int
    agreement: float | None
    """Share of targets whose largest logit is the hard label's; None where there are no labels."""
    entropy: float
    """Mean entropy of softmax(z), in nats."""
    confidence: float
    """Mean of the largest probability."""
    histogram: list[int]
    """Targets by largest probability, in BINS bins from 0 to 1."""
    classes: list[tuple[int, float, float]]
    """By hard label: targets, agreement, mean confidence."""


def summarise(store: Store, cache: dict[str, Any], split: str) -> Summary | None:
    """The split's summary over at most 256 evenly spaced shards; None where the split has no target."""
    soft = open_cache(store, cache["key"], split)
    rows = Rows.open(store.fetch("corpus", cache["parents"]["corpus"]), split)
    chosen = _chosen(len(soft), cache["rows_per_shard"])
    found = [soft[row] for row in chosen]
    gold = np.concatenate([rows.labels[row][units] for row, (units, _) in zip(chosen, found, strict=True)])
    if len(gold) == 0:
        return None
    likely = log_softmax(np.concatenate([logits for _, logits in found]).astype(np.float64), -1)
    sure, right = np.exp(likely.max(-1)), likely.argmax(-1) == gold
    return Summary(
        len(chosen), len(gold), None if (gold == UNLABELLED).all() else float(right.mean()),
        float(-(np.exp(likely) * likely).sum(-1).mean()),
        float(sure.mean()), np.histogram(sure, BINS, (0, 1))[0].tolist(),
        [_of_class(gold == label, right, sure) for label in range(likely.shape[1])])


def _chosen(rows: int, per_shard: int) -> np.ndarray:
    shards = -(-rows // per_shard)
    numbers: Any = np.unique(np.linspace(0, shards - 1, min(shards, _SHARDS)).round().astype(int)) if shards else []
    return np.concatenate([np.empty(0, int), *(
        np.arange(number * per_shard, min((number + 1) * per_shard, rows)) for number in numbers)])


def _of_class(mine: np.ndarray, right: np.ndarray, sure: np.ndarray) -> tuple[int, float, float]:
    if not mine.any():
        return 0, 0.0, 0.0
    return int(mine.sum()), float(right[mine].mean()), float(sure[mine].mean())
