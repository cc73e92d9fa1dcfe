"""Two caches become what separates them: schema, shards, logits.

Knows nothing about how to print it.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from kdray.cache.ensemble import open_cache
from kdray.cache.manifest import shard_table
from kdray.storage import Store
from kdray.tasks import TASKS

_BLOCK = 4096
"""Rows that are compared at once: what is read of them keeps their shards mapped."""


@dataclass(frozen=True)
class Apart:
    """How far the logits of one split are apart."""

    rows: int
    largest: float
    """Largest difference of a logit."""
    agreement: float
    """Share of targets with the same decision."""
    kl: float
    """Mean KL(first || second) of a target, in nats."""


def fields_apart(first: dict[str, Any], second: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Key parts and numbers of rows in which two manifests differ: name to both values."""
    flat = [{**made["schema"], "rows_per_shard": made["rows_per_shard"],
             **{f"rows of {split}": rows for split, rows in made["rows"].items()},
             "corpus": made["parents"]["corpus"]} for made in (first, second)]
    return {name: (flat[0].get(name), flat[1].get(name)) for name in {**flat[0], **flat[1]}
            if flat[0].get(name) != flat[1].get(name)}


def shards_shared(store: Store, first: dict[str, Any], second: dict[str, Any]) -> tuple[int, int, int]:
    """Shards that both have, that the first alone has, that the second alone has."""
    one, two = (set(shard_table(store, made)["key"].tolist()) for made in (first, second))
    return len(one & two), len(one - two), len(two - one)


def logits_apart(store: Store, first: dict[str, Any], second: dict[str, Any], split: str) -> Apart | None:
    """How far the logits of the split's first rows are apart, as many as both have.

    None where they cannot be compared: other labels, or rows that have other targets.
    """
    if first["schema"]["labels"] != second["schema"]["labels"]:
        return None
    output = TASKS[first["schema"]["task"]].output
    softs = [open_cache(store, made["key"], split) for made in (first, second)]
    rows, sums, largest = min(map(len, softs)), np.zeros(3), 0.0
    for start in range(0, rows, _BLOCK):
        block = [[soft[row] for row in range(start, min(start + _BLOCK, rows))] for soft in softs]
        if not all(np.array_equal(one, two) for (one, _), (two, _) in zip(*block, strict=True)):
            return None
        one, two = (np.concatenate([logits for _, logits in part]) for part in block)
        largest = max(largest, float(np.abs(one - two).max(initial=0)))
        own = output.among(np.concatenate([units for units, _ in block[0]]))
        alike = own.alike(own.decide(one), own.decide(two))
        sums += len(alike), alike.sum(), own.divergence(one, two).sum()
    targets, same, kl = sums.tolist()
    return Apart(rows, largest, same / targets, kl / targets) if targets else None
