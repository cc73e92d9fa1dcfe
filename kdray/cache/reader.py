"""A cache's manifest becomes soft targets addressed by row, memory-mapped shard by shard.

Knows nothing about students; rows are indices in a split.
"""

from collections import OrderedDict

import numpy as np

from kdray.cache.manifest import KIND, shard_table, split_shards
from kdray.cache.receipts import open_listed
from kdray.cache.shard import ShardView
from kdray.errors import CacheError
from kdray.storage import Store

MAPPED = 8192
"""Shards that a split has mapped at most. A process may have 65,530 mappings (Linux' vm.max_map_count unless changed),
and reads few splits."""


class SoftTargets:
    """The teacher's raw logits for every row of one split; the shards read last stay mapped."""

    def __init__(self, store: Store, key: str, split: str, most: int = MAPPED):
        manifest = store.manifest(KIND, key)
        if manifest is None:
            raise CacheError(f"there is no cache {key} in {store.uri}. Fill it first: kdray cache fill CONFIG")
        self._store = store
        self._rows = manifest["rows"].get(split, 0)
        self._shards = shard_table(store, manifest)[split_shards(manifest, split)]
        self._per_shard = manifest["rows_per_shard"]
        self._labels = len(manifest["schema"]["labels"])
        self._most, self._open = most, OrderedDict[int, ShardView]()

    def __len__(self) -> int:
        return self._rows

    def __getitem__(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        """Units (targets,) and logits, float32 (targets, labels), of a row: views of the mapped file where it can be.

        Raises CacheError where the row's shard is missing or corrupt.
        """
        number, place = divmod(int(row), self._per_shard)
        view = self._open.get(number)
        if view is not None:
            self._open.move_to_end(number)
            return view[place]
        if len(self._open) >= self._most:
            self._open.popitem(last=False)
        view = self._open[number] = ShardView(open_listed(self._store, self._shards[number]), self._labels)
        return view[place]
