"""Logits of some rows become one Arrow file named by what it was made from and what is in it, and back.

Two processors may give logits that differ in the last place. A name has the checksum of the bytes in it, so that of two
fills at once neither replaces what the other has a receipt of, whatever the storage can do. Knows nothing about actors,
nor about where in a split its rows are.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa

from kdray.cache.codec import Loss, decode, encode, loss
from kdray.copies import SpoiltError, check_file, file_bytes
from kdray.corpus.rows import Ragged
from kdray.errors import CacheError
from kdray.storage import Store, content_key
from kdray.tasks import TASKS

KIND = "shards"
SUFFIX = ".arrow"
TAG = 16
"""Hex digits of the bytes' SHA-256 in a shard's name."""
_DIGEST, _LOSS, _COMPRESSION = b"sha256", b"loss", b"compression"


@dataclass(frozen=True)
class Schema:
    """What, besides its rows, a shard depends on: its key covers all of it."""

    teacher: str
    """Fingerprint of weights, config and tokenizer."""
    task: str
    labels: tuple[str, ...]
    max_length: int
    precision: str
    codec: str = "float32"
    compression: str = "none"


@dataclass(frozen=True)
class Receipt:
    """What is known of a shard that is in the cache."""

    key: str
    rows: int
    bytes: int
    sha256: str
    loss: Loss
    """What the codec changed."""


def shard_key(schema: Schema, rows_digest: str) -> str:
    """Content key of the shard with these rows."""
    return content_key({**asdict(schema), "labels": list(schema.labels), "rows": rows_digest})


def shard_path(key: str, sha256: str) -> tuple[str, str, str]:
    """Parts of the path below the storage of the shard whose bytes have that checksum."""
    return KIND, key[:2], f"{key}-{sha256[:TAG]}{SUFFIX}"


def encode_shard(logits: list[np.ndarray], targets: list[np.ndarray], schema: Schema) -> pa.Buffer:
    """Arrow IPC of one row a corpus row: `targets` (list of units), `logits` (targets x labels values, flat), and what
    the codec adds.

    Raises CacheError with the first row, counted from the shard's start, whose logits are not finite.
    """
    counts = np.array([len(row) for row in targets])
    values = np.concatenate(logits).reshape(-1, len(schema.labels)).astype(np.float32)
    wrong = np.flatnonzero(~np.isfinite(values).all(-1))
    if len(wrong):
        row, odd = np.searchsorted(np.cumsum(counts), wrong[0], side="right"), values[wrong[0]]
        raise CacheError(f"row {row} of the shard has teacher logits that are not finite "
                         f"({odd[~np.isfinite(odd)][0]}). Check the teacher, or set teacher.precision: float32")
    columns = encode(values, schema.codec)
    decoded = decode(columns["logits"], columns.get("scale"), columns.get("offset"))
    changed = loss(TASKS[schema.task].output.among(np.concatenate(targets)), values, decoded)
    table = pa.table({
        "targets": _lists(np.concatenate(targets).astype(np.int32), counts),
        **{name: _lists(column.ravel(), counts * (column.size // max(1, len(column))))
           for name, column in columns.items()},
    })
    facts = {_LOSS: json.dumps(asdict(changed)).encode(), _COMPRESSION: schema.compression.encode()}
    return _serialised(table.replace_schema_metadata({**facts, _DIGEST: _digest(table, facts[_LOSS])}))


def write_shard(store: Store, key: str, data: pa.Buffer) -> Receipt:
    """Publishes a shard atomically."""
    receipt = _receipt(key, data, pa.ipc.open_file(data).read_all())
    store.write(memoryview(data), *shard_path(key, receipt.sha256))
    return receipt


def find_shard(store: Store, name: str, rows: int) -> Receipt | None:
    """The receipt of a shard that somebody wrote before, as the file `name` without its suffix.

    None where it is missing, torn or of other rows. One that has no checksum in its name, as kdray once wrote them, is
    written again under its full name.
    """
    key, _, tag = name.partition("-")
    try:
        data = pa.py_buffer(store.read(KIND, key[:2], f"{name}{SUFFIX}"))
    except FileNotFoundError:
        return None
    found = _whole(key, data, rows)
    if found is None or tag == found.sha256[:TAG]:
        return found
    return None if tag else write_shard(store, key, data)


def _whole(key: str, data: pa.Buffer, rows: int) -> Receipt | None:
    """The receipt of a shard's bytes, None where they are not, all of them, those of one with so many rows."""
    try:
        table = pa.ipc.open_file(data).read_all()
        table.validate(full=True)
    except (pa.ArrowException, OSError):  # OSError: zstd on spoilt bytes
        return None
    facts = table.schema.metadata or {}
    if not {_DIGEST, _LOSS, _COMPRESSION} <= facts.keys() or facts[_DIGEST] != _digest(table, facts[_LOSS]):
        return None
    if table.num_rows != rows or not _serialised(table).equals(data):
        return None
    return _receipt(key, data, table)


def open_shard(store: Store, key: str, sha256: str, length: int) -> pa.Table:
    """A shard's table, memory-mapped; on remote storage, from a copy that this machine keeps.

    Raises CacheError where the file is missing, or its bytes are not the `length` bytes with that checksum.
    """
    with _faults(store, shard_path(key, sha256), length):
        data = file_bytes(store, shard_path(key, sha256), sha256)
    return pa.ipc.open_file(pa.py_buffer(data)).read_all()


def check_shard(store: Store, key: str, sha256: str, length: int) -> None:
    """Reads a shard in storage, whatever this machine has a copy of; raises as `open_shard` does."""
    with _faults(store, shard_path(key, sha256), length):
        check_file(store, shard_path(key, sha256), sha256)


@contextmanager
def _faults(store: Store, path: tuple[str, ...], length: int) -> Iterator[None]:
    where = store.path(*path)
    remedy = "Delete the file, if it is there, and run again: only this shard is computed anew"
    try:
        yield
    except FileNotFoundError as error:
        raise CacheError(f"shard {where} is missing. {remedy}") from error
    except SpoiltError as error:
        raise CacheError(f"shard {where} is corrupt: {error.bytes} bytes that do not match the checksum of the "
                         f"{length} bytes in the manifest. {remedy}") from error


class ShardView:
    """An opened shard, row by row."""

    def __init__(self, table: pa.Table, labels: int):
        self._columns = {name: Ragged(table.column(name)) for name in table.column_names}
        self._labels = labels

    def __getitem__(self, place: int) -> tuple[np.ndarray, np.ndarray]:
        """Units (targets,) and logits, float32 (targets, labels), of the shard's row `place`."""
        row = {name: column[place] for name, column in self._columns.items()}
        return row["targets"], decode(row["logits"].reshape(-1, self._labels), row.get("scale"), row.get("offset"))


def _receipt(key: str, data: pa.Buffer, table: pa.Table) -> Receipt:
    changed = json.loads(table.schema.metadata[_LOSS])
    return Receipt(key, table.num_rows, data.size, hashlib.sha256(data).hexdigest(),
                   Loss(**{**changed, "kl": tuple(changed["kl"])}))


def _serialised(table: pa.Table) -> pa.Buffer:
    """The one file that `table`, with its metadata, is written as."""
    compression = table.schema.metadata[_COMPRESSION].decode()
    options = pa.ipc.IpcWriteOptions(compression=None if compression == "none" else compression)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    return sink.getvalue()


def _digest(table: pa.Table, changed: bytes) -> bytes:
    """SHA-256 over the values and the loss, so that a shard can be trusted before a manifest has its checksum."""
    parts = [column.combine_chunks() for column in table.columns]
    values = [array.to_numpy().tobytes() for part in parts for array in (part.offsets, part.values)]
    return hashlib.sha256(b"".join([*values, changed])).hexdigest().encode()


def _lists(values: np.ndarray, counts: np.ndarray) -> pa.ListArray:
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values))
