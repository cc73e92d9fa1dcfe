"""Garbage is what nothing names and nobody may still want; all else stays."""

import os
import time
from pathlib import Path

import numpy as np
import pytest

from kdray.cache.codec import Loss
from kdray.cache.garbage import garbage, remove
from kdray.cache.manifest import KIND, make_manifest
from kdray.cache.plan import KEY, Plan, write_plan
from kdray.cache.receipts import FILLS, Journal, latest, table_of
from kdray.cache.shard import Receipt, Schema, shard_path
from kdray.storage import Store

SCHEMA = Schema("t", "sequence-classification", ("a", "b"), 24, "float32")
HOUR = 3600.0
SHA256 = "ab" * 32


@pytest.fixture
def store(tmp_path) -> Store:
    """Shards aa1 to aa4, and a leftover of a dead writer, all two hours old."""
    store = Store(str(tmp_path))
    for key in ("aa1", "aa2", "aa3", "aa4"):
        store.write(b"x" * 10, *shard_path(key, SHA256))
        age(store, shard_path(key, SHA256))
    store.write(b"y", "shards", "aa", ".tmp-1")
    age(store, ("shards", "aa", ".tmp-1"))
    return store


def age(store: Store, parts: tuple[str, ...], hours: float = 2) -> None:
    then = time.time() - hours * HOUR
    os.utime(store.path(*parts), (then, then))


def plan(*keys: str) -> Plan:
    return Plan(SCHEMA, 5, {"train": 5 * len(keys)}, np.array(keys, KEY))


def publish(store: Store, *keys: str) -> None:
    made = plan(*keys)
    receipts = latest([table_of((Receipt(slot.key, 5, 10, SHA256, Loss(5, 0.0, (0.0,) * 4)), 0.0) for slot in made)])
    with store.staging(KIND) as folder:
        store.publish(KIND, made.key, folder, make_manifest(made, receipts, folder, {}))


def names(store: Store, grace: float = HOUR) -> list[str]:
    return sorted(map(short, [file.name for file in garbage(store, grace)]))


def short(name: str) -> str:
    """A shard's key, or the name of what is none."""
    return name.removesuffix(f"-{SHA256[:16]}.arrow")


def test_what_no_manifest_names_is_garbage_and_so_are_leftovers(store):
    publish(store, "aa1", "aa2")
    publish(store, "aa2", "aa4")
    assert names(store) == [".tmp-1", "aa3"]
    found = garbage(store, HOUR)
    assert remove(store, found, HOUR) == found and sum(file.bytes for file in found) == 11
    assert sorted(short(path.name) for path in Path(store.path("shards", "aa")).iterdir()) == ["aa1", "aa2", "aa4"]


def test_a_shard_that_another_fill_computed_otherwise_is_garbage_where_no_manifest_names_it(store):
    store.write(b"z" * 10, *shard_path("aa1", "cd" * 32))
    age(store, shard_path("aa1", "cd" * 32))
    publish(store, "aa1", "aa2", "aa3", "aa4")
    assert names(store) == [".tmp-1", "aa1-cdcdcdcdcdcdcdcd.arrow"]
    Journal(store, plan("aa1"), "plan-key")
    write_plan(store, "plan-key", plan("aa1"), "corpus")
    assert names(store) == [".tmp-1"], "a fill may still want it"


def test_a_shard_that_was_written_before_names_had_checksums_is_kept_for_the_next_fill(store):
    for key in ("aa1", "aa9"):
        store.write(b"x" * 10, "shards", "aa", f"{key}.arrow")
        age(store, ("shards", "aa", f"{key}.arrow"))
    publish(store, "aa1", "aa2", "aa3", "aa4")
    assert names(store) == [".tmp-1", "aa9.arrow"]


def test_an_empty_storage_has_no_garbage(tmp_path):
    assert garbage(Store(str(tmp_path)), 0) == []


def test_what_is_young_may_be_on_its_way_into_a_manifest(store):
    assert names(store, grace=3 * HOUR) == []
    assert names(store) == [".tmp-1", "aa1", "aa2", "aa3", "aa4"]


def test_a_fill_keeps_its_plan_while_its_journal_moves(store):
    wanted = plan("aa1", "aa3")
    write_plan(store, "plan-key", wanted, "corpus")
    Journal(store, wanted, "plan-key")
    assert names(store) == [".tmp-1", "aa2", "aa4"]
    assert names(store, grace=0) == [".tmp-1", "aa2", "aa4"], "no grace is still no licence to harm a fill"
    age(store, (FILLS, wanted.key, "plan"))
    assert "aa1" in names(store) and "aa3" in names(store)


def test_what_is_named_after_the_search_is_not_removed(store):
    found = garbage(store, HOUR)
    publish(store, "aa3")
    assert sorted(short(file.name) for file in remove(store, found, HOUR)) == [".tmp-1", "aa1", "aa2", "aa4"]


def test_a_file_in_the_writing_is_left_alone_whatever_the_grace(store):
    age(store, ("shards", "aa", ".tmp-1"), hours=0.5)
    assert ".tmp-1" not in names(store, grace=0)
