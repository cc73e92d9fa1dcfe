"""A plan and the receipts of all its shards become a manifest: the cache is whole.

Knows nothing about who fills the plan. The manifest is small, whatever the number of shards; the table of shards
lies beside it.
"""

import hashlib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from kdray.cache.codec import TEMPERATURES
from kdray.cache.plan import Plan, parse_schema, slot_ranges
from kdray.cache.receipts import decode_table, encode_table, list_shards, places
from kdray.cache.shard import TAG, Schema
from kdray.copies import SpoiltError, check_file
from kdray.errors import CacheError
from kdray.storage import Store

KIND = "caches"
_TABLE = "shards.arrow"
"""The table of a cache whose manifest does not name it, as kdray once wrote them."""


def make_manifest(plan: Plan, receipts: np.ndarray, folder: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """Writes the table of shards, in the plan's order, into `folder`; returns the manifest with `facts` in it.

    `receipts` are sorted by key. Raises CacheError where a slot is not filled: a manifest means that every row is
    there, once.
    """
    found = places(receipts["key"], plan.keys)
    wrong = np.flatnonzero((found < 0) | (receipts["rows"][found] != plan.sizes if len(receipts) else True))
    if len(wrong):
        slot = plan[int(wrong[0])]
        raise CacheError(f"{slot} are not in the cache (shard {slot.key})")
    table = receipts[found]
    encoded = memoryview(encode_table(table))
    checksum = hashlib.sha256(encoded).hexdigest()
    name = f"shards-{checksum[:TAG]}.arrow"  # two fills that publish at once do not replace each other's
    (folder / name).write_bytes(encoded)
    targets = int(table["targets"].sum())
    kl = table["kl"].sum(0) / max(1, targets)
    return {
        "schema": asdict(plan.schema), "rows_per_shard": plan.rows_per_shard, "rows": plan.rows, "shards": len(plan),
        "table": name, "table_sha256": checksum, "targets": targets, "bytes": int(table["bytes"].sum()),
        "teacher_seconds": round(float(table["seconds"].sum(dtype="f8")), 3),
        "codec_error": {"largest_logit": float(table["largest"].max(initial=0)),
                        "kl": {str(temperature): float(value) for temperature, value in zip(
                            TEMPERATURES, kl, strict=True)}},
        **facts,
    }


def shard_table(store: Store, manifest: dict[str, Any]) -> np.ndarray:
    """The shards of a cache in the order of its rows, split after split: an array of RECEIPT.

    Those of an ensemble are its members', one after another.
    """
    return _tables(store, manifest, _kept)


def stored_table(store: Store, manifest: dict[str, Any]) -> np.ndarray:
    """`shard_table`, read where it is stored, whatever this machine has a copy of.

    Raises CacheError where it is missing or corrupt.
    """
    return _tables(store, manifest, _stored)


def _tables(store: Store, manifest: dict[str, Any],
            read: Callable[[Store, dict[str, Any]], np.ndarray]) -> np.ndarray:
    """The cache's table, or those of an ensemble's members, one after another."""
    if "members" not in manifest:
        return read(store, manifest)
    members = [store.manifest(KIND, key) for key in manifest["members"]]
    return np.concatenate([_tables(store, member, read) for member in members if member])


def _kept(store: Store, manifest: dict[str, Any]) -> np.ndarray:
    return decode_table((store.fetch(KIND, manifest["key"]) / manifest.get("table", _TABLE)).read_bytes())


def _stored(store: Store, manifest: dict[str, Any]) -> np.ndarray:
    parts = KIND, manifest["key"], manifest.get("table", _TABLE)
    try:
        check_file(store, parts, manifest["table_sha256"])
    except (FileNotFoundError, SpoiltError) as error:
        what = "missing" if isinstance(error, FileNotFoundError) else "corrupt"
        raise CacheError(f"{store.uri_of(*parts)}, the table of the cache's shards, is {what}. Delete the folder of "
                         "the cache and fill it again: shards that are whole are kept") from error
    return decode_table(store.read(*parts))


def split_shards(manifest: dict[str, Any], split: str) -> slice:
    """Where a split's shards are in the table."""
    if split not in manifest["rows"]:
        raise CacheError(f"cache {manifest['key']} has no split {split!r}, it has {', '.join(manifest['rows'])}")
    part = slot_ranges(manifest["rows"], manifest["rows_per_shard"])[split]
    return slice(part.start, part.stop)


def find_cache(store: Store, start: str) -> str:
    """Key of the one cache whose key begins with `start`. Raises CacheError where there is none, or several."""
    found = [key for key in store.names(KIND) if key.startswith(start)]
    if len(found) != 1:
        what = f"{len(found)} caches begin" if found else "no cache begins"
        raise CacheError(f"{what} with {start!r} in {store.uri}. `kdray cache ls --storage {store.uri}` lists them")
    return found[0]


def missing_shards(store: Store, manifest: dict[str, Any]) -> list[str]:
    """Keys of the cache's shards whose file is not there, or not as long as it was."""
    table = shard_table(store, manifest)
    return [key.decode() for key in table["key"][~list_shards(store, table["key"]).has(table)]]


def same_schema(store: Store, schema: Schema) -> list[dict[str, Any]]:
    """Manifests of all caches whose shards have this schema."""
    made = [store.manifest(KIND, key) for key in store.names(KIND)]
    return [manifest for manifest in made if manifest and parse_schema(manifest["schema"]) == schema]
