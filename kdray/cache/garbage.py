"""Shards that nothing names, and what dead writers left, are found and removed.

Knows nothing about teachers. In use is: what a cache's manifest names; what the plan of a fill names whose journal
changed within the grace; and whatever is younger than the grace.
"""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass

from kdray.cache.manifest import KIND as CACHES
from kdray.cache.manifest import shard_table
from kdray.cache.plan import read_plan
from kdray.cache.receipts import FILLS, PLAN, names_of
from kdray.cache.shard import KIND as SHARDS
from kdray.cache.shard import SUFFIX
from kdray.storage import Store

_BATCH = 1000
"""Files that are deleted on one look at what is in use."""
_RUNNING = 3600.0
"""Seconds for which a fill or a writer may be silent and is still taken to run, whatever the grace."""


@dataclass(frozen=True)
class Found:
    """A file that can go."""

    folder: str
    name: str
    bytes: int


def garbage(store: Store, grace: float) -> list[Found]:
    """Shards that are not in use and hidden leftovers below `shards/`, all unchanged for `grace` seconds."""
    return _unused(store, list(_old_files(store, grace)), grace)


def remove(store: Store, found: list[Found], grace: float) -> list[Found]:
    """Deletes what is still garbage, looking again before each batch; returns what it deleted."""
    gone = []
    for start in range(0, len(found), _BATCH):
        for file in _unused(store, found[start:start + _BATCH], grace):
            store.delete(SHARDS, file.folder, file.name)
            gone.append(file)
    return gone


def _unused(store: Store, files: list[Found], grace: float) -> list[Found]:
    wanted, named = _wanted(store, grace), _named(store)
    return [file for file in files if file.name[0] == "." or not (
        _shard(file) in named or _shard(file).partition(b"-")[0] in wanted)]


def _shard(file: Found) -> bytes:
    return file.name.removesuffix(SUFFIX).encode()


def _old_files(store: Store, grace: float) -> Iterator[Found]:
    for folder in store.names(SHARDS):
        for hidden in (False, True):
            before = time.time() - (max(grace, _RUNNING) if hidden else grace)
            for name, size, changed in zip(*store.files(SHARDS, folder, hidden=hidden), strict=True):
                if changed < before:
                    yield Found(folder, name, size)


def _wanted(store: Store, grace: float) -> set[bytes]:
    """Keys of the shards that fills which run are after."""
    keys, before = set[bytes](), time.time() - max(grace, _RUNNING)
    for cache in store.names(FILLS):
        names, _, changed = store.files(FILLS, cache)
        if PLAN in names and max(changed) >= before:
            with contextlib.suppress(FileNotFoundError):  # the fill has ended since, its manifest is read later
                keys.update(read_plan(store, store.read(FILLS, cache, PLAN).decode()).keys.tolist())
    return keys


def _named(store: Store) -> set[bytes]:
    """Names of the shards of all caches, and their keys: as kdray once wrote shards, these were their names."""
    names = set[bytes]()
    for key in store.names(CACHES):
        manifest = store.manifest(CACHES, key)
        if manifest is not None:
            table = shard_table(store, manifest)
            names.update(names_of(table).tolist(), table["key"].tolist())
    return names
