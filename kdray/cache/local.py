"""A file in remote storage becomes a copy on this machine, downloaded once, within bounds.

Knows nothing about what is in it. The copies of all processes of a machine are in one folder; those not read for
longest go first. A process that has one mapped keeps it after it is gone.
"""

import fcntl
import os
import tempfile
from pathlib import Path

from kdray.storage import Store, content_key

LIMIT = "KDRAY_LOCAL_GIB"
"""Environment variable: GiB of copies that a machine keeps."""
_DEFAULT_GIB = 10.0


def local_copy(store: Store, parts: tuple[str, ...], sha256: str) -> Path:
    """The local copy of a file whose bytes have the checksum `sha256`.

    Raises FileNotFoundError where storage has no such file.
    """
    folder = copies(store)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{sha256}-{parts[-1]}"
    with open(folder / f".lock-{sha256[:2]}", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if path.exists():
            os.utime(path)
            return path
        _download(store, parts, path)
    _evict(folder, float(os.environ.get(LIMIT, _DEFAULT_GIB)) * 2**30, path)
    return path


def copies(store: Store) -> Path:
    """The folder of this machine's copies of what `store` holds."""
    return Path(tempfile.gettempdir()) / "kdray" / content_key(store.uri) / "copies"


def _download(store: Store, parts: tuple[str, ...], path: Path) -> None:
    partial = path.with_name(f".tmp-{path.name}")
    partial.write_bytes(store.read(*parts))
    os.replace(partial, path)


def _evict(folder: Path, limit: float, keep: Path) -> None:
    found = []
    for path in folder.glob("*.arrow"):
        try:
            facts = path.stat()
        except FileNotFoundError:
            continue
        found.append((facts.st_mtime, facts.st_size, path))
    total = sum(size for _, size, _ in found)
    for _, size, path in sorted(found):
        if total <= limit:
            return
        if path != keep:
            path.unlink(missing_ok=True)
            total -= size
