"""A cache's manifest becomes soft targets addressed by row, memory-mapped shard by shard.

Knows nothing about students; rows are indices in a split.
"""

import numpy as np

from kdray.cache.manifest import KIND, shard_table, split_shards
from kdray.cache.receipts import open_listed
from kdray.cache.shard import ShardView
from kdray.errors import CacheError
from kdray.storage import Store


class SoftTargets:
    """The teacher's raw logits for every row of one split."""

    def __init__(self, store: Store, key: str, split: str):
        manifest = store.manifest(KIND, key)
        if manifest is None:
            raise CacheError(f"there is no cache {key} in {store.uri}. Fill it first: kdray cache fill CONFIG")
        self._store = store
        self._rows = manifest["rows"].get(split, 0)
        self._shards = shard_table(store, manifest)[split_shards(manifest, split)]
        self._per_shard = manifest["rows_per_shard"]
        self._labels = len(manifest["schema"]["labels"])
        self._open: dict[int, ShardView] = {}

    def __len__(self) -> int:
        return self._rows

    def __getitem__(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        """Units (targets,) and logits, float32 (targets, labels), of a row: views of the mapped file where it can be.

        Raises CacheError where the row's shard is missing or corrupt.
        """
        number, place = divmod(int(row), self._per_shard)
        view = self._open.get(number)
        if view is None:
            table = open_listed(self._store, self._shards[number])
            view = self._open[number] = ShardView(table, self._labels)
        return view[place]
