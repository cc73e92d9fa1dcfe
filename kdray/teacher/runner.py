"""A teacher folder and some rows become an Arrow shard in storage, and a receipt.

Knows nothing about Ray: an actor is this, in a process of its own.
"""

import os
import platform
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kdray.cache.plan import Slot
from kdray.cache.shard import Receipt, Schema, encode_shard, write_shard
from kdray.corpus.rows import Rows, parts_among
from kdray.errors import CacheError, ModelError, StorageError
from kdray.models.folder import at
from kdray.models.forward import predict
from kdray.models.load import load_model
from kdray.models.precision import DTYPES, device
from kdray.storage import Store, machine_folder
from kdray.tasks import TASKS
from kdray.threads import Waits

_SAMPLE = 256


@dataclass(frozen=True)
class TeacherJob:
    """All that an actor needs: names and numbers, no data."""

    place: str
    """Where every machine finds the teacher."""
    schema: Schema
    batch_tokens: int
    num_gpus: float
    threads: int
    storage: str
    corpus: str
    pad_token_id: int
    compile: bool = False


@dataclass(frozen=True)
class Done:
    """What comes back for a shard: its receipt, the time it took; gold and unsettled decisions of a sample."""

    receipt: Receipt
    seconds: float
    gold: np.ndarray
    unsettled: np.ndarray
    waited: float = 0.0
    """Share of its time for which the actor has waited for a processor."""


def load_teacher(schema: Schema, folder: str | Path, num_gpus: float) -> Any:
    """The teacher in `folder`, on its device, as shards with this schema are computed."""
    model = load_model(TASKS[schema.task], folder, list(schema.labels), num_gpus, DTYPES[schema.precision])
    return model.eval().to(device(num_gpus))


class TeacherRunner:
    """The teacher, loaded once, and the rows it is asked about."""

    def __init__(self, job: TeacherJob):
        torch.set_num_threads(job.threads)
        self.job, self.task, self.store = job, TASKS[job.schema.task], Store(job.storage)
        self.model = load_teacher(job.schema, at(job.place), job.num_gpus)
        if job.compile:
            _check_compiler()
            os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(machine_folder() / "compiled"))  # torch's is anybody's
            self.model.compile(dynamic=True)
        manifest = self.store.manifest("corpus", job.corpus)
        if manifest is None:
            raise StorageError(f"{self.store.uri_of('corpus', job.corpus)} is not there any more: run again")
        self._corpus = manifest
        self._span = "", 0, 0
        self._rows: Rows | None = None
        self._waits = Waits()

    def fill(self, slot: Slot) -> Done:
        """Computes a slot's logits and publishes its shard. Raises CacheError where logits are not finite."""
        started = time.perf_counter()
        rows, first = self._among(slot)
        indices = np.arange(slot.start, slot.stop) - first
        logits = predict(self.model, self.task, rows, indices, self.job.pad_token_id, self.job.batch_tokens)
        targets = [rows.targets[index] for index in indices]
        try:
            data = encode_shard(logits, targets, self.job.schema)
        except CacheError as error:
            raise CacheError(f"{slot}: {error}") from error
        receipt = write_shard(self.store, slot.key, data)
        output = self.task.output
        shape = output.shape(len(self.job.schema.labels))
        sample = [(output.seen(rows.gold_of(index, shape), units), output.among(units).unsettled(row))
                  for index, units, row in zip(indices[:_SAMPLE], targets, logits, strict=False)]
        gold, unsettled = (np.concatenate(column)[:_SAMPLE] for column in zip(*sample, strict=True))
        judged = output.known(gold)
        return Done(receipt, time.perf_counter() - started, gold[judged], unsettled[judged], self._waits.share())

    def _among(self, slot: Slot) -> tuple[Rows, int]:
        """Rows that the slot's are among, and which the first is; the last ones stay open."""
        split, first, last = self._span
        if self._rows is None or slot.split != split or slot.start < first or slot.stop > last:
            parts, first = parts_among(self._corpus["parts"][slot.split], slot.start, slot.stop)
            self._rows = Rows.of_parts(self.store, self.job.corpus, parts)
            self._span = slot.split, first, first + len(self._rows)
        return self._rows, first


def _check_compiler() -> None:
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        raise ModelError(f"teacher.compile needs a C++ compiler, and {platform.node()} has no {compiler}. Install one, "
                         "name it in CXX, or leave teacher.compile out")
