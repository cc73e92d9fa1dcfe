"""Soft targets are exactly what was written, across shards, for rows with any number of targets."""

from pathlib import Path

import numpy as np
import pytest

from kdray.cache.manifest import KIND, Slot, make_manifest
from kdray.cache.reader import SoftTargets
from kdray.cache.shard import Schema, encode_shard, shard_path, write_shard
from kdray.errors import CacheError, StorageError
from kdray.storage import Store

LABELS = ("a", "b", "c")
PER_SHARD = 7


def publish(store: Store, key: str, logits: list, units: list, split: str = "train") -> None:
    """A cache of one split."""
    schema = Schema("fingerprint", "token-classification", LABELS, 32, "float32")
    slots, receipts = [], {}
    for start in range(0, len(logits), PER_SHARD):
        slot = Slot(split, start, min(start + PER_SHARD, len(logits)), f"{key}{start:02d}")
        data = encode_shard(logits[slot.start:slot.stop], units[slot.start:slot.stop])
        receipts[slot.key] = write_shard(store, slot.key, data, slot.rows)
        slots.append(slot)
    with store.staging(KIND) as folder:
        store.publish(KIND, key, folder, make_manifest(schema, slots, receipts, PER_SHARD, {}, 0.0))


@pytest.fixture
def written(tmp_path) -> tuple[Store, list[np.ndarray], list[np.ndarray]]:
    random = np.random.default_rng(0)
    counts = random.integers(0, 5, 23)
    logits = [random.normal(size=(count, 3)).astype(np.float32) for count in counts]
    units = [np.sort(random.choice(9, count, replace=False)) for count in counts]
    store = Store(str(tmp_path))
    publish(store, "cache", logits, units)
    return store, logits, units


def test_every_row_is_given_back_exactly_in_any_order(written):
    store, logits, units = written
    soft = SoftTargets(store, "cache", "train")
    assert len(soft) == 23
    for row in np.random.default_rng(1).permutation(23):
        found_units, found = soft[row]
        assert found_units.tolist() == units[row].tolist()
        assert found.shape == logits[row].shape and np.array_equal(found, logits[row])


def test_a_corrupt_shard_stops_its_own_rows_only(written):
    store, logits, _ = written
    path = Path(store.path(*shard_path("cache07")))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    soft = SoftTargets(store, "cache", "train")
    assert np.array_equal(soft[0][1], logits[0]) and np.array_equal(soft[14][1], logits[14])
    with pytest.raises(CacheError, match=r"cache07.arrow is corrupt"):
        soft[7]


def test_a_cache_that_is_not_there_says_how_to_fill_it(tmp_path):
    with pytest.raises(CacheError, match="kdray cache"):
        SoftTargets(Store(str(tmp_path)), "none", "train")


def test_a_cache_of_another_version_is_refused(written):
    store, *_ = written
    text = store.read(KIND, "cache", "manifest.json").replace(b'"version": 1', b'"version": 2')
    store.write(text, KIND, "cache", "manifest.json")
    with pytest.raises(StorageError, match="manifest version 2"):
        SoftTargets(store, "cache", "train")
