"""A plan becomes a soft-target cache: what is there is kept, the rest is computed.

Invariant: the manifest is published when every row is in the cache, and never before.
"""

import logging
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from kdray.cache.manifest import KIND, make_manifest, same_schema, shard_table
from kdray.cache.plan import Plan, Slot
from kdray.cache.receipts import Journal, Listing, latest, list_shards, places
from kdray.cache.shard import Receipt, Schema, find_shard
from kdray.cluster import check_resources, cpus_each
from kdray.config import TeacherConfig
from kdray.errors import CacheError
from kdray.metrics import Fill
from kdray.storage import Store
from kdray.tasks import TASKS
from kdray.teacher.actor import start_actor
from kdray.teacher.pool import Pool
from kdray.teacher.runner import Done, TeacherJob
from kdray.threads import Starvation

logger = logging.getLogger("kdray")

_READERS = 16
_ROUNDS = 3
_JUDGED = 512
"""Targets whose decisions are compared with the gold."""


def fill_cache(store: Store, wanted: TeacherConfig, plan: Plan, plan_key: str, corpus: dict[str, Any], place: str,
               facts: dict[str, Any]) -> dict[str, Any]:
    """Fills every slot of the plan with the teacher at `place` and publishes the cache's manifest, with `facts` in it.

    Needs a Ray cluster. Raises ClusterError where the actors do not fit, CacheError where a shard keeps failing,
    ModelError where the teacher's labels are not the data's; finished shards stay and are found by the next run.
    """
    journal = Journal(store, plan, plan_key)
    missing = unfilled(store, plan, journal)
    shards = len(np.unique(plan.keys))
    logger.info("cache: making %s, %d of %d shards are there", plan.key[:12], shards - len(missing), shards)
    computed = sum(slot.rows for slot in missing)
    for _ in range(_ROUNDS):
        if not missing:
            break
        _compute(missing, store, wanted, plan, corpus, place, journal)
        missing = unfilled(store, plan, journal)
    if missing:
        raise CacheError(f"{missing[0]} were computed {_ROUNDS} times and are not in {store.uri}: something deletes "
                         "shards there")
    with store.staging(KIND) as staged:
        manifest = make_manifest(plan, journal.receipts(), staged, {**facts, "rows_computed": computed})
        # A manifest that is there points at shards that were lost: those computed anew may differ in the last place.
        publish = store.publish if store.manifest(KIND, plan.key) is None else store.republish
        published = publish(KIND, plan.key, staged, manifest)
    journal.remove()
    return published


def unfilled(store: Store, plan: Plan, journal: Journal) -> list[Slot]:
    """The slots whose shard is not in storage, each key once; receipts of the others go into the journal.

    A shard that a journal or another cache vouches for is there if its file is as long as it was; of any other file,
    the whole is read and checked.
    """
    keys, first = np.unique(plan.keys, return_index=True)
    listing = list_shards(store, keys)
    whole = _vouched(journal.receipts(), keys, listing) >= 0
    for cache in same_schema(store, plan.schema):
        table = latest([shard_table(store, cache)])
        found = _vouched(table, keys, listing)
        journal.vouch(table[found[~whole & (found >= 0)]])
        whole |= found >= 0
    there = places(listing.keys, keys) >= 0
    missing, unsure = first[~whole & ~there].tolist(), first[~whole & there].tolist()
    with ThreadPoolExecutor(_READERS) as readers:
        receipts = list(readers.map(lambda index: _found(store, plan[index], listing), unsure))
    for index, receipt in zip(unsure, receipts, strict=True):
        if receipt is None:
            missing.append(index)
        else:
            journal.add(receipt, 0.0)
    journal.flush()
    return [plan[index] for index in sorted(missing)]


def _vouched(receipts: np.ndarray, keys: np.ndarray, listing: Listing) -> np.ndarray:
    """Index of each key's receipt, -1 where there is none or the file is not there as it says."""
    found = places(receipts["key"], keys)
    known = np.flatnonzero(found >= 0)
    found[known[~listing.has(receipts[found[known]])]] = -1
    return found


def _found(store: Store, slot: Slot, listing: Listing) -> Receipt | None:
    found = (find_shard(store, name, slot.rows) for name in listing.candidates(slot.key))
    return next((receipt for receipt in found if receipt), None)


def _compute(missing: list[Slot], store: Store, wanted: TeacherConfig, plan: Plan, corpus: dict[str, Any],
             place: str, journal: Journal) -> None:
    cpus = wanted.num_cpus or cpus_each(wanted.actors, wanted.labels)
    check_resources(min(wanted.min_actors or wanted.actors, len(missing)), {"CPU": cpus, "GPU": wanted.num_gpus},
                    "teacher.min_actors" if wanted.min_actors else "teacher.actors", wanted.labels)
    job = TeacherJob(
        place=place, schema=plan.schema, batch_tokens=wanted.batch_tokens, num_gpus=wanted.num_gpus,
        threads=max(1, int(cpus)), storage=store.uri, corpus=corpus["key"], pad_token_id=corpus["pad_token_id"],
        compile=wanted.compile)
    labels = _Labels(plan.schema) if wanted.finetune is None else None
    told = Fill(sum(plan.rows.values()), sum(slot.rows for slot in missing), len(missing))
    starvation = Starvation("a teacher actor", "teacher.num_cpus")

    def record(done: Done) -> None:
        journal.add(done.receipt, done.seconds)
        told.computed(done.receipt.rows, done.seconds)
        starvation.see(done.waited)
        if labels:
            labels.see(done)

    try:
        Pool(missing, lambda: start_actor(job, cpus, wanted.num_gpus, wanted.labels), wanted.actors,
             wanted.max_attempts, record).run()
    finally:
        journal.flush()


class _Labels:
    """Compares the first answers with the gold, as they come."""

    def __init__(self, schema: Schema):
        self._output, self._labels = TASKS[schema.task].output, schema.labels
        self._gold, self._unsettled = list[np.ndarray](), list[np.ndarray]()

    def see(self, done: Done) -> None:
        if sum(map(len, self._gold)) < _JUDGED and len(done.gold):
            self._gold.append(done.gold)
            self._unsettled.append(done.unsettled)
            self._output.check_teacher(np.concatenate(self._gold), np.concatenate(self._unsettled), self._labels)
