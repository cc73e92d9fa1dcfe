"""JSON in the shapes that users have keeps every text and number as it stands."""

import json
import random

import pytest

from kdray.config import DataConfig
from kdray.corpus import json_files
from kdray.corpus.build import see_splits
from kdray.corpus.columns import asked, task_columns
from kdray.corpus.json_files import has_lines, read_json
from kdray.corpus.pieces import whole
from kdray.corpus.sources import read_splits
from kdray.errors import DataError
from kdray.tasks import TASKS

SEQUENCE = TASKS["sequence-classification"]
ROWS = [{"text": "a", "label": "x"}, {"text": "b", "label": "y"}]


def read(text: str | bytes, path: str | None = None, split: str = "train", **data) -> list[dict]:
    config = DataConfig(source="x", **data)
    content = text.encode() if isinstance(text, str) else text
    raw = read_json(content, path, split, asked(split, config, SEQUENCE))
    return task_columns(raw, split, config, SEQUENCE, "FILE").to_pylist()


def lines(*rows) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_texts_and_numbers_stay_as_they_are_written():
    text = ('{"text": "2024-01-01T10:00:00", "label": 1}\n{"text": "2024-01-02", "label": 1.50}\n'
            '{"text": 7, "label": true}\n{"text": "10:00", "label": 3.0}\n{"text": null, "label": NaN}\n'
            '{"text": "x", "label": 12345678901234567890}\n')
    assert [tuple(row.values()) for row in read(text)] == [
        ("2024-01-01T10:00:00", "1"), ("2024-01-02", "1.50"), ("7", "true"), ("10:00", "3"), (None, None),
        ("x", "12345678901234567890")]


def test_columns_that_nobody_asked_for_may_be_anything():
    rows = [{**ROWS[0], "id": 1, "meta": {"a": [1]}}, {**ROWS[1], "id": "x", "meta": None, "more": [{"b": None}]}]
    assert read(lines(*rows)) == ROWS


@pytest.mark.parametrize("seed", range(10))
def test_both_readers_read_the_same(monkeypatch, seed):
    chance = random.Random(seed)
    signs = 'ab "\\/\n\t\u00e9\u4e16\U0001f600{}[]:,0123-T:Z'
    rows = []
    for number in range(300):
        row = {"id": number, "text": "".join(chance.choices(signs, k=9)), "text_pair": chance.choice(["a", "10:00"]),
               "label": chance.choice(["x", "2024-01-01", None]), "meta": chance.choice([1, "x", {"a": [None]}, [[]]])}
        rows.append({name: row[name] for name in chance.sample(sorted(row), chance.randint(3, 5))})
    text = "".join(json.dumps(row, ensure_ascii=chance.random() < 0.5) + "\n" for row in [ROWS[0], *rows])
    quick = json_files._read_texts(text.encode(), asked("train", DataConfig(source="x"), SEQUENCE))
    assert quick is not None
    monkeypatch.setattr(json_files, "_read_texts", lambda data, columns: None)
    slow = read_json(text.encode(), None, "train", asked("train", DataConfig(source="x"), SEQUENCE))
    assert quick.table.equals(slow.table) and quick.rows == slow.rows == 301 and set(quick.names) >= set(slow.names)
    assert slow.table.to_pylist() == [{name: row.get(name) for name in slow.table.column_names}
                                      for row in [ROWS[0], *rows]]


def test_a_column_may_begin_late_and_rows_are_read_in_chunks(monkeypatch):
    monkeypatch.setattr("kdray.corpus.columns._CHUNK", 2)
    rows = [{"text": "a"}, {"text": "b"}, {"text": "c", "label": 1}, {"text": "d", "text_pair": "e", "label": "x"}]
    assert read(lines(*rows)) == [
        {"text": "a", "text_pair": None, "label": None}, {"text": "b", "text_pair": None, "label": None},
        {"text": "c", "text_pair": None, "label": "1"}, {"text": "d", "text_pair": "e", "label": "x"}]


@pytest.mark.parametrize("text, path", [
    (json.dumps(ROWS), None), (json.dumps(ROWS, indent=1), None), ("\ufeff" + json.dumps(ROWS), None),
    (json.dumps({"data": ROWS}), None), (json.dumps({"version": "2", "data": ROWS}, indent=2), None),
    (json.dumps({"data": ROWS, "more": []}), "data"), (json.dumps({"a": {"b.c": 1, "b": ROWS}}), "a.b"),
    (lines(*ROWS), None), ("\n" + lines(*ROWS).replace("\n", "\r\n\n"), None), ("\ufeff" + lines(*ROWS), None),
    (json.dumps([["a", "x"], ["b", "y"]]), None), (lines(["a", "x"], ["b", "y"]), None),
    (json.dumps({"train": ROWS, "test": []}), None), (json.dumps({"val": [], "train": ROWS, "other": []}), None),
])
def test_rows_are_found_in_lines_lists_and_objects(text, path):
    assert read(text, path) == ROWS


def test_one_object_with_the_columns_is_one_row():
    assert read(json.dumps(ROWS[0])) == read(json.dumps(ROWS[0], indent=1)) == ROWS[:1]


def test_rows_that_are_lists_have_numbers_for_columns():
    rows = json.dumps([["x", "a", "more"], ["y", "b", "more"]])
    assert read(rows, columns={"text": "1", "label": 0}) == ROWS
    with pytest.raises(DataError, match="no column 'text' for text, only 0, 1, 2"):
        read(rows)


@pytest.mark.parametrize("text, path, words", [
    ('{"text": "a", "label": "x"}\n{"text": "b" "label": "y"}\n', None, "line 2: Expecting ',' delimiter at character"),
    ('{"text": "a" "label": "x"}\n{"text": "b", "label": "y"}\n', None, "line 1: Expecting ',' delimiter at character"),
    ('{"text": "a", "lab', None, "line 1: Unterminated string"),
    ("", None, "line 1: Expecting value"),
    (json.dumps({"a": [], "b": []}), None, "it is one object, with a, b. Say where its rows are: data.path: a"),
    (json.dumps({"a": {"b": 1}}), None, "it is one object, with a. Say where its rows are: data.path: a"),
    (json.dumps({"a": {"b": 1}}), "a.c", "data.path = a.c is not in it: where 'c' should be, there is only b"),
    (json.dumps({"a": {"b": 1}}), "a.b.c", "data.path = a.b.c is not in it: where 'c' should be, there is '1'"),
    (json.dumps({"a": "text"}), "a", "it is a value, and not a list of rows"),
    (lines(*ROWS), "data", "line 2: Extra data"),
])
def test_what_has_no_rows_is_told_with_its_line_or_its_keys(text, path, words):
    with pytest.raises(ValueError) as error:
        read(text, path)
    assert words in str(error.value)


@pytest.mark.parametrize("rows", [[1, 2], ["a"]])
def test_rows_that_are_none_are_refused(rows):
    with pytest.raises(TypeError, match="a row must be an object with columns or a list of them"):
        read(json.dumps(rows))


def test_half_a_surrogate_pair_is_no_text():
    with pytest.raises(UnicodeEncodeError):
        read('{"text": "\\ud83d", "label": "x"}\n')


@pytest.mark.parametrize("text, found", [
    (b'{"a": 1}\n{"a": 2}\n', True), (b'{"a": 1}\n', False), (b'{"a": 1}\n\n', False), (b'{"a":\n1}\n', False),
    (b"[1]\n[2]", True), (b"[\n1]\n", False), (b"", False), (b'\n\n{"a": 1}\n\n{', True)])
def test_lines_are_told_from_a_document(text, found):
    assert has_lines(text) == found


def splits(file, content, **data) -> dict[str, list[str]]:
    file.write_text(json.dumps(content))
    seen = see_splits(read_splits(DataConfig(source=str(file), **data), SEQUENCE))
    return {split: whole(parts).column("text").to_pylist() for split, parts in seen.items()}


def test_lists_of_a_document_are_splits_by_their_names(tmp_path, caplog):
    content = {"train": [["a", "x"]], "val": [["b", "x"]], "oos_val": [["c", "x"]], "test": [["d", "x"]], "n": 1}
    file, numbers = tmp_path / "a.json", {"columns": {"text": 0, "label": 1}}
    assert splits(file, content, **numbers) == {"train": ["a"], "validation": ["b"], "test": ["d"]}
    assert splits(file, content, **numbers, test="oos_val") == {"train": ["a"], "validation": ["b"], "test": ["c"]}
    assert splits(file, {"data": content}, path="data", train="test") == {"train": ["d"], "validation": ["b"]}
    assert "its splits train, oos_val are left out, and test cut off train" in caplog.text
    assert splits(file, content, path="oos_val", **numbers) == {"train": ["c"]}
    with pytest.raises(DataError, match=r"data.validation = dev beside data.source names a split of .*, which has tra"):
        splits(file, content, validation="dev")


def test_a_document_may_be_named_for_each_split(tmp_path):
    file = tmp_path / "a.json"
    file.write_text(json.dumps({"train": ROWS, "dev": ROWS[:1]}))
    seen = see_splits(read_splits(DataConfig(train=str(file), validation=str(file)), SEQUENCE))
    assert {split: whole(parts).num_rows for split, parts in seen.items()} == {"train": 2, "validation": 1}


def test_a_path_is_for_json_alone(tmp_path):
    (tmp_path / "a.csv").write_text("text,label\na,x\n")
    with pytest.raises(DataError, match=r"a.csv as csv: data.path is for JSON documents"):
        see_splits(read_splits(DataConfig(source=str(tmp_path / "a.csv"), path="data"), SEQUENCE))
