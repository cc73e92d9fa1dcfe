"""Tables become pieces: as many of a split's rows as one process reads, checks and tokenises at a time.

Knows nothing about where tables come from, nor about labels or tokens.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from kdray.corpus.oddities import Oddity, Told, merged, unheard
from kdray.corpus.tokenizer import cutter
from kdray.errors import DataError
from kdray.tasks import TASKS, Row

ROWS = 1 << 17
"""Rows of a piece that is cut off a table in memory."""
_MOST = 16


Each = Callable[[Callable[..., Any], Sequence[tuple[Any, ...]], str], Iterator[Any]]
"""Calls a function with each of many arguments and gives the results in order; the text is what the work is called."""


def one_by_one(function: Callable[..., Any], arguments: Sequence[tuple[Any, ...]], label: str) -> Iterator[Any]:
    """An `Each` that works in this process, when a result is asked for."""
    return (function(*those) for those in arguments)


class Piece(Protocol):
    """Rows of a split that are read when they are needed."""

    @property
    def anywhere(self) -> bool:
        """Whether every machine can read it."""

    def read(self, told: Told = unheard) -> pa.Table:
        """The task's columns of its rows; what is odd in them is told. Raises DataError."""


@dataclass(frozen=True)
class Held:
    """Rows that this process has in memory."""

    table: pa.Table
    anywhere = False

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.table.num_rows

    def read(self, told: Told = unheard) -> pa.Table:
        """The table itself."""
        return self.table


@dataclass(frozen=True)
class Phrases:
    """A phrase of each row of another piece, whose first is row `first` of its split; another `number`, another one."""

    of: "Known"
    first: int
    number: int
    seed: int
    task: str
    vocabulary: str
    """Where every machine finds the tokenizer whose words take the place of some."""

    @property
    def anywhere(self) -> bool:
        """Where the rows can be read, phrases can be made."""
        return self.of.anywhere

    @property
    def rows(self) -> int:
        """Number of phrases."""
        return self.of.rows

    def read(self, told: Told = unheard) -> pa.Table:
        """The phrases: the same ones however the split is cut into pieces."""
        task, cut = TASKS[self.task], cutter(self.vocabulary)
        return pa.Table.from_pylist([
            task.phrase(row, np.random.default_rng([self.seed, index, self.number]), cut)
            for index, row in enumerate(self.of.read().to_pylist(), self.first)])


@dataclass(frozen=True)
class Seen:
    """A piece that was read once."""

    piece: Piece
    rows: int
    columns: tuple[str, ...]
    digest: str
    """SHA-256 over its values."""
    oddities: tuple[Oddity, ...] = ()
    """What is to be said of it."""

    @property
    def anywhere(self) -> bool:
        """Whether every machine can read it."""
        return self.piece.anywhere

    def read(self, told: Told = unheard) -> pa.Table:
        """The piece's rows. Raises DataError where they are not those that were seen."""
        table = self.piece.read(told)
        if not isinstance(self.piece, Held) and table_digest(table) != self.digest:
            raise DataError(f"{self.piece} has changed since this run began. Run again")
        return table


Known = Seen | Held | Phrases
"""A piece whose number of rows is known."""


def see(piece: Piece) -> Seen:
    """Reads a piece."""
    oddities = list[Oddity]()
    table = piece.read(oddities.append)
    return Seen(piece, table.num_rows, tuple(table.column_names), table_digest(table), tuple(merged(oddities)))


def cut_up(table: pa.Table) -> list[Held]:
    """A table as pieces of `ROWS` rows."""
    return [Held(table.slice(start, ROWS)) for start in range(0, table.num_rows, ROWS)]


def whole(pieces: Sequence[Piece]) -> pa.Table:
    """The rows of pieces with the same columns as one table."""
    return pa.concat_tables([piece.read() for piece in pieces])


def some_rows(pieces: Sequence[Seen], count: int) -> Iterator[Row]:
    """`count` rows of pieces at most, evenly spaced in each that is read, of which there are 16 at most."""
    read = pieces[::-(-len(pieces) // _MOST)]
    step = max(1, -(-sum(piece.rows for piece in read) // count))
    for piece in read:
        yield from piece.read().take(np.arange(0, piece.rows, step)).to_pylist()


def table_digest(table: pa.Table) -> str:
    """SHA-256 over the values of a table."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    return hashlib.sha256(memoryview(sink.getvalue())).hexdigest()


def by(each: Each, pieces: Sequence[Piece]) -> Each:
    """`each` where it pays and other machines can read the pieces."""
    return each if len(pieces) > 1 and all(piece.anywhere for piece in pieces) else one_by_one


def starts(pieces: Sequence[Known]) -> list[int]:
    """Index in its split of each piece's first row."""
    return [0, *accumulate(piece.rows for piece in pieces)][:-1]
