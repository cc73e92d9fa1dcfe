"""A plan of slots becomes a soft-target cache: what is there is kept, the rest is computed.

Invariant: the manifest is published when every row is in the cache, and never before.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kdray.cache.manifest import KIND, Slot, cache_key, make_manifest
from kdray.cache.shard import Receipt, Schema, find_shard
from kdray.config import Config
from kdray.storage import Store
from kdray.teacher.pool import fill_slots
from kdray.teacher.runner import TeacherJob

logger = logging.getLogger("kdray")


def fill_cache(store: Store, config: Config, schema: Schema, slots: Sequence[Slot], corpus: dict[str, Any],
               folder: Path, parents: dict[str, str]) -> dict[str, Any]:
    """Fills every slot with the teacher in `folder` and publishes the cache's manifest.

    Needs a Ray cluster. Raises what `fill_slots` raises; finished shards stay and are found by the next run.
    """
    found = {slot.key: receipt for slot in slots if (receipt := find_shard(store, slot.key, slot.rows))}
    missing = list({slot.key: slot for slot in slots if slot.key not in found}.values())
    logger.info("cache: making %s, %d of %d shards are there", cache_key(list(slots))[:12], len(found), len(slots))
    receipts, seconds = _compute(missing, store, config, schema, corpus, folder) if missing else ({}, 0.0)
    manifest = make_manifest(schema, list(slots), {**found, **receipts}, config.cache.rows_per_shard, parents, seconds)
    with store.staging(KIND) as staged:
        return store.publish(KIND, cache_key(list(slots)), staged, manifest)


def _compute(missing: list[Slot], store: Store, config: Config, schema: Schema, corpus: dict[str, Any],
             folder: Path) -> tuple[dict[str, Receipt], float]:
    teacher = config.teacher
    job = TeacherJob(
        folder=str(folder), task=schema.task, labels=schema.labels, precision=schema.precision,
        batch_tokens=teacher.batch_tokens, num_gpus=teacher.num_gpus, threads=1, storage=store.uri,
        corpus=corpus["key"], pad_token_id=corpus["pad_token_id"])
    return fill_slots(missing, job, teacher.actors, teacher.num_cpus, teacher.num_gpus, teacher.max_attempts,
                      check_labels=teacher.finetune is None)
