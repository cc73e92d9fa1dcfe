"""Several caches of the same rows become one: their mean, taken when a row is read. No teacher runs again.

An ensemble is an artefact like any cache, a manifest that names its members. Knows nothing about teachers.
"""

from typing import Any

import numpy as np

from kdray.cache.manifest import KIND, find_cache
from kdray.cache.reader import MAPPED, SoftTargets
from kdray.config import CacheConfig
from kdray.corpus.rows import Rows
from kdray.errors import CacheError
from kdray.storage import Store, content_key
from kdray.tasks import TASKS

_SAMPLE = 64
"""Rows on which two members are compared."""


class Ensemble:
    """The mean of several teachers' logits for every row of one split, read like `SoftTargets`.

    The mean of probabilities is log-probabilities times T, whose softmax at T is the mean at T of the members'
    (Hinton et al. 2015, section 5.1, the arithmetic mean); that of logits is their geometric mean.
    """

    def __init__(self, store: Store, manifest: dict[str, Any], split: str, temperature: float):
        most = max(1, MAPPED // len(manifest["members"]))
        self._members = [SoftTargets(store, key, split, most) for key in manifest["members"]]
        self._columns = [np.array(columns) for columns in manifest["columns"]]
        self._weights = np.array(manifest["weights"], np.float32)
        self._mean, self._temperature = manifest["mean"], temperature
        self._output = TASKS[manifest["schema"]["task"]].output

    def __len__(self) -> int:
        return len(self._members[0])

    def __getitem__(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        """Units (targets,) that every member has logits for, and their mean, float32 (targets, labels)."""
        found = [member[row] for member in self._members]
        units, stack = self._output.common([(own, logits[:, columns]) for (own, logits), columns in zip(
            found, self._columns, strict=True)])
        return units, self._averaged(stack, units).astype(np.float32)

    def _averaged(self, stack: np.ndarray, units: np.ndarray) -> np.ndarray:
        if self._mean == "logits":
            return (self._weights[:, None, None] * stack).sum(0)
        return self._output.among(units).mean(stack, self._weights, self._temperature)


def open_cache(store: Store, key: str, split: str, temperature: float = 1.0) -> SoftTargets | Ensemble:
    """The soft targets of one split of a cache or an ensemble; `temperature` matters to a mean of probabilities.

    Raises CacheError where there is no such cache.
    """
    manifest = store.manifest(KIND, key)
    if manifest is not None and "members" in manifest:
        return Ensemble(store, manifest, split, temperature)
    return SoftTargets(store, key, split)


def make_ensemble(store: Store, own: str, wanted: CacheConfig) -> dict[str, Any]:
    """Publishes the ensemble of the cache `own` and those that the config names; its labels are in the order of `own`.

    Raises CacheError where one is missing, or is of other rows, labels or another task.
    """
    keys = [own, *(find_cache(store, key) for key in wanted.ensemble)]
    first, *others = made = [store.manifest(KIND, key) or {} for key in keys]
    for other in others:
        _check(store, first, other)
    weights = np.array(wanted.weights or [1.0] * len(keys))
    labels = first["schema"]["labels"]
    facts = {
        "members": keys, "weights": (weights / weights.sum()).tolist(), "mean": wanted.mean,
        "columns": [[member["schema"]["labels"].index(label) for label in labels] for member in made]}
    key = content_key(facts)
    published = store.manifest(KIND, key)
    if published is not None:
        return published
    kept = {name: first[name] for name in ("schema", "rows", "rows_per_shard", "teacher_model")}
    with store.staging(KIND) as folder:
        return store.publish(KIND, key, folder, {
            **kept, **facts, "parents": {**first["parents"], "caches": keys},
            "shards": sum(member["shards"] for member in made), "bytes": sum(member["bytes"] for member in made),
            "teacher_seconds": sum(member["teacher_seconds"] for member in made)})


def _check(store: Store, first: dict[str, Any], other: dict[str, Any]) -> None:
    answers = [{"task": made["schema"]["task"], "labels": sorted(made["schema"]["labels"])} for made in (first, other)]
    one, two = (len(made["schema"]["labels"]) for made in (first, other))
    if one != two and not TASKS[first["schema"]["task"]].output.named:
        raise CacheError(f"cache.ensemble: what cache {other['key'][:12]} says of a row is {two} numbers, not {one}")
    for name, wanted in answers[0].items():
        found = answers[1][name]
        if found != wanted:
            raise CacheError(f"cache.ensemble: the {name} of cache {other['key'][:12]} is {found}, not {wanted}")
    if "members" in other:
        raise CacheError(f"cache.ensemble: {other['key'][:12]} is an ensemble itself; name its members "
                         f"{', '.join(key[:12] for key in other['members'])}")
    for split in first["rows"]:
        if split not in other["rows"] or not _same_rows(store, first, other, split):
            raise CacheError(f"cache.ensemble: the {split} split of cache {other['key'][:12]} has other rows than that "
                             f"of {first['key'][:12]}. Fill it with the same `data`")
    if not _related(store, first, other):
        raise CacheError(f"cache.ensemble: the vectors of cache {other['key'][:12]} are of another space than those of "
                         f"{first['key'][:12]}: their mean means nothing. Take teachers that were trained from one")


def _related(store: Store, first: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether what two caches say has a mean, by a few rows; what has names has one."""
    output = TASKS[first["schema"]["task"]].output
    if output.named:
        return True
    soft = [SoftTargets(store, made["key"], "validation") for made in (first, other)]
    said = [np.concatenate([each[row][1] for row in range(min(_SAMPLE, *map(len, soft)))]) for each in soft]
    return len(said[0]) != len(said[1]) or output.related(*said)


def _same_rows(store: Store, first: dict[str, Any], other: dict[str, Any], split: str) -> bool:
    if first["parents"]["corpus"] == other["parents"]["corpus"]:
        return True
    task = TASKS[first["schema"]["task"]]
    one, two = (Rows.open(store.fetch("corpus", made["parents"]["corpus"]), split).raw(task) for made in (first, other))
    return bool(one.equals(two))
