"""Rows become a plan of shards, and a manifest means that all of them are there."""

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from kdray.cache.manifest import cache_key, make_manifest, missing_shards, plan
from kdray.cache.shard import Receipt, Schema, shard_path
from kdray.corpus.rows import Rows
from kdray.errors import CacheError
from kdray.storage import Store

SCHEMA = Schema("fingerprint", "sequence-classification", ("negative", "positive"), 24, "float32")


def keys(rows: Rows, **changes) -> list[str]:
    return [slot.key for slot in plan(replace(SCHEMA, **changes), {"train": rows}, 16)]


def rewritten(folder: Path, table: pa.Table) -> Rows:
    folder.mkdir()
    with pa.ipc.new_file(str(folder / "train.arrow"), table.schema) as writer:
        writer.write_table(table)
    return Rows(folder, "train")


def receipts(slots) -> dict[str, Receipt]:
    return {slot.key: Receipt(slot.key, slot.rows, 100, "sha") for slot in slots}


def test_a_plan_covers_every_row_once(corpus):
    splits = {split: corpus.rows(split) for split in ("train", "test")}
    slots = plan(SCHEMA, splits, 50)
    for split, rows in splits.items():
        covered = [row for slot in slots if slot.split == split for row in range(slot.start, slot.stop)]
        assert covered == list(range(len(rows)))
    assert all(0 < slot.rows <= 50 for slot in slots)
    assert str(slots[1]) == "rows 50 to 99 of the train split"


def test_appended_rows_keep_the_keys_of_full_shards(corpus, tmp_path):
    table = corpus.rows("train").table
    before, after = rewritten(tmp_path / "a", table.slice(0, 40)), rewritten(tmp_path / "b", table.slice(0, 70))
    assert keys(after)[:2] == keys(before)[:2]
    assert keys(after)[2] != keys(before)[2] and len(keys(after)) == 5


def test_an_edited_row_changes_its_shards_key_alone(corpus, tmp_path):
    rows = corpus.rows("train")
    lists = rows.table.column("input_ids").to_pylist()
    lists[20][1] += 1
    edited = rows.table.set_column(rows.table.schema.get_field_index("input_ids"), "input_ids",
                                   pa.array(lists, pa.list_(pa.int32())))
    differ = [a != b for a, b in zip(keys(rows), keys(rewritten(tmp_path / "a", edited)), strict=True)]
    assert differ == [index == 1 for index in range(len(differ))]


def test_hard_labels_do_not_change_a_key(corpus, tmp_path):
    rows = corpus.rows("train")
    labels = pa.array([[1 - ids[0]] for ids in rows.gold()], pa.list_(pa.int32()))
    edited = rows.table.set_column(rows.table.schema.get_field_index("labels"), "labels", labels)
    assert keys(rows) == keys(rewritten(tmp_path / "a", edited))


@pytest.mark.parametrize("change", [
    {"teacher": "other"}, {"labels": ("positive", "negative")}, {"max_length": 25}, {"precision": "bfloat16"}])
def test_another_schema_changes_every_key(corpus, change):
    rows = corpus.rows("train")
    assert not set(keys(rows)) & set(keys(rows, **change))


def test_a_caches_key_is_that_of_its_slots_in_order(corpus):
    slots = plan(SCHEMA, {"train": corpus.rows("train")}, 16)
    assert cache_key(slots) == cache_key(plan(SCHEMA, {"train": corpus.rows("train")}, 16))
    assert len({cache_key(slots), cache_key(slots[::-1]), cache_key(slots[:-1]),
                cache_key([replace(slot, split="test") for slot in slots])}) == 4


def test_a_manifest_lists_the_receipts_in_the_order_of_the_rows(corpus):
    slots = plan(SCHEMA, {split: corpus.rows(split) for split in ("train", "test")}, 16)
    made = make_manifest(SCHEMA, slots, receipts(slots[::-1]), 16, {"teacher": "t"}, 1.23456)
    assert [shard["key"] for shard in made["splits"]["train"]] == [s.key for s in slots if s.split == "train"]
    assert made["parents"] == {"teacher": "t"} and made["teacher_seconds"] == 1.235


@pytest.mark.parametrize("spoil", [lambda found, key: found.pop(key),
                                   lambda found, key: found.update({key: Receipt(key, 3, 100, "sha")})])
def test_a_manifest_refuses_a_slot_that_is_not_filled(corpus, spoil):
    slots = plan(SCHEMA, {"train": corpus.rows("train")}, 16)
    found = receipts(slots)
    spoil(found, slots[2].key)
    with pytest.raises(CacheError, match="rows 32 to 47 of the train split are not in the cache"):
        make_manifest(SCHEMA, slots, found, 16, {}, 0.0)


def test_shards_that_went_or_shrank_are_missing(corpus, tmp_path):
    store = Store(str(tmp_path))
    slots = plan(SCHEMA, {"train": corpus.rows("train")}, 16)
    for slot in slots:
        store.write(b"x" * 100, *shard_path(slot.key))
    made = make_manifest(SCHEMA, slots, receipts(slots), 16, {}, 0.0)
    assert missing_shards(store, made) == []
    store.delete(*shard_path(slots[1].key))
    store.write(b"x" * 99, *shard_path(slots[3].key))
    assert missing_shards(store, made) == [slots[1].key, slots[3].key]
