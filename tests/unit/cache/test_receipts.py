"""Receipts survive in a table and in a journal, whoever writes at the same time."""

import numpy as np
import pytest

from kdray.cache.codec import Loss
from kdray.cache.plan import KEY, Plan
from kdray.cache.receipts import (
    FILLS,
    RECEIPT,
    Journal,
    decode_table,
    encode_table,
    journal_parts,
    latest,
    list_shards,
    places,
    table_of,
)
from kdray.cache.shard import Receipt, Schema, shard_path
from kdray.storage import Store

PLAN = Plan(Schema("t", "sequence-classification", ("a", "b"), 24, "float32"), 10, {"train": 30},
            np.array(["k1", "k2", "k3"], KEY))


def receipt(key: str, rows: int = 10) -> Receipt:
    return Receipt(key, rows, 100, "f" * 64, Loss(rows, 0.5, (0.1, 0.2, 0.3, 0.4)))


def keys(table: np.ndarray) -> list[str]:
    return [key.decode() for key in table["key"]]


@pytest.mark.parametrize("count", [0, 1, 5])
def test_a_table_is_read_as_it_was_written(count):
    table = table_of((receipt(f"{number:032x}", number), 1.5) for number in range(count))
    found = decode_table(encode_table(table))
    assert found.dtype == RECEIPT and np.array_equal(found, table)


def test_the_last_receipt_of_a_key_counts():
    tables = [table_of([(receipt("b", 1), 0), (receipt("a", 2), 0)]), table_of([(receipt("b", 3), 0)])]
    found = latest(tables)
    assert keys(found) == ["a", "b"] and found["rows"].tolist() == [2, 3]
    assert places(found["key"], np.array(["b", "c", "a", ""], KEY)).tolist() == [1, -1, 0, -1]
    assert places(latest([])["key"], np.array(["b"], KEY)).tolist() == [-1]


def test_a_listing_has_files_of_any_folder_that_are_as_long_as_they_were(tmp_path):
    store = Store(str(tmp_path))
    there = [receipt(key) for key in ("cd3", "ab2", "ab1")]
    for made in there:
        store.write(b"x" * made.bytes, *shard_path(made.key, made.sha256))
    store.write(b"x" * 99, *shard_path("ab3", "f" * 64))
    store.write(b"x" * 100, *shard_path("ab4", "e" * 64))
    store.write(b"torn", "shards", "ab", ".tmp-1")
    wanted = table_of((made, 0) for made in [*there, *map(receipt, ("ab3", "ab4", "ef1"))])
    assert list_shards(store, wanted["key"]).has(wanted).tolist() == [True, True, True, False, False, False]
    assert list_shards(store, wanted["key"][:0]).has(wanted).tolist() == [False] * 6


def test_a_listing_names_every_file_that_may_be_a_shard(tmp_path):
    store = Store(str(tmp_path))
    for name in ("ab1-0123", "ab1", "ab1-4567", "ab12-0123", "ab0"):
        store.write(b"x", "shards", "ab", f"{name}.arrow")
    listing = list_shards(store, np.array(["ab1", "zz1"], KEY))
    assert {key: list(listing.candidates(key)) for key in ("ab1", "ab12", "ab2", "zz1")} == {
        "ab1": ["ab1", "ab1-0123", "ab1-4567"], "ab12": ["ab12-0123"], "ab2": [], "zz1": []}


def test_a_journal_goes_on_where_another_run_was_killed(tmp_path, monkeypatch):
    monkeypatch.setattr("kdray.cache.receipts._PARTS", 1)
    store = Store(str(tmp_path))
    for key in ("k1", "k2"):
        journal = Journal(store, PLAN, "plan-key")
        journal.add(receipt(key), 1.0)
        journal.flush()
        journal.add(receipt("lost"), 1.0)
    assert keys(Journal(store, PLAN, "plan-key").receipts()) == ["k1", "k2"]
    assert len(journal_parts(store, PLAN.key)) == 1, "parts are merged"
    assert store.read(FILLS, PLAN.key, "plan") == b"plan-key"


def test_two_runs_may_keep_a_journal_of_one_cache(tmp_path):
    store = Store(str(tmp_path))
    one, two = Journal(store, PLAN, "p"), Journal(store, PLAN, "p")
    for journal, key in ((one, "k1"), (two, "k2"), (one, "k3")):
        journal.add(receipt(key), 0)
        journal.flush()
    assert keys(Journal(store, PLAN, "p").receipts()) == ["k1", "k2", "k3"]
    one.remove()
    two.add(receipt("k1"), 0)
    two.flush()
    assert keys(two.receipts()) == ["k1", "k2"]
    two.remove()
    assert store.names(FILLS) == []


def test_a_journal_is_written_every_thousand_receipts_without_being_asked(tmp_path):
    journal = Journal(Store(str(tmp_path)), PLAN, "p")
    for number in range(1500):
        journal.add(receipt(f"{number:05d}"), 0)
    assert sum(map(len, journal_parts(Store(str(tmp_path)), PLAN.key).values())) == 1000
    assert len(journal.receipts()) == 1500


def test_what_another_cache_vouches_for_is_known_but_not_written(tmp_path):
    journal = Journal(Store(str(tmp_path)), PLAN, "p")
    journal.vouch(table_of([(receipt("k1"), 0)]))
    journal.flush()
    assert keys(journal.receipts()) == ["k1"] and journal_parts(Store(str(tmp_path)), PLAN.key) == {}
