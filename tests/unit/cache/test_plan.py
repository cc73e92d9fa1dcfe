"""A plan covers every row once, its keys follow the rows, and it is kept so that rows are hashed once."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from kdray.cache.plan import KEY, Plan, kept_plan, read_plan
from kdray.cache.shard import Schema
from kdray.corpus.rows import Rows
from tests.small import sentences
from tests.unit.conftest import make_corpus, plan_of

SCHEMA = Schema("fingerprint", "sequence-classification", ("negative", "positive"), 24, "float32")


def keys(rows: Rows, **changes) -> list[str]:
    return [slot.key for slot in plan_of(replace(SCHEMA, **changes), {"train": rows}, 16)]


def rewritten(folder: Path, table: pa.Table) -> Rows:
    folder.mkdir()
    with pa.ipc.new_file(str(folder / "train-000000.arrow"), table.schema) as writer:
        writer.write_table(table)
    return Rows.open(folder, "train")


@pytest.mark.parametrize("per_shard", [1, 50, 1000])
def test_a_plan_covers_every_row_once(corpus, per_shard):
    splits = {split: corpus.rows(split) for split in ("train", "test")}
    plan = plan_of(SCHEMA, splits, per_shard)
    for split, rows in splits.items():
        covered = [row for slot in plan if slot.split == split for row in range(slot.start, slot.stop)]
        assert covered == list(range(len(rows)))
    assert [slot.rows for slot in plan] == plan.sizes.tolist() and max(plan.sizes) <= per_shard


def test_a_slot_says_which_rows_it_is(corpus):
    plan = plan_of(SCHEMA, {"train": corpus.rows("train")}, 50)
    assert str(plan[1]) == "rows 50 to 99 of the train split" and plan[1] == plan[:2][1]


def test_a_split_without_rows_has_no_slots():
    plan = Plan(SCHEMA, 10, {"train": 11, "validation": 0, "test": 5}, np.array(["a", "b", "c"], KEY))
    assert [(slot.split, slot.rows) for slot in plan] == [("train", 10), ("train", 1), ("test", 5)]
    assert plan.sizes.tolist() == [10, 1, 5]


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
    {"teacher": "other"}, {"labels": ("positive", "negative")}, {"max_length": 25}, {"precision": "bfloat16"},
    {"codec": "int8"}, {"compression": "zstd"}])
def test_another_schema_changes_every_key(corpus, change):
    rows = corpus.rows("train")
    assert not set(keys(rows)) & set(keys(rows, **change))


def test_a_caches_key_is_that_of_its_slots_in_order():
    plan = Plan(SCHEMA, 2, {"train": 4, "test": 2}, np.array(["a", "b", "c"], KEY))
    others = [replace(plan, keys=plan.keys[::-1]), replace(plan, rows={"train": 3, "test": 2}),
              replace(plan, rows={"train": 2, "test": 4}), replace(plan, rows={"train": 4, "validation": 2})]
    assert len({plan.key, *(other.key for other in others)}) == 5
    assert plan.key == replace(plan).key


def test_a_kept_plan_is_read_and_not_made_again(model_folder, tmp_path):
    made = make_corpus(tmp_path, "sequence-classification", sentences(160), model_folder)
    key, plan = kept_plan(made.store, made.manifest, SCHEMA, 16)
    assert list(plan) == list(plan_of(SCHEMA, {split: made.rows(split) for split in made.manifest["rows"]}, 16))
    assert kept_plan(made.store, made.manifest, SCHEMA, 17)[0] != key
    for file in made.folder.glob("*.arrow"):
        file.unlink()
    again, found = kept_plan(made.store, made.manifest, SCHEMA, 16)
    assert again == key and list(found) == list(plan) and found.key == plan.key and found.schema == SCHEMA
    assert list(read_plan(made.store, key)) == list(plan)


def test_a_plan_does_not_depend_on_the_parts_that_rows_are_in(model_folder, tmp_path, monkeypatch):
    def plan(name: str) -> list:
        made = make_corpus(tmp_path / name, "sequence-classification", sentences(160), model_folder)
        counts.append(len(made.manifest["parts"]["train"]))
        return list(kept_plan(made.store, made.manifest, SCHEMA, 16)[1])

    counts: list[int] = []
    one = plan("one")
    for module in ("kdray.corpus.pieces", "kdray.cache.plan"):
        monkeypatch.setattr(f"{module}.ROWS", 50)
    assert plan("several") == one and counts == [1, 3]
