"""What is not in storage is found: nothing that is whole is made again, nothing that is torn is taken."""

from pathlib import Path

import numpy as np
import pytest

from kdray.cache.manifest import KIND, make_manifest
from kdray.cache.plan import KEY, Plan
from kdray.cache.receipts import Journal
from kdray.cache.shard import Receipt, Schema, encode_shard, shard_path, write_shard
from kdray.storage import Store
from kdray.teacher.fill import unfilled

SCHEMA = Schema("t", "sequence-classification", ("a", "b"), 24, "float32")
PLAN = Plan(SCHEMA, 5, {"train": 15, "test": 4}, np.array(["aa1", "aa2", "bb3", "aa4"], KEY))


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(str(tmp_path))


def write(store: Store, *places: int) -> list[Receipt]:
    receipts = []
    for slot in (PLAN[place] for place in places):
        logits = [np.float32([[slot.start, row]]) for row in range(slot.rows)]
        data = encode_shard(logits, [np.array([0])] * slot.rows, SCHEMA)
        receipts.append(write_shard(store, slot.key, data))
    return receipts


def missing(store: Store, journal: Journal | None = None, plan: Plan = PLAN) -> list[str]:
    return [slot.key for slot in unfilled(store, plan, journal or Journal(store, plan, "p"))]


def test_a_new_plan_is_all_missing_in_the_order_of_the_rows(store):
    assert missing(store) == ["aa1", "aa2", "bb3", "aa4"]


def test_what_lies_in_storage_is_found_and_noted(store):
    write(store, 0, 2)
    journal = Journal(store, PLAN, "p")
    assert missing(store, journal) == ["aa2", "aa4"]
    assert journal.receipts()["key"].tolist() == [b"aa1", b"bb3"]
    assert Journal(store, PLAN, "p").receipts()["key"].tolist() == [b"aa1", b"bb3"]


def test_what_the_journal_vouches_for_is_not_read_again(store):
    (receipt,) = write(store, 0)
    journal = Journal(store, PLAN, "p")
    journal.add(receipt, 1.0)
    path = Path(store.path(*shard_path("aa1", receipt.sha256)))
    path.write_bytes(b"?" * receipt.bytes)
    assert "aa1" not in missing(store, journal), "as long as it was: trusted until a reader checks its sum"
    path.write_bytes(b"?" * (receipt.bytes - 1))
    assert "aa1" in missing(store, journal)


def test_another_caches_shards_are_taken_with_the_seconds_that_they_cost(store):
    journal = Journal(store, PLAN, "p")
    for receipt in write(store, 0, 1, 2, 3):
        journal.add(receipt, 2.0)
    with store.staging(KIND) as folder:
        store.publish(KIND, PLAN.key, folder, make_manifest(PLAN, journal.receipts(), folder, {}))
    journal.remove()
    longer = Plan(SCHEMA, 5, {"train": 20, "test": 4}, np.array(["aa1", "aa2", "bb3", "cc5", "aa4"], KEY))
    again = Journal(store, longer, "p")
    assert missing(store, again, longer) == ["cc5"]
    assert again.receipts()["seconds"].tolist() == [2.0] * 4


def flipped(place: int):
    return lambda data: data[:place] + bytes([data[place] ^ 1]) + data[place + 1:]


@pytest.mark.parametrize("spoil", [lambda data: data[:-10], lambda data: b"", *(flipped(10 * n) for n in range(120))])
def test_a_torn_file_is_missing_wherever_it_is_torn(store, spoil):
    receipt = write(store, 0, 1, 2, 3)[2]
    path = Path(store.path(*shard_path("bb3", receipt.sha256)))
    path.write_bytes(spoil(path.read_bytes()))
    assert missing(store) == ["bb3"]


def test_rows_that_occur_twice_are_computed_once(store):
    plan = Plan(SCHEMA, 5, {"train": 15}, np.array(["aa1", "aa2", "aa1"], KEY))
    assert missing(store, None, plan) == ["aa1", "aa2"]
