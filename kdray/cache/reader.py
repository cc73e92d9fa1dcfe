"""A cache's manifest becomes soft targets addressed by row, memory-mapped shard by shard.

Knows nothing about students; rows are indices in a split.
"""

import numpy as np
import pyarrow as pa

from kdray.cache.manifest import KIND
from kdray.cache.shard import Receipt, open_shard
from kdray.corpus.rows import Ragged
from kdray.errors import CacheError
from kdray.storage import Store


class SoftTargets:
    """The teacher's raw logits for every row of one split."""

    def __init__(self, store: Store, key: str, split: str):
        manifest = store.manifest(KIND, key)
        if manifest is None:
            raise CacheError(f"there is no cache {key} in {store.uri}. Fill it first: kdray cache fill CONFIG")
        self._store = store
        self._receipts = [Receipt(**shard) for shard in manifest["splits"][split]]
        self._per_shard = manifest["rows_per_shard"]
        self._labels = len(manifest["schema"]["labels"])
        self._open: dict[int, tuple[Ragged, Ragged]] = {}

    def __len__(self) -> int:
        return sum(receipt.rows for receipt in self._receipts)

    def __getitem__(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        """Units (targets,) and logits (targets, labels) of a row, float32 views of the mapped file.

        Raises CacheError where the row's shard is missing or corrupt.
        """
        shard, place = divmod(int(row), self._per_shard)
        targets, logits = self._open.get(shard) or self._load(shard)
        return targets[place], logits[place].reshape(-1, self._labels)

    def _load(self, shard: int) -> tuple[Ragged, Ragged]:
        table: pa.Table = open_shard(self._store, self._receipts[shard])
        self._open[shard] = Ragged(table.column("targets")), Ragged(table.column("logits"))
        return self._open[shard]
