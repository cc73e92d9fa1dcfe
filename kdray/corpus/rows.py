"""A split's Arrow file becomes rows addressed by their index, memory-mapped.

Knows nothing about where rows came from, nor about teachers.
"""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from kdray.tasks import Task


class Ragged:
    """A list column as values and offsets, so that a row is a view and nothing is copied."""

    def __init__(self, column: pa.ChunkedArray):
        lists = column.combine_chunks()
        self.offsets = lists.offsets.to_numpy()
        self.values = lists.values.to_numpy()
        self.numbers: np.ndarray | None = None
        """What a row has instead, by value."""

    def __getitem__(self, row: int | np.integer) -> np.ndarray:
        found = self.values[self.offsets[row]:self.offsets[row + 1]]
        return found if self.numbers is None else self.numbers[found]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Length of each row's list."""
        return np.diff(self.offsets)

    def digest(self, start: int, stop: int) -> bytes:
        """SHA-256 over the lists of rows `start` to `stop`."""
        lengths = self.lengths[start:stop].astype("<i4")
        values = self.values[self.offsets[start]:self.offsets[stop]].astype("<i4")
        return hashlib.sha256(lengths.tobytes() + values.tobytes()).digest()


class Rows:
    """One split of a corpus: token ids, targets and labels of each row."""

    def __init__(self, folder: Path, split: str):
        self.table = pa.ipc.open_file(pa.memory_map(str(folder / f"{split}.arrow"))).read_all()
        self.split = split
        self.input_ids = Ragged(self.table.column("input_ids"))
        self.targets = Ragged(self.table.column("targets"))
        self.positions = Ragged(self.table.column("positions"))
        self.labels = Ragged(self.table.column("labels"))
        self.token_type_ids = (Ragged(self.table.column("token_type_ids"))
                               if "token_type_ids" in self.table.column_names else None)

    def __len__(self) -> int:
        return self.table.num_rows

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each row."""
        return self.input_ids.lengths

    def digest(self, start: int, stop: int) -> str:
        """SHA-256 over what a teacher sees of rows `start` to `stop`: hard labels are not part of it."""
        seen = [self.input_ids, self.targets, self.positions] + ([self.token_type_ids] if self.token_type_ids else [])
        return hashlib.sha256(b"".join(column.digest(start, stop) for column in seen)).hexdigest()

    def raw(self, task: Task) -> pa.Table:
        """The task's columns of every row, as they were read."""
        return self.table.select([name for name in task.columns if name in self.table.column_names])

    def items(self, task: Task) -> list[Any]:
        """Every row as an input of the inference protocol."""
        return [task.item(row) for row in self.raw(task).to_pylist()]

    def gold(self) -> list[np.ndarray]:
        """Label ids of each row's units."""
        return [self.labels[row] for row in range(len(self))]
