"""A job becomes its soft targets by row, read from the cache or asked of a live teacher, in the student's units.

Whoever trains never asks where they come from. Knows nothing about losses.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from kdray.cache.ensemble import Ensemble, open_cache
from kdray.cache.reader import SoftTargets
from kdray.corpus.rows import Rows
from kdray.models.folder import at
from kdray.models.forward import predict
from kdray.models.load import load_model
from kdray.models.precision import DTYPES, device
from kdray.outputs import Output
from kdray.storage import Store
from kdray.tasks import TASKS
from kdray.training.job import TrainingJob

_RUNS = 8


class LiveTeacher:
    """A teacher in this process, and the rows of a split, tokenised for it."""

    def __init__(self, store: Store, job: TrainingJob, num_gpus: float):
        assert job.live is not None
        self._task, self._pad = TASKS[job.task], job.live.pad_token_id
        self._corpus = store.fetch("corpus", job.live.corpus)
        model = load_model(self._task, at(job.live.place), list(job.labels), num_gpus, DTYPES[job.live.precision])
        self._model = model.eval().to(device(num_gpus))

    def split(self, *names: str) -> "LiveSplit":
        """Its soft targets of splits, as of one."""
        return LiveSplit(self, Rows.open(self._corpus, *names))

    def ask(self, rows: Rows, indices: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """Units (targets,) and logits, float32 (targets, labels), of each of the rows `indices`."""
        logits = predict(self._model, self._task, rows, indices, self._pad)
        return [(rows.targets[row], part) for row, part in zip(indices, logits, strict=True)]


@dataclass(frozen=True)
class LiveSplit:
    """One split, as its live teacher sees it."""

    teacher: LiveTeacher
    rows: Rows

    def ask(self, indices: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """Units and logits of each of the rows `indices`."""
        return self.teacher.ask(self.rows, indices)


class Joined:
    """Soft targets of splits, one after the other, as of one."""

    def __init__(self, parts: list[SoftTargets | Ensemble]):
        self._parts = parts
        self._starts = [0, *accumulate(map(len, parts))]

    def __getitem__(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        """Units (targets,) and logits, float32 (targets, labels), of a row."""
        number = bisect_right(self._starts, row) - 1
        return self._parts[number][row - self._starts[number]]


Soft = SoftTargets | Ensemble | LiveSplit | Joined


def trained_splits(store: Store, job: TrainingJob) -> list[str]:
    """Splits that the job trains on: train and, where it distils, the rows without labels."""
    made = store.manifest("corpus", job.corpus) or {}
    return ["train", "transfer"] if job.distils and "transfer" in made["rows"] else ["train"]


def open_targets(store: Store, job: TrainingJob, num_gpus: float, splits: Sequence[str] = ("train",)
                 ) -> tuple[Soft, Soft]:
    """Soft targets of `splits`, at the job's temperature, and of validation, at 1, for a job that distils.

    The temperature matters to a mean of probabilities. A live teacher is loaded, onto its device. Raises CacheError
    where there is no such cache.
    """
    if job.live is not None:
        teacher = LiveTeacher(store, job, num_gpus)
        return teacher.split(*splits), teacher.split("validation")
    key, temperature = job.cache or "", job.settings["temperature"]
    return (Joined([open_cache(store, key, split, temperature) for split in splits]),
            open_cache(store, key, "validation"))


def aligned(output: Output, soft: Soft, rows: Rows, indices: np.ndarray, labels: int) -> tuple[np.ndarray, np.ndarray]:
    """The teacher's logits of the student's targets in the rows `indices`, and which of them it has logits for.

    Float32 (targets, labels), 0 where it has none, and boolean (targets,): student and teacher may see different words
    where tokenizers differ.
    """
    read, counts, targets = _read(soft, indices), rows.targets.lengths[indices], rows.targets.joined(indices)
    same = np.array_equal(counts, [len(units) for units, _ in read])
    if same and np.array_equal(targets, np.concatenate([units for units, _ in read])):
        return np.concatenate([found for _, found in read]), np.ones(len(targets), bool)
    logits, known = np.zeros((len(targets), labels), np.float32), np.zeros(len(targets), bool)
    for (units, found), stop, count in zip(read, np.cumsum(counts), counts, strict=True):
        own = slice(stop - count, stop)
        logits[own], known[own] = output.matched(targets[own], units, found)
    return logits, known


def sample_targets(job: TrainingJob) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits (targets, labels), gold of what is decided and units (targets,) of a sample of train.

    The sample is of a few runs of rows, evenly spaced. A live teacher is run for it in this process, without a GPU.
    """
    store = Store(job.storage)
    rows, (soft, _) = Rows.open(store.fetch("corpus", job.corpus), "train"), open_targets(store, job, 0)
    run = 16 if job.live else 64
    starts = np.linspace(0, max(0, len(rows) - run), _RUNS).astype(int)
    indices = np.unique(np.concatenate([np.arange(start, min(start + run, len(rows))) for start in starts]))
    output, labels = TASKS[job.task].output, len(job.labels)
    logits, known = aligned(output, soft, rows, indices, labels)
    ends = np.cumsum(rows.targets.lengths[indices])[:-1]
    units = [rows.targets[row][its] for row, its in zip(indices, np.split(known, ends), strict=True)]
    gold = [output.seen(rows.gold_of(row, output.shape(labels)), its) for row, its in zip(indices, units, strict=True)]
    return logits[known], np.concatenate(gold), np.concatenate(units)


def hard_labels(output: Output, rows: Rows, indices: np.ndarray, labels: int) -> np.ndarray:
    """What the output's loss takes of the gold (targets, ...) of the rows `indices`: int64, or float32."""
    shape = output.shape(labels)
    found = np.concatenate([output.taught(rows.gold_of(row, shape), rows.targets[row]) for row in indices])
    return found if found.dtype == np.float32 else found.astype(np.int64)


def _read(soft: Soft, indices: np.ndarray) -> Sequence[tuple[np.ndarray, np.ndarray]]:
    return soft.ask(indices) if isinstance(soft, LiveSplit) else [soft[row] for row in indices]
