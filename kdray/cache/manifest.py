"""The rows of a corpus become a plan of shards, and receipts of all of them a manifest.

Knows nothing about who fills the plan.
"""

from dataclasses import asdict, dataclass
from typing import Any

from kdray.cache.shard import Receipt, Schema, shard_key, shard_path
from kdray.corpus.rows import Rows
from kdray.errors import CacheError
from kdray.storage import Store, content_key

KIND = "caches"


@dataclass(frozen=True)
class Slot:
    """A place for one shard: rows `start` to `stop` of a split."""

    split: str
    start: int
    stop: int
    key: str

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.stop - self.start

    def __str__(self) -> str:
        return f"rows {self.start} to {self.stop - 1} of the {self.split} split"


def plan(schema: Schema, splits: dict[str, Rows], rows_per_shard: int) -> list[Slot]:
    """The slots of all splits, in order."""
    return [
        Slot(split, start, stop, shard_key(schema, rows.digest(start, stop)))
        for split, rows in splits.items()
        for start in range(0, len(rows), rows_per_shard)
        for stop in [min(start + rows_per_shard, len(rows))]
    ]


def cache_key(slots: list[Slot]) -> str:
    """Content key of the cache with these slots."""
    return content_key([[slot.split, slot.key] for slot in slots])


def make_manifest(schema: Schema, slots: list[Slot], receipts: dict[str, Receipt], rows_per_shard: int,
                  parents: dict[str, str], teacher_seconds: float) -> dict[str, Any]:
    """The manifest of a cache whose every slot is filled.

    Raises CacheError where one is not: a manifest means that every row is there, once.
    """
    for slot in slots:
        receipt = receipts.get(slot.key)
        if receipt is None or receipt.rows != slot.rows:
            raise CacheError(f"{slot} are not in the cache (shard {slot.key})")
    splits: dict[str, list[dict[str, Any]]] = {}
    for slot in slots:
        splits.setdefault(slot.split, []).append(asdict(receipts[slot.key]))
    return {"parents": parents, "schema": asdict(schema), "rows_per_shard": rows_per_shard,
            "teacher_seconds": round(teacher_seconds, 3), "splits": splits}


def missing_shards(store: Store, manifest: dict[str, Any]) -> list[str]:
    """Keys of the manifest's shards whose file is not there, or not as long as it was."""
    return [shard["key"] for shards in manifest["splits"].values() for shard in shards
            if store.size(*shard_path(shard["key"])) != shard["bytes"]]
