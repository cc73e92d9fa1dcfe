"""Rows are views of the mapped file, and digests are of what a teacher sees."""

import numpy as np
import pyarrow as pa
import pytest

from kdray.corpus.rows import Ragged, Rows

LISTS = [[1, 2], [], [3], [4, 5, 6], []]


@pytest.mark.parametrize("column", [
    pa.chunked_array([LISTS], pa.list_(pa.int32())),
    pa.chunked_array([LISTS[:2], LISTS[2:]], pa.list_(pa.int32())),
    pa.chunked_array([pa.array([[9, 9], *LISTS], pa.list_(pa.int32())).slice(1)]),
], ids=["whole", "chunks", "slice"])
def test_a_ragged_column_gives_each_rows_list(column):
    ragged = Ragged(column)
    assert [ragged[row].tolist() for row in range(len(ragged))] == LISTS
    assert ragged.lengths.tolist() == [2, 0, 1, 3, 0]
    assert ragged[3].base is not None


def test_a_digest_is_of_lists_and_not_of_where_they_are():
    one, two = (Ragged(pa.chunked_array([lists], pa.list_(pa.int32()))) for lists in (LISTS, [[7], *LISTS]))
    assert one.digest(0, 3) == two.digest(1, 4)
    assert one.digest(0, 3) != one.digest(0, 4)
    moved = Ragged(pa.chunked_array([[[1], [2], [3]]], pa.list_(pa.int32())))
    assert one.digest(0, 3) != moved.digest(0, 3)


def test_a_digest_is_the_same_however_a_file_was_cut_into_batches():
    whole = Ragged(pa.chunked_array([LISTS], pa.list_(pa.int32())))
    cut = Ragged(pa.chunked_array([LISTS[:1], [], LISTS[1:3], LISTS[3:]], pa.list_(pa.int32())))
    for start in range(len(LISTS)):
        for stop in range(start + 1, len(LISTS) + 1):
            assert whole.digest(start, stop) == cut.digest(start, stop), (start, stop)


def test_a_split_may_have_more_tokens_than_32_bits_count():
    rows, tokens = 1 << 20, 64
    values = np.zeros(rows * tokens, np.int8)
    values[-1] = 7
    part = pa.ListArray.from_arrays(pa.array(np.arange(rows + 1, dtype=np.int32) * tokens), pa.array(values))
    ragged = Ragged(pa.chunked_array([part] * 34))
    assert len(ragged) * tokens > 2**31
    assert ragged[len(ragged) - 1].tolist() == [0] * (tokens - 1) + [7]


def changed_rows(corpus, tmp_path, column: str, row: int) -> Rows:
    """The train split with one value of one row changed."""
    table = corpus.rows("train").table
    lists = table.column(column).to_pylist()
    lists[row][0] += 1
    values = pa.array(lists, table.schema.field(column).type)
    table = table.set_column(table.schema.get_field_index(column), column, values)
    with pa.ipc.new_file(str(tmp_path / "train-000000.arrow"), table.schema) as writer:
        writer.write_table(table)
    return Rows.open(tmp_path, "train")


@pytest.mark.parametrize("column, differs", [
    ("input_ids", True), ("token_type_ids", True), ("targets", True), ("positions", True), ("labels", False)])
def test_a_digest_covers_what_a_teacher_sees(corpus, tmp_path, column, differs):
    rows, changed = corpus.rows("train"), changed_rows(corpus, tmp_path, column, 5)
    assert (rows.digest(0, 10) != changed.digest(0, 10)) == differs
    assert rows.digest(10, 20) == changed.digest(10, 20)


def test_gold_has_a_label_for_every_unit(token_corpus):
    rows = token_corpus.rows("test")
    tags = rows.table.column("tags").to_pylist()
    assert [[token_corpus.labels[i] for i in ids] for ids in rows.gold()] == tags
    assert rows.lengths.tolist() == [len(rows.input_ids[i]) for i in range(len(rows))]
    assert all(isinstance(ids, np.ndarray) for ids in rows.gold())
