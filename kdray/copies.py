"""A file becomes mapped bytes that have the right checksum; one in remote storage, by a copy on this machine.

Knows nothing about what is in it. The copies of all processes of a machine are in one folder, each downloaded once;
those not opened for longest go. Invariant: what has a copy's name is whole.
"""

import contextlib
import hashlib
import os
import re
from pathlib import Path

import pyarrow as pa

from kdray.kept import COPIES, PARTIAL, evict, rarely
from kdray.storage import Store, machine_folder, machine_lock, storage_errors


class SpoiltError(Exception):
    """The bytes of a file do not have the checksum that they should have."""

    def __init__(self, size: int):
        super().__init__(f"{size} bytes")
        self.bytes = size


def mapped(path: Path, sha256: str) -> pa.Buffer:
    """A file's bytes, memory-mapped. Raises FileNotFoundError, or SpoiltError where `sha256` is not their checksum."""
    data = pa.memory_map(str(path)).read_buffer()
    if hashlib.sha256(data).hexdigest() != sha256:
        raise SpoiltError(data.size)
    return data


def file_bytes(store: Store, parts: tuple[str, ...], sha256: str) -> pa.Buffer:
    """The bytes of a file in storage, memory-mapped; of one in remote storage, this machine's copy.

    Raises FileNotFoundError where there is no such file, SpoiltError where `sha256` is not the checksum of its bytes.
    """
    return mapped(Path(store.path(*parts)), sha256) if store.local else local_copy(store, parts, sha256)


def check_file(store: Store, parts: tuple[str, ...], sha256: str) -> None:
    """Reads a file where it is stored, whatever this machine has a copy of; raises as `file_bytes` does."""
    if store.local:
        mapped(Path(store.path(*parts)), sha256)
        return
    data = store.read(*parts)
    if hashlib.sha256(data).hexdigest() != sha256:
        raise SpoiltError(len(data))


def local_copy(store: Store, parts: tuple[str, ...], sha256: str) -> pa.Buffer:
    """The bytes of a file in storage, mapped from this machine's copy; a copy that is spoilt is downloaded anew.

    Raises FileNotFoundError where storage has no such file, SpoiltError where it has other bytes.
    """
    folder = copies()
    path = folder / f"{_checksum(sha256)}-{Path(store.path(*parts)).name}"
    with storage_errors(str(folder), "TMPDIR"), machine_lock(folder / f".lock-{sha256[:2]}"):
        with contextlib.suppress(FileNotFoundError, SpoiltError):
            data = mapped(path, sha256)
            os.utime(path)
            return data
        data = _download(store, parts, sha256, path)
    if rarely(int(sha256[:8], 16) / 2**32, data.size):
        evict(machine_folder())
    return data


def _checksum(sha256: str) -> str:
    """`sha256`, which a manifest may say, as a part of a name. Raises SpoiltError where it is none."""
    if not re.fullmatch("[0-9a-f]{64}", sha256):
        raise SpoiltError(0)
    return sha256


def copies() -> Path:
    """The folder of this machine's copies."""
    return machine_folder() / COPIES


def _download(store: Store, parts: tuple[str, ...], sha256: str, path: Path) -> pa.Buffer:
    """Maps the bytes before they have the name under which another process may evict them."""
    data, partial = store.read(*parts), path.with_name(PARTIAL + path.name)
    try:
        partial.write_bytes(data)
        copy = mapped(partial, sha256)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return copy
