"""Files become inputs whether or not they have labels; what holds no text is refused."""

import json
from pathlib import Path

import pyarrow as pa
import pytest

from kdray.errors import DataError
from kdray.serving.texts import read_texts, split_texts, spread
from kdray.tasks import TASKS

SEQUENCE, TOKEN = TASKS["sequence-classification"], TASKS["token-classification"]
RELATION = TASKS["relation-extraction"]


def written(path: Path, content: str) -> str:
    path.write_text(content, encoding="utf-8")
    return str(path)


def test_one_text_a_line_without_the_empty_ones(tmp_path):
    file = written(tmp_path / "mine.txt", "fine, really\n\n  Grüße \n")
    assert read_texts(file, SEQUENCE, {"text": "body"}) == ["fine, really", "Grüße"]
    assert read_texts(written(tmp_path / "mine", "Ada"), TOKEN, {}) == ["Ada"]


def test_rows_need_no_labels_and_columns_are_named_as_in_the_run(tmp_path):
    rows = [{"body": "fine", "stars": 1}, {"body": None, "stars": 2}, {"body": "", "stars": 2}, {"body": "so-so"}]
    file = written(tmp_path / "mine.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    assert read_texts(file, SEQUENCE, {"text": "body", "label": "stars"}) == ["fine", "so-so"]
    file = written(tmp_path / "mine.csv", 'body\n"a, b"\n007\n')
    assert read_texts(file, SEQUENCE, {"text": "body", "label": "stars"}) == ["a, b", "007"]


def test_pairs_are_pairs_and_words_are_a_text(tmp_path):
    file = written(tmp_path / "pairs.csv", "text,text_pair\na,b\n")
    assert read_texts(file, SEQUENCE, {}) == [{"text": "a", "text_pair": "b"}]
    file = written(tmp_path / "words.jsonl", '{"tokens": ["Ada", "met"]}\n')
    assert read_texts(file, TOKEN, {}) == ["Ada met"]
    file = written(tmp_path / "words.csv", "body\nAda met\n")
    assert read_texts(file, TOKEN, {"tokens": "body"}) == ["Ada met"]


@pytest.mark.parametrize("name, content, words", [
    ("none.txt", "\n \n", "holds no text"), ("none.jsonl", '{"text": ""}\n', "holds no text"),
    ("other.csv", "body\nfine\n", "no column 'text'.*only body"), ("gone.txt", None, "cannot read .*No such file"),
    ("gone.csv", None, "no file matches")])
def test_a_file_without_texts_is_refused(tmp_path, name, content, words):
    file = str(tmp_path / name) if content is None else written(tmp_path / name, content)
    with pytest.raises(DataError, match=words):
        read_texts(file, SEQUENCE, {})


def test_spans_become_markers_and_wrong_ones_are_refused(tmp_path):
    file = written(tmp_path / "mine.jsonl", '{"text": "Ada met Bob", "head": [0, 3], "tail": [8, 11]}')
    assert read_texts(file, RELATION, {}) == ["<e1>Ada</e1> met<e2> Bob</e2>"]
    file = written(tmp_path / "mine.jsonl", '{"text": "Ada met Bob", "head": [0, 3], "tail": [8, 12]}')
    with pytest.raises(DataError, match=r"Ada met Bob.*tail \[8, 12\] is not within its text"):
        read_texts(file, RELATION, {})


def test_a_file_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "mine.txt").write_bytes(b"fine\n\xff")
    with pytest.raises(DataError, match=r"is not UTF-8: .* at byte 5"):
        read_texts(str(tmp_path / "mine.txt"), SEQUENCE, {})


def test_the_test_split_of_a_packages_corpus(tmp_path):
    folder = tmp_path / "corpus/abc"
    folder.mkdir(parents=True)
    none = pa.array([[0]], pa.list_(pa.int32()))
    numbers = dict.fromkeys(("input_ids", "targets", "positions", "labels"), none)
    table = pa.table({"text": ["fine"], "label": ["good"], **numbers})
    with pa.ipc.new_file(str(folder / "test-000000.arrow"), table.schema) as writer:
        writer.write_table(table)
    package = str(tmp_path / "packages/films")
    assert split_texts(package, {"lineage": {"corpus": "abc"}}, SEQUENCE) == ["fine"]
    for manifest in ({}, {"lineage": {"corpus": "gone"}}):
        with pytest.raises(DataError, match="--texts FILE"):
            split_texts(package, manifest, SEQUENCE)


def test_a_spread_keeps_first_and_last_and_all_where_they_are_few():
    assert spread(list(range(10)), 4) == [0, 3, 6, 9]
    assert spread([1, 2], 4) == [1, 2]
