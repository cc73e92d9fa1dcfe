"""Texts with character spans, as tools export them, become the words that are served and their tags."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kdray.config import DataConfig
from kdray.corpus.build import see_splits
from kdray.corpus.pieces import whole
from kdray.corpus.sources import read_splits
from kdray.errors import DataError
from kdray.tasks import TASKS
from tests.small import write_jsonl

TASK = TASKS["token-classification"]
TEXT = "Ann Berg, of St. Gallen"
SPANS = [[13, 23, "LOC"], [0, 8, "PER"]]
WANT = {"tokens": ["Ann", "Berg", ",", "of", "St", ".", "Gallen"],
        "tags": ["B-PER", "I-PER", "O", "O", "B-LOC", "I-LOC", "I-LOC"]}


def read(path, **data) -> dict[str, list[dict]]:
    seen = see_splits(read_splits(DataConfig(**{"source": str(path), **data}), TASK))
    return {split: whole(parts).to_pylist() for split, parts in seen.items()}


@pytest.mark.parametrize("row, columns", [
    ({"id": 1, "text": TEXT, "label": SPANS}, {}),
    ({"text": TEXT, "labels": SPANS, "Comments": []}, {}),
    ({"text": TEXT, "entities": [{"id": 4, "start_offset": a, "end_offset": b, "label": kind} for a, b, kind in SPANS],
      "relations": []}, {}),
    ({"text": TEXT, "label": [{"start": a, "end": b, "text": "", "labels": [kind]} for a, b, kind in SPANS]}, {}),
    ({"body": TEXT, "marks": SPANS}, {"tokens": "body", "tags": "marks"}),
])
def test_exports_of_annotation_tools_become_words_and_tags(tmp_path, row, columns):
    assert read(write_jsonl(tmp_path / "a.jsonl", [row]), columns=columns) == {"train": [WANT]}
    (tmp_path / "a.json").write_text(json.dumps([row]))
    assert read(tmp_path / "a.json", columns=columns) == {"train": [WANT]}


def test_the_whole_export_of_label_studio_is_read(tmp_path):
    results = [{"type": "labels", "value": {"start": a, "end": b, "text": TEXT[a:b], "labels": [kind]}}
               for a, b, kind in SPANS]
    rows = [{"id": 1, "data": {"text": TEXT}, "annotations": [{"was_cancelled": True, "result": []},
                                                             {"result": [*results, {"type": "relation"}]}]},
            {"id": 2, "data": {"text": "of"}, "annotations": [{"result": []}]}]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    assert read(tmp_path / "a.json") == {"train": [WANT, {"tokens": ["of"], "tags": ["O"]}]}


def test_spans_in_parquet_are_read(tmp_path):
    spans = [[{"start": a, "end": b, "label": kind} for a, b, kind in SPANS], []]
    pq.write_table(pa.table({"text": [TEXT, "of"], "spans": spans}), tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet") == {"train": [WANT, {"tokens": ["of"], "tags": ["O"]}]}


def test_a_span_that_cuts_a_word_takes_all_of_it_and_is_told_once(tmp_path, caplog):
    rows = [{"text": "Berliners", "label": [[0, 6, "LOC"]]}] * 5
    found = read(write_jsonl(tmp_path / "a.jsonl", rows))["train"]
    assert found == [{"tokens": ["Berliners"], "tags": ["B-LOC"]}] * 5
    [told] = caplog.messages
    assert "a.jsonl, 'Berlin' in 'Berliners': 5 spans begin or end within a word: all of the word is taken" in told


def test_spaces_around_a_span_cut_nothing_and_what_holds_no_word_is_told(tmp_path, caplog):
    rows = [{"text": "in Rome now", "label": [[2, 8, "LOC"], [7, 8, "X"]]}]
    assert read(write_jsonl(tmp_path / "a.jsonl", rows))["train"][0]["tags"] == ["O", "B-LOC", "O"]
    [told] = caplog.messages
    assert "1 spans hold no word and are left out" in told


def test_of_spans_that_overlap_the_first_and_longest_is_kept_and_that_is_told(tmp_path, caplog):
    rows = [{"text": "Bank of England", "label": [[8, 15, "LOC"], [0, 4, "X"], [0, 15, "ORG"]]}]
    assert read(write_jsonl(tmp_path / "a.jsonl", rows))["train"][0]["tags"] == ["B-ORG", "I-ORG", "I-ORG"]
    assert "2 spans overlap with one before them and are left out: a word has one tag" in caplog.text


@pytest.mark.parametrize("spans, words", [
    ([[0, 99, "X"]], r"a.jsonl: the span \[0, 99, X\] is not within its text of 23 characters \('Ann Berg, "),
    ([[5, 5, "X"]], "is not within its text"),
    ([[-1, 3, "X"]], "is not within its text"),
    ([[0, 3]], "is no span: give \\[start, end, label\\]"),
    ([["a", 3, "X"]], "is no span"),
    ([{"start": 0, "label": "X"}], "is no span"),
])
def test_what_is_no_span_of_the_text_is_refused(tmp_path, spans, words):
    with pytest.raises(DataError, match=words):
        read(write_jsonl(tmp_path / "a.jsonl", [{"text": TEXT, "label": spans}]))


def test_rows_without_labels_may_be_texts(tmp_path):
    train = write_jsonl(tmp_path / "a.jsonl", [{"text": TEXT, "label": SPANS}])
    more = write_jsonl(tmp_path / "b.jsonl", [{"text": "Ann, of Rome"}])
    assert read(train, transfer=str(more))["transfer"] == [{"tokens": ["Ann", ",", "of", "Rome"]}]


def test_texts_with_one_tag_a_word_are_still_told_apart(tmp_path):
    found = read(write_jsonl(tmp_path / "a.jsonl", [{"tokens": "a b", "tags": ["O", "O"]}]))["train"]
    assert TASK.complaint(found[0]) == "tokens is a text, not a list: give lists, or spans [start, end, label] as tags"
