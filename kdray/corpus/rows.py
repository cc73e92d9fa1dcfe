"""The Arrow files of a corpus become rows addressed by their index, memory-mapped.

Knows nothing about where rows came from, nor about teachers.
"""

import hashlib
import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from kdray.copies import SpoiltError, file_bytes
from kdray.errors import StorageError
from kdray.storage import Store
from kdray.tasks import Task

KIND = "corpus"

Part = dict[str, Any]
"""What a manifest says of a file of a split: `file`, `rows`, `bytes`, `sha256`."""


class Ragged:
    """A list column as the values and offsets of its chunks: a row is a view, nothing is copied, whatever the size."""

    def __init__(self, column: pa.ChunkedArray):
        self._chunks = column.chunks
        self._starts = [0, *accumulate(map(len, self._chunks))]
        self._open: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self.numbers: np.ndarray | None = None
        """What a row has instead, by value."""

    def __getitem__(self, row: int | np.integer) -> np.ndarray:
        found = self._view(row)
        return found if self.numbers is None else self.numbers[found]

    def joined(self, rows: np.ndarray) -> np.ndarray:
        """The lists of `rows`, at least one, one after the other."""
        found = np.concatenate([self._view(row) for row in rows])
        return found if self.numbers is None else self.numbers[found]

    def _view(self, row: int | np.integer) -> np.ndarray:
        """A row's list as it is in the file."""
        number = bisect_right(self._starts, row) - 1
        offsets, values = self._open.get(number) or self._opened(number)
        place = row - self._starts[number]
        return values[offsets[place]:offsets[place + 1]]

    def __len__(self) -> int:
        return self._starts[-1]

    @cached_property
    def lengths(self) -> np.ndarray:
        """Length of each row's list."""
        return np.concatenate([np.empty(0, np.int32), *(np.diff(chunk.offsets.to_numpy()) for chunk in self._chunks)])

    def parts(self) -> Iterator[np.ndarray]:
        """The values of all rows, chunk by chunk, as they are in the file."""
        return (chunk.values.to_numpy() for chunk in self._chunks)

    def digest(self, start: int, stop: int) -> bytes:
        """SHA-256 over the lists of rows `start` to `stop`."""
        parts = [self._part(number, start, stop) for number in range(
            bisect_right(self._starts, start) - 1, bisect_left(self._starts, stop))]
        return hashlib.sha256(b"".join([lengths for lengths, _ in parts] + [values for _, values in parts])).digest()

    def _part(self, number: int, start: int, stop: int) -> tuple[bytes, bytes]:
        """Lengths and values of those of the rows that are in a chunk."""
        offsets, values = self._open.get(number) or self._opened(number)
        first = self._starts[number]
        within = offsets[max(0, start - first):stop - first + 1]
        return np.diff(within).astype("<i4").tobytes(), values[within[0]:within[-1]].astype("<i4").tobytes()

    def _opened(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        lists = self._chunks[number]
        self._open[number] = found = lists.offsets.to_numpy(), lists.values.to_numpy()
        return found


class Rows:
    """Rows of a corpus: token ids, targets and labels of each."""

    def __init__(self, parts: Sequence[pa.Buffer]):
        """`parts`: what is in the files, whose rows are one after another."""
        self.table = pa.concat_tables([pa.ipc.open_file(part).read_all() for part in parts], promote_options="default")
        self.input_ids = Ragged(self.table.column("input_ids"))
        self.targets = Ragged(self.table.column("targets"))
        self.positions = Ragged(self.table.column("positions"))
        self.labels = Ragged(self.table.column("labels"))
        self.token_type_ids = (Ragged(self.table.column("token_type_ids"))
                               if "token_type_ids" in self.table.column_names else None)
        self.entries = Ragged(self.table.column("entries")) if "entries" in self.table.column_names else None
        """Tokens of each entry of a row; None where a row is one."""

    @classmethod
    def open(cls, folder: Path, *splits: str) -> "Rows":
        """The rows of splits, mostly of one, as one; `folder` is the corpus on this machine.

        Raises FileNotFoundError.
        """
        paths = [path for split in splits for path in sorted(folder.glob(f"{split}-*.arrow"))]
        if not paths:
            raise FileNotFoundError(folder)
        return cls([pa.memory_map(str(path)).read_buffer() for path in paths])

    @classmethod
    def of_parts(cls, store: Store, corpus: str, parts: Sequence[Part]) -> "Rows":
        """The rows of some parts of the corpus with the key `corpus`; this machine keeps copies of remote ones.

        Raises StorageError where one is missing or corrupt.
        """
        return cls([_mapped(store, corpus, part) for part in parts])

    @classmethod
    def of_split(cls, store: Store, corpus: dict[str, Any], split: str) -> "Rows":
        """The rows of a split of a corpus, whose manifest it is; of remote ones, copies of that split alone are made.

        Raises StorageError as `of_parts` does.
        """
        return cls.of_parts(store, corpus["key"], corpus["parts"][split])

    def __len__(self) -> int:
        return self.table.num_rows

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each row."""
        return self.input_ids.lengths

    def digest(self, start: int, stop: int) -> str:
        """SHA-256 over what a teacher sees of rows `start` to `stop`: hard labels are not part of it."""
        seen = [self.input_ids, self.targets, self.positions]
        seen += [column for column in (self.token_type_ids, self.entries) if column is not None]
        return hashlib.sha256(b"".join(column.digest(start, stop) for column in seen)).hexdigest()

    def digests(self, start: int, stop: int, each: int) -> list[str]:
        """The digest of every `each` rows from `start` to `stop`; the last may be of fewer."""
        return [self.digest(first, min(first + each, stop)) for first in range(start, stop, each)]

    def raw(self, task: Task) -> pa.Table:
        """The task's columns of every row, as they were read."""
        return self.table.select([name for name in task.columns if name in self.table.column_names])

    def items(self, task: Task) -> list[Any]:
        """Every row as an input of the inference protocol."""
        return [task.item(row) for row in self.raw(task).to_pylist()]

    def sizes(self, rows: np.ndarray) -> np.ndarray:
        """Tokens of each entry of `rows`, one after another."""
        return self.lengths[rows] if self.entries is None else self.entries.joined(rows)

    def gold(self, shape: tuple[int, ...] = ()) -> list[np.ndarray]:
        """Gold of each row's units, (units, *shape)."""
        return [self.gold_of(row, shape) for row in range(len(self))]

    def gold_of(self, row: int | np.integer, shape: tuple[int, ...] = ()) -> np.ndarray:
        """Gold of a row's units, (units, *shape)."""
        return self.labels[row].reshape(-1, *shape)

    def units(self, shape: tuple[int, ...]) -> np.ndarray:
        """Units of each row, whose gold has that shape."""
        return self.labels.lengths // math.prod(shape)


def parts_among(parts: Sequence[Part], start: int, stop: int) -> tuple[list[Part], int]:
    """Those of a split's parts in which rows `start` to `stop` are, and which row is their first."""
    chosen, first, last = list[Part](), 0, 0
    for part in parts:
        begin, last = last, last + part["rows"]
        if last > start and begin < stop:
            first = first if chosen else begin
            chosen.append(part)
    return chosen, first


def _mapped(store: Store, corpus: str, part: Part) -> pa.Buffer:
    where = (KIND, corpus, part["file"])
    try:
        return file_bytes(store, where, part["sha256"])
    except FileNotFoundError as error:
        raise StorageError(f"{store.uri_of(*where)} is missing, which the manifest beside it names. Delete the folder "
                           "of the corpus and run again") from error
    except SpoiltError as error:
        raise StorageError(f"{store.uri_of(*where)} is corrupt: {error.bytes} bytes that do not match the checksum of "
                           f"the {part['bytes']} bytes in the manifest. Delete the folder of the corpus and run again"
                           ) from error
