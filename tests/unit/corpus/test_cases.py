"""Small files in the shapes that users of other tools have are read, or refused with the reason and the remedy."""

import re
from pathlib import Path

import pytest

from kdray.config import DataConfig
from kdray.corpus.build import build_corpus, see_splits
from kdray.corpus.rows import Rows
from kdray.corpus.sources import read_splits
from kdray.errors import DataError
from kdray.storage import Store
from kdray.tasks import TASKS

CASES = Path(__file__).parents[4] / "shared" / "cases"
PLAIN = {"text": "really play was awful and this story cold 0", "label": "negative"}
PEOPLE = {"tokens": ["we", "saw", "Anna", "Peter", "in", "New", "Berlin", "0"],
          "tags": ["O", "O", "B-PER", "I-PER", "O", "B-LOC", "I-LOC", "O"]}
NUMBERS = {"text": 0, "label": 1}
STARS = ["1 star", "2 stars", "3 stars", "4 stars", "5 stars"]

pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason="needs ../shared/cases, which a clone alone does not have")


def build(tmp_path, tokenizer, name: str, order=None, **data) -> tuple[dict, list[dict]]:
    """The manifest and the raw rows of train, validation and test."""
    task = TASKS["token-classification" if name.startswith(("ner", "doccano")) else "sequence-classification"]
    config, store = DataConfig(source=str(CASES / name), **data), Store(str(tmp_path))
    made = build_corpus(store, "key", see_splits(read_splits(config, task)), task, config, str(tokenizer), order)
    splits = [Rows.open(store.fetch("corpus", "key"), split).raw(task).to_pylist() for split in made["rows"]]
    return made, [row for rows in splits for row in rows]


@pytest.mark.parametrize("name, data, first, count", [
    ("[2024] reviews.csv", {}, PLAIN, 200),
    ("array.json", {}, PLAIN, 200),
    ("nested.json", {}, PLAIN, 200),
    ("nested.json", {"path": "data"}, PLAIN, 200),
    ("clinc.json", {}, PLAIN, 200),
    ("clinc.json", {"columns": NUMBERS}, PLAIN, 200),
    ("clinc.json", {"columns": NUMBERS, "path": "train"}, PLAIN, 150),
    ("backslash.csv", {}, {**PLAIN, "text": f'he said "{PLAIN["text"]}" loudly'}, 200),
    ("dates.jsonl", {}, {**PLAIN, "text": "2024-01-01T10:00:00"}, 200),
    ("label_spaces.csv", {}, {**PLAIN, "label": "negative "}, 200),
    ("extra_mixed.jsonl", {}, PLAIN, 200),
    ("extra_nested.jsonl", {}, PLAIN, 200),
    ("doccano_spans.jsonl", {}, {"tokens": PLAIN["text"].split(), "tags": ["B-PER", *"OOOOOOOO"]}, 200),
    ("doccano_spans.jsonl", {"columns": {"tokens": "text", "tags": "label"}},
     {"tokens": PLAIN["text"].split(), "tags": ["B-PER", *"OOOOOOOO"]}, 200),
    ("ner.conll", {}, PEOPLE, 200),
    ("ner.conll", {"columns": {"tokens": 0, "tags": 1}}, PEOPLE, 200),
    ("ner_rare.jsonl", {}, PEOPLE, 200),
    ("disk_one", {}, PLAIN, 200),
    ("semicolon.csv", {}, PLAIN, 200),
    ("semicolon_decimal.csv", {}, {**PLAIN, "text": f"{PLAIN['text']}, ja"}, 200),
    ("dup_header.csv", {}, PLAIN, 200),
    ("header_spaces.csv", {}, PLAIN, 200),
    ("headerless.csv", {"columns": NUMBERS}, PLAIN, 200),
    ("ok.csv.zip", {}, PLAIN, 200),
])
def test_a_file_in_the_shape_of_another_tool_is_read(tmp_path, model_folder, name, data, first, count):
    made, rows = build(tmp_path, model_folder, name, **data)
    assert first in rows and len(rows) == sum(made["rows"].values()) == count


@pytest.mark.parametrize("name, data, words", [
    ("nan40.parquet", {}, r"row 0 of the train split: label is missing"),
    ("headerless.csv", {}, r"no header, number the columns: data.columns: \{text: 0, label: 1\}"),
    ("nested.json", {"path": "rows"}, "data.path = rows is not in it: where 'rows' should be, there is only data"),
    ("ner.conll", {"columns": {"tags": 2}}, "data.columns.tags = 2 is none of its 2 columns"),
])
def test_what_cannot_be_read_is_told_with_the_remedy(tmp_path, model_folder, name, data, words):
    with pytest.raises(DataError, match=words) as error:
        build(tmp_path, model_folder, name, **data)
    assert name == "nan40.parquet" or name in str(error.value)


def test_labels_that_differ_in_spaces_are_named(tmp_path, model_folder, caplog):
    made, _ = build(tmp_path, model_folder, "label_spaces.csv")
    assert made["labels"] == ["negative", "negative ", "positive", "positive "]
    assert "'negative' (40 rows), 'negative ' (40 rows); 'positive' (40 rows), 'positive ' (40 rows)" in caplog.text


def test_a_span_that_cuts_a_word_is_told(tmp_path, model_folder, caplog):
    build(tmp_path, model_folder, "doccano_spans.jsonl")
    assert "'rea' in 'really play was awful and this story cold 0': 106 spans begin or end within a word" in caplog.text


@pytest.mark.parametrize("name, said", [
    ("ner_bioes.jsonl", "tags are IOBES"), ("ner_ints.jsonl", "tags are numbers without names (0, 1, 2, 3, 4)")])
def test_how_tags_are_written_is_told(tmp_path, model_folder, caplog, name, said):
    caplog.set_level("INFO", "kdray")
    build(tmp_path, model_folder, name)
    assert said in caplog.text


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name, labels", [("rare20.csv", 22), ("ner_rare.jsonl", 17)])
def test_a_rare_label_stays_in_train(tmp_path, model_folder, name, labels, seed):
    made, _ = build(tmp_path, model_folder, name, seed=seed)
    train = Rows.open(tmp_path / "corpus" / "key", "train")
    assert {label for row in train.gold() for label in row} == set(range(len(made["labels"]))) == set(range(labels))


def test_phrases_without_spaces_are_no_copies(tmp_path, model_folder):
    build(tmp_path, model_folder, "zh.csv", phrases=2)
    train, phrases = (Rows.open(tmp_path / "corpus" / "key", split).table.column("text").to_pylist()
                      for split in ("train", "transfer"))
    assert len(phrases) == 2 * len(train) and sum(text in train for text in phrases) < 0.2 * len(phrases)


def test_digits_are_no_ids_where_the_teachers_names_have_other_numbers(tmp_path, model_folder):
    words = "2 stars, 3 stars, 4 stars, 5 stars, whose numbers are not their ids, but the data has 0, 1, 2, 3, 4"
    with pytest.raises(DataError, match=re.escape(words)):
        build(tmp_path, model_folder, "star_ids_small.csv", STARS)
