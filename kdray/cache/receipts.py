"""Receipts of shards become a table that a million of them fit in, kept while a cache is being filled.

Knows nothing about rows. Invariant: a receipt in a journal is that of a shard that was whole when it was written.
"""

import contextlib
import time
import uuid
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from kdray.cache.codec import TEMPERATURES
from kdray.cache.plan import KEY, Plan
from kdray.cache.shard import KIND as SHARDS
from kdray.cache.shard import Receipt, open_shard
from kdray.storage import Store

FILLS = "fills"
TABLE = "shards.arrow"
PLAN = "plan"
"""File of a journal: the key of the plan that is being filled."""
RECEIPT = np.dtype([("key", KEY), ("rows", "i4"), ("bytes", "i8"), ("sha256", "V32"), ("seconds", "f4"),
                    ("targets", "i4"), ("largest", "f4"), ("kl", "f4", (len(TEMPERATURES),))])
"""One shard: its receipt, and the seconds that a teacher was busy with it (0 where nobody knows)."""
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
    return open_shard(store, shard["key"].decode(), shard["sha256"].tobytes().hex(), int(shard["bytes"]))


def latest(tables: list[np.ndarray]) -> np.ndarray:
    """One receipt a key, sorted by key; where several have it, the last."""
    filled = [table for table in tables if len(table)]
    if len(filled) == 1 and (filled[0]["key"][1:] > filled[0]["key"][:-1]).all():
        return filled[0]
    whole = np.concatenate([np.empty(0, RECEIPT), *filled])[::-1]
    return whole[np.unique(whole["key"], return_index=True)[1]]


def places(receipts: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Index of each key in `receipts` (sorted by key), -1 where it is not there."""
    found = np.full(len(keys), -1)
    if len(receipts) == 0:
        return found
    order = np.argsort(keys, kind="stable")  # sorted keys are looked up 15 times faster
    nearest = np.minimum(np.searchsorted(receipts["key"], keys[order]), len(receipts) - 1)
    found[order] = np.where(receipts["key"][nearest] == keys[order], nearest, -1)
    return found


def stored_bytes(store: Store, keys: np.ndarray) -> np.ndarray:
    """Bytes of the shard of each key in storage, -1 where there is none; only the folders of the keys are listed."""
    order = np.argsort(keys, kind="stable")
    ordered, sizes = keys[order], np.full(len(keys), -1, np.int64)
    folders = ordered.astype("S2")
    starts = np.flatnonzero(np.concatenate([np.ones(min(1, len(keys)), bool), folders[1:] != folders[:-1]]))
    with ThreadPoolExecutor(_LISTERS) as listers:
        listings = listers.map(lambda folder: store.files(SHARDS, folder.decode()), folders[starts].tolist())
    for (start, stop), (names, found, _) in zip(pairwise([*starts, len(keys)]), listings, strict=True):
        listed = np.array([name.removesuffix(".arrow") for name in names], KEY)
        by_name = np.argsort(listed)
        nearest = np.searchsorted(listed, ordered[start:stop], sorter=by_name)
        known = nearest < len(listed)
        known[known] = listed[by_name[nearest[known]]] == ordered[start:stop][known]
        sizes[order[start:stop][known]] = np.array(found, np.int64)[by_name[nearest[known]]]
    return sizes


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
