"""Receipts of shards become a table that a million of them fit in, kept while a cache is being filled.

Knows nothing about rows. Invariant: a receipt in a journal is that of a shard that was whole when it was written.
"""

import contextlib
import time
import uuid
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from kdray.cache.codec import TEMPERATURES
from kdray.cache.plan import KEY, Plan
from kdray.cache.shard import KIND as SHARDS
from kdray.cache.shard import SUFFIX, TAG, Receipt, check_shard, open_shard
from kdray.storage import Store

FILLS = "fills"
PLAN = "plan"
"""File of a journal: the key of the plan that is being filled."""
RECEIPT = np.dtype([("key", KEY), ("rows", "i4"), ("bytes", "i8"), ("sha256", "V32"), ("seconds", "f4"),
                    ("targets", "i4"), ("largest", "f4"), ("kl", "f4", (len(TEMPERATURES),))])
"""One shard: its receipt, and the seconds that a teacher was busy with it (0 where nobody knows)."""
NAME = np.dtype("S64")
"""Name of a shard's file: longer than any, so that none is taken for another that it begins with."""
_FLUSH_ROWS, _FLUSH_SECONDS = 1000, 5.0
_LISTERS = 8
_PARTS = 1000
"""Files of a journal beyond which they are merged into one."""


def table_of(receipts: Iterable[tuple[Receipt, float]]) -> np.ndarray:
    """Receipts and seconds as an array of RECEIPT."""
    return np.array([(made.key, made.rows, made.bytes, bytes.fromhex(made.sha256), seconds, made.loss.targets,
                      made.loss.largest, made.loss.kl) for made, seconds in receipts], RECEIPT)


def encode_table(receipts: np.ndarray) -> pa.Buffer:
    """The table as an Arrow IPC file."""
    columns: dict[str, Any] = {}
    for name in RECEIPT.names or ():
        values = np.ascontiguousarray(receipts[name])
        if values.dtype.kind in "SV":
            kind = pa.binary(values.dtype.itemsize)
            columns[name] = pa.FixedSizeBinaryArray.from_buffers(kind, len(values), [None, pa.py_buffer(values)])
        elif values.ndim == 2:
            columns[name] = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])
        else:
            columns[name] = pa.array(values)
    table = pa.table(columns)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def decode_table(data: Any) -> np.ndarray:
    """The table in the bytes of an Arrow IPC file."""
    table = pa.ipc.open_file(pa.py_buffer(data)).read_all()
    receipts = np.empty(table.num_rows, RECEIPT)
    for name in RECEIPT.names or ():
        column, kind = table.column(name).combine_chunks(), RECEIPT[name]
        if kind.shape:
            receipts[name] = column.values.to_numpy().reshape(-1, *kind.shape)
        elif kind.kind not in "SV":
            receipts[name] = column.to_numpy()
        elif table.num_rows:
            receipts[name] = np.frombuffer(column.buffers()[1], kind, table.num_rows)
    return receipts


def open_listed(store: Store, shard: np.void) -> pa.Table:
    """The shard of one row of a table, opened. Raises CacheError where it is missing or corrupt."""
    return open_shard(store, *_listed(shard))


def check_listed(store: Store, shard: np.void) -> None:
    """Reads the shard of one row of a table where it is stored. Raises CacheError where it is missing or corrupt."""
    check_shard(store, *_listed(shard))


def _listed(shard: np.void) -> tuple[str, str, int]:
    return shard["key"].decode(), shard["sha256"].tobytes().hex(), int(shard["bytes"])


def latest(tables: list[np.ndarray]) -> np.ndarray:
    """One receipt a key, sorted by key; where several have it, the last."""
    filled = [table for table in tables if len(table)]
    if len(filled) == 1 and (filled[0]["key"][1:] > filled[0]["key"][:-1]).all():
        return filled[0]
    whole = np.concatenate([np.empty(0, RECEIPT), *filled])[::-1]
    return whole[np.unique(whole["key"], return_index=True)[1]]


def places(ordered: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Index of each of the `wanted` in an `ordered` array of texts, -1 where it is not there."""
    found = np.full(len(wanted), -1)
    if len(ordered) == 0:
        return found
    order = np.argsort(wanted, kind="stable")  # sorted ones are looked up 15 times faster
    nearest = np.minimum(np.searchsorted(ordered, wanted[order]), len(ordered) - 1)
    found[order] = np.where(ordered[nearest] == wanted[order], nearest, -1)
    return found


@dataclass(frozen=True)
class Listing:
    """Files that are in storage where shards are, in the order of their names."""

    names: np.ndarray
    """(files,): without the suffix."""
    keys: np.ndarray
    """(files,): key of the shard that each is named as."""
    bytes: np.ndarray

    def has(self, receipts: np.ndarray) -> np.ndarray:
        """(receipts,): whether the file of each is there, and as long as it was."""
        found = places(self.names, names_of(receipts))
        return (found >= 0) & (self.bytes[found] == receipts["bytes"] if len(self.bytes) else False)

    def candidates(self, key: str) -> Iterator[str]:
        """Names of the files that may be the shard with that key."""
        for place in range(int(np.searchsorted(self.keys, key.encode())), len(self.keys)):
            if self.keys[place] != key.encode():
                return
            yield self.names[place].decode()


def names_of(receipts: np.ndarray) -> np.ndarray:
    """(receipts,): name of each shard's file, without the suffix."""
    tags = receipts["sha256"].tobytes().hex()
    digits = np.frombuffer(tags.encode(), f"S{2 * RECEIPT['sha256'].itemsize}").astype(f"S{TAG}")
    return np.char.add(np.char.add(receipts["key"], b"-"), digits).astype(NAME)


def list_shards(store: Store, keys: np.ndarray) -> Listing:
    """What is in the folders where the shards with these keys are; no other is listed."""
    folders = np.unique(keys.astype("S2")).tolist()
    with ThreadPoolExecutor(_LISTERS) as listers:
        found = list(listers.map(lambda folder: store.files(SHARDS, folder.decode()), folders))
    listed = [name.removesuffix(SUFFIX) for files, _, _ in found for name in files]
    names, keys = np.array(listed, NAME), np.array([name.partition("-")[0] for name in listed], KEY)
    sizes, order = np.array([size for _, part, _ in found for size in part], np.int64), np.argsort(names)
    return Listing(names[order], keys[order], sizes[order])


def journal_parts(store: Store, cache: str) -> dict[str, np.ndarray]:
    """Tables of the journal of the cache with the key `cache`, by file, oldest first; none where there is none."""
    parts = {}
    for name in store.names(FILLS, cache):
        if name.endswith(".arrow"):
            with contextlib.suppress(FileNotFoundError):  # another run has merged it into a later one
                parts[name] = decode_table(store.read(FILLS, cache, name))
    return parts


class Journal:
    """Receipts of a cache that is being filled, written every few seconds; gone when its manifest is there."""

    def __init__(self, store: Store, plan: Plan, plan_key: str):
        self._store, self._cache = store, plan.key
        self._new: list[tuple[Receipt, float]] = []
        self._written = time.monotonic()
        store.write(plan_key.encode(), FILLS, self._cache, PLAN)
        parts = journal_parts(store, self._cache)
        self._tables = [latest(list(parts.values()))]
        if len(parts) > _PARTS:
            self._write(self._tables[0])
            for name in parts:
                store.delete(FILLS, self._cache, name)

    def receipts(self) -> np.ndarray:
        """Writes what is new; returns every receipt, sorted by key."""
        self.flush()
        self._tables = [latest(self._tables)]
        return self._tables[0]

    def add(self, receipt: Receipt, seconds: float) -> None:
        """Notes a finished shard."""
        self._new.append((receipt, seconds))
        if len(self._new) >= _FLUSH_ROWS or time.monotonic() - self._written > _FLUSH_SECONDS:
            self.flush()

    def vouch(self, receipts: np.ndarray) -> None:
        """Notes shards that another cache has receipts of; writes nothing."""
        self._tables.append(receipts)

    def flush(self) -> None:
        """Writes what is new."""
        if self._new:
            self._tables.append(table_of(self._new))
            self._new = []
            self._write(self._tables[-1])
        self._written = time.monotonic()

    def remove(self) -> None:
        """The manifest is there, the journal is not needed any more; what another run writes later, it removes."""
        self._store.delete_folder(FILLS, self._cache)

    def _write(self, receipts: np.ndarray) -> None:
        name = f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}.arrow"
        self._store.write(memoryview(encode_table(receipts)), FILLS, self._cache, name)
