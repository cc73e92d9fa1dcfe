"""Pieces of raw rows become what is decided of a corpus as a whole: that rows are sound, and which labels there are.

Knows nothing about tokens. A piece is looked at alone, wherever it can be read.
"""

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from kdray.corpus.labels import Found, Seen, merge
from kdray.corpus.pieces import Each, Known, by, starts
from kdray.errors import DataError
from kdray.tasks import TASKS, Row, Task

logger = logging.getLogger("kdray")
_BATCH = 1000
_SHOWN = 60
_FLATTERED = {
    "train": "is in train too: the metrics flatter every model",
    "transfer": "is among the rows without labels (data.transfer) too: students learn what the teacher says of them",
}


@dataclass(frozen=True)
class Survey:
    """What was found in some rows."""

    labels: Seen
    traits: set[Any]
    """Those that the task sees in rows."""
    texts: np.ndarray
    """A hash of each row's text."""


def survey_all(pieces: Mapping[str, Sequence[Known]], task: Task, each: Each) -> tuple[dict[str, Seen], set[Any]]:
    """Checks every row; the labels of each split that has some, and the traits of all rows with labels.

    Warns of texts of validation and test that a student sees in training, too. Raises DataError where a row is not as
    the task needs it.
    """
    def look(split: str) -> Iterator[Survey]:
        parts = pieces[split]
        arguments = [(part, split, first, task.name) for part, first in zip(parts, starts(parts), strict=True)]
        return by(each, parts)(survey, arguments, f"check {split}")

    held = {split: list(look(split)) for split in ("validation", "test") if split in pieces}
    texts = {split: np.concatenate([found.texts for found in those]) for split, those in held.items()}
    labels, traits = dict[str, Seen](), set[Any]()
    for split in pieces:
        leaked = {other: np.zeros(len(hashes), bool) for other, hashes in texts.items() if split in _FLATTERED}
        for found in held.get(split) or look(split):
            if split != "transfer":
                labels[split] = merge(labels.get(split, {}), found.labels)
                traits |= found.traits
            for other, those in leaked.items():
                those |= np.isin(texts[other], found.texts)
        _tell_leaks(split, leaked)
    return labels, traits


def survey(piece: Known, split: str, first: int, task: str) -> Survey:
    """What is in a piece, whose first row is row `first` of its split. Raises DataError, which names the row."""
    table, its = piece.read(), TASKS[task]
    check(table, split, first, its)
    texts, traits = np.empty(table.num_rows, np.int64), set[Any]()
    counts, firsts = dict[str, int](), dict[str, int]()
    for index, row in enumerate(rows_of(table)):
        text = str(its.item(row)).encode()
        texts[index] = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little", signed=True)
        if split != "transfer":
            for name in set(its.labels(row)) if its.output.fewest else ():
                if not (its.output.named or name in counts or len(counts) < its.output.fewest):
                    continue  # there may be as many numbers as rows
                counts[name] = counts.get(name, 0) + 1
                firsts.setdefault(name, first + index)
            traits |= its.traits(row)
    return Survey({name: Found(rows, firsts[name]) for name, rows in counts.items()}, traits, texts)


def check(table: pa.Table, split: str, first: int, task: Task) -> None:
    """Raises DataError where a row is not as the task needs it; the table's first is row `first` of its split."""
    rows = enumerate(rows_of(table), first)
    for index, row in rows:
        complaint = task.complaint(row)
        if complaint:
            more = sum(1 for _, other in rows if task.complaint(other))
            raise DataError(f"row {index} of the {split} split: {complaint} ({str(row)[:_SHOWN]}...)"
                            f"{f', and {more} more rows are wrong' if more else ''}. Mend them, or take them out")


def rows_of(table: pa.Table) -> Iterator[Row]:
    """One row after another: as Python objects, all of them would take as much memory again."""
    for start in range(0, table.num_rows, _BATCH):
        yield from table.slice(start, _BATCH).to_pylist()


def _tell_leaks(split: str, leaked: dict[str, np.ndarray]) -> None:
    for other, found in leaked.items():
        if found.any():
            logger.warning("%d of %d %s rows have a text that %s", found.sum(), len(found), other, _FLATTERED[split])
