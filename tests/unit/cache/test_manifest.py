"""A manifest means that every slot is filled; its table finds every shard again."""

import json

import numpy as np
import pytest

from kdray.cache.codec import Loss
from kdray.cache.manifest import KIND, make_manifest, missing_shards, shard_table, split_shards
from kdray.cache.plan import KEY, Plan
from kdray.cache.receipts import latest, table_of
from kdray.cache.shard import Receipt, Schema, shard_path
from kdray.errors import CacheError
from kdray.storage import Store

SCHEMA = Schema("fingerprint", "sequence-classification", ("negative", "positive"), 24, "float32", "int8")
PLAN = Plan(SCHEMA, 16, {"train": 40, "validation": 0, "test": 10}, np.array(["ab1", "ab2", "cd3", "ab4"], KEY))


def receipts(plan: Plan = PLAN) -> list[tuple[Receipt, float]]:
    losses = [Loss(slot.rows, 0.1 * place, (1.0, 2.0, 3.0, 4.0)) for place, slot in enumerate(plan)]
    return [(Receipt(slot.key, slot.rows, 100, "ab" * 32, lost), 0.25)
            for slot, lost in zip(plan, losses, strict=True)]


def publish(store: Store, found: list[tuple[Receipt, float]], plan: Plan = PLAN) -> dict:
    with store.staging(KIND) as folder:
        manifest = make_manifest(plan, latest([table_of(found)]), folder, {"parents": {"teacher": "t"}})
        return store.publish(KIND, plan.key, folder, manifest)


def test_a_manifest_counts_and_its_table_is_in_the_order_of_the_rows(tmp_path):
    store = Store(str(tmp_path))
    made = publish(store, receipts()[::-1])
    table = shard_table(store, made)
    assert [key.decode() for key in table["key"]] == [slot.key for slot in PLAN]
    assert table["key"][split_shards(made, "train")].tolist() == [b"ab1", b"ab2", b"cd3"]
    assert table["key"][split_shards(made, "test")].tolist() == [b"ab4"]
    assert len(table[split_shards(made, "validation")]) == 0
    assert (made["shards"], made["bytes"], made["targets"], made["teacher_seconds"]) == (4, 400, 50, 1.0)
    assert made["codec_error"]["largest_logit"] == pytest.approx(0.3)
    assert made["codec_error"]["kl"] == pytest.approx({"1": 0.08, "2": 0.16, "4": 0.24, "8": 0.32})
    assert made["parents"] == {"teacher": "t"} and made["rows"] == PLAN.rows
    with pytest.raises(CacheError, match="no split 'other', it has train, validation, test"):
        split_shards(made, "other")


def test_rows_that_occur_twice_share_a_shard(tmp_path):
    plan = Plan(SCHEMA, 16, {"train": 48}, np.array(["ab1", "ab2", "ab1"], KEY))
    store = Store(str(tmp_path))
    made = publish(store, receipts(plan)[:2], plan)
    assert shard_table(store, made)["key"].tolist() == [b"ab1", b"ab2", b"ab1"]


def other_rows(found: list) -> None:
    receipt, seconds = found[2]
    found[2] = (Receipt(receipt.key, 3, receipt.bytes, receipt.sha256, receipt.loss), seconds)


@pytest.mark.parametrize("spoil", [lambda found: found.pop(2), other_rows])
def test_a_manifest_refuses_a_slot_that_is_not_filled(tmp_path, spoil):
    found = receipts()
    spoil(found)
    with pytest.raises(CacheError, match="rows 32 to 39 of the train split are not in the cache"):
        publish(Store(str(tmp_path)), found)
    with pytest.raises(CacheError, match="rows 0 to 15 of the train split are not in the cache"):
        publish(Store(str(tmp_path)), [])


def test_a_manifest_stays_small_whatever_the_number_of_shards(tmp_path):
    keys = np.array([f"{number:032x}" for number in range(20_000)], KEY)
    plan = Plan(SCHEMA, 1000, {"train": 20_000_000}, keys)
    made = publish(Store(str(tmp_path)), receipts(plan), plan)
    assert len(json.dumps(made)) < 2000 and made["shards"] == 20_000


def test_shards_that_went_or_shrank_are_missing(tmp_path):
    store = Store(str(tmp_path))
    made = publish(store, receipts())
    for slot in PLAN:
        store.write(b"x" * 100, *shard_path(slot.key, "ab" * 32))
    assert missing_shards(store, made) == []
    store.delete(*shard_path("ab2", "ab" * 32))
    store.write(b"x" * 99, *shard_path("ab4", "ab" * 32))
    assert missing_shards(store, made) == ["ab2", "ab4"]
