"""Soft targets are exactly what was written, across shards, for rows with any number of targets."""

from pathlib import Path

import numpy as np
import pytest

from kdray.cache.manifest import KIND, make_manifest
from kdray.cache.plan import KEY, Plan
from kdray.cache.reader import SoftTargets
from kdray.cache.receipts import latest, table_of
from kdray.cache.shard import Schema, encode_shard, write_shard
from kdray.errors import CacheError, StorageError
from kdray.storage import Store

LABELS = ("a", "b", "c")
PER_SHARD = 7


def publish(store: Store, name: str, logits: list, units: list) -> str:
    """A cache of one split whose shards have `name` in their keys; returns its key."""
    schema = Schema("fingerprint", "token-classification", LABELS, 32, "float32")
    count = -(-len(logits) // PER_SHARD)
    plan = Plan(schema, PER_SHARD, {"train": len(logits)}, np.array([f"{name}{i}" for i in range(count)], KEY))
    receipts = [(write_shard(store, slot.key, encode_shard(
        logits[slot.start:slot.stop], units[slot.start:slot.stop], schema)), 0.0) for slot in plan]
    with store.staging(KIND) as folder:
        store.publish(KIND, plan.key, folder, make_manifest(plan, latest([table_of(receipts)]), folder, {}))
    return plan.key


@pytest.fixture
def written(tmp_path) -> tuple[Store, str, list[np.ndarray], list[np.ndarray]]:
    random = np.random.default_rng(0)
    counts = random.integers(0, 5, 23)
    logits = [random.normal(size=(count, 3)).astype(np.float32) for count in counts]
    units = [np.sort(random.choice(9, count, replace=False)) for count in counts]
    store = Store(str(tmp_path))
    return store, publish(store, "shard", logits, units), logits, units


def test_every_row_is_given_back_exactly_in_any_order(written):
    store, key, logits, units = written
    soft = SoftTargets(store, key, "train")
    assert len(soft) == 23
    for row in np.random.default_rng(1).permutation(23):
        found_units, found = soft[row]
        assert found_units.tolist() == units[row].tolist()
        assert found.shape == logits[row].shape and np.array_equal(found, logits[row])


def test_a_reader_has_few_shards_mapped_and_keeps_those_that_it_read_last(written):
    store, key, logits, units = written
    soft = SoftTargets(store, key, "train", most=2)
    for row in np.random.default_rng(1).integers(0, 23, 300):
        found_units, found = soft[row]
        assert found_units.tolist() == units[row].tolist() and np.array_equal(found, logits[row])
        del found_units, found
        assert 1 <= len(mapped(store)) <= 2
    for row in (0, 7, 1, 14):
        soft[row]
    assert mapped(store) == ["shard0", "shard2"]


def mapped(store: Store) -> list[str]:
    """Keys of the store's shards that this process has mapped."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return sorted({Path(line.split()[-1]).name.partition("-")[0] for line in lines if store.root in line})


def test_a_corrupt_shard_stops_its_own_rows_only(written):
    store, key, logits, _ = written
    (path,) = Path(store.path("shards", "sh")).glob("shard1-*.arrow")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    soft = SoftTargets(store, key, "train")
    assert np.array_equal(soft[0][1], logits[0]) and np.array_equal(soft[14][1], logits[14])
    with pytest.raises(CacheError, match=r"shard1-\w+.arrow is corrupt"):
        soft[7]


def test_a_cache_that_is_not_there_says_how_to_fill_it(tmp_path):
    with pytest.raises(CacheError, match="kdray cache"):
        SoftTargets(Store(str(tmp_path)), "none", "train")


def test_a_cache_of_another_version_is_refused(written):
    store, key, *_ = written
    text = store.read(KIND, key, "manifest.json").replace(b'"version": 2', b'"version": 1')
    store.write(text, KIND, key, "manifest.json")
    with pytest.raises(StorageError, match="manifest version 1"):
        SoftTargets(store, key, "train")
