"""Logits of some rows become one Arrow file named by what it was made from, and back.

Knows nothing about actors, nor about where in a split its rows are.
"""

import hashlib
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from kdray.errors import CacheError
from kdray.storage import Store, content_key

KIND = "shards"
_DIGEST = b"sha256"


@dataclass(frozen=True)
class Schema:
    """What, besides its rows, a shard's logits depend on: its key covers all of it."""

    teacher: str
    """Fingerprint of weights, config and tokenizer."""
    task: str
    labels: tuple[str, ...]
    max_length: int
    precision: str


@dataclass(frozen=True)
class Receipt:
    """What is known of a shard that is in the cache."""

    key: str
    rows: int
    bytes: int
    sha256: str


def shard_key(schema: Schema, rows_digest: str) -> str:
    """Content key of the shard with these rows."""
    return content_key({**asdict(schema), "labels": list(schema.labels), "rows": rows_digest})


def shard_path(key: str) -> tuple[str, str, str]:
    """Parts of a shard's path below the storage."""
    return KIND, key[:2], f"{key}.arrow"


def encode_shard(logits: list[np.ndarray], targets: list[np.ndarray]) -> pa.Buffer:
    """Arrow IPC of one row a corpus row: `targets` (list of units), `logits` (targets x labels values, flat).

    Raises CacheError with the first row, counted from the shard's start, whose logits are not finite.
    """
    for row, values in enumerate(logits):
        if not np.isfinite(values).all():
            raise CacheError(f"row {row} of the shard has teacher logits that are not finite "
                             f"({values[~np.isfinite(values)][0]}). Check the teacher, or set "
                             "teacher.precision: float32")
    table = pa.table({
        "targets": _lists([np.asarray(row, np.int32) for row in targets], pa.int32()),
        "logits": _lists([row.astype(np.float32).ravel() for row in logits], pa.float32()),
    })
    table = table.replace_schema_metadata({_DIGEST: _digest(table)})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def write_shard(store: Store, key: str, data: pa.Buffer, rows: int) -> Receipt:
    """Publishes a shard atomically."""
    store.write(memoryview(data), *shard_path(key))
    return Receipt(key, rows, data.size, hashlib.sha256(data).hexdigest())


def find_shard(store: Store, key: str, rows: int) -> Receipt | None:
    """The receipt of a shard that somebody wrote before; None where it is missing, torn or of other rows."""
    try:
        data = store.read(*shard_path(key))
        table = pa.ipc.open_file(pa.py_buffer(data)).read_all()
    except (FileNotFoundError, pa.ArrowInvalid):
        return None
    if table.num_rows != rows or (table.schema.metadata or {}).get(_DIGEST) != _digest(table):
        return None
    return Receipt(key, rows, len(data), hashlib.sha256(data).hexdigest())


def open_shard(store: Store, receipt: Receipt) -> pa.Table:
    """A shard's table, memory-mapped on local storage.

    Raises CacheError where the file is missing, or its bytes are not those of the receipt.
    """
    where = store.path(*shard_path(receipt.key))
    remedy = "Delete the file, if it is there, and run again: only this shard is computed anew"
    try:
        data: Any = pa.memory_map(where).read_buffer() if store.local else pa.py_buffer(
            store.read(*shard_path(receipt.key)))
    except FileNotFoundError as error:
        raise CacheError(f"shard {where} is missing. {remedy}") from error
    if hashlib.sha256(data).hexdigest() != receipt.sha256:
        raise CacheError(f"shard {where} is corrupt: {data.size} bytes that do not match the checksum of the "
                         f"{receipt.bytes} bytes in the manifest. {remedy}")
    return pa.ipc.open_file(pa.py_buffer(data)).read_all()


def _digest(table: pa.Table) -> bytes:
    """SHA-256 over the values, so that a shard can be trusted before a manifest has its checksum."""
    parts = [column.combine_chunks() for column in table.columns]
    values = [array.to_numpy().tobytes() for part in parts for array in (part.offsets, part.values)]
    return hashlib.sha256(b"".join(values)).hexdigest().encode()


def _lists(rows: list[np.ndarray], kind: pa.DataType) -> pa.ListArray:
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.concatenate(rows), kind))
