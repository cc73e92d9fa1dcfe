"""Files with a word a line become sentences of words and tags."""

import pytest

from kdray.config import DataConfig
from kdray.corpus.column_files import read_columns
from kdray.corpus.columns import asked, task_columns
from kdray.tasks import TASKS

TASK = TASKS["token-classification"]
WANT = [{"tokens": ["we", "saw", "Ann"], "tags": ["O", "O", "B-PER"]}, {"tokens": ["Rome"], "tags": ["B-LOC"]}]


def read(text: str, split: str = "train", **data) -> list[dict]:
    config = DataConfig(source="x", **data)
    raw = read_columns(text.encode(), asked(split, config, TASK))
    return task_columns(raw, split, config, TASK, "FILE").to_pylist()


@pytest.mark.parametrize("text", [
    "we O\nsaw O\nAnn B-PER\n\nRome B-LOC\n",
    "we O\nsaw O\nAnn B-PER\n\n\n \nRome B-LOC",
    "\ufeffwe O\r\nsaw O\r\nAnn B-PER\r\n\r\nRome B-LOC\r\n",
    "-DOCSTART- -X- O O\n\nwe PRP B-NP O\nsaw VBD B-VP O\nAnn NNP B-NP B-PER\n\n-DOCSTART- -X- O O\n\nRome N I B-LOC\n",
    "-DOCSTART- O\n\nwe   O\nsaw  O\nAnn  B-PER\n\nRome B-LOC \n",
    "# id = 1\n# text = we saw Ann\nwe\tO\nsaw\tO\nAnn\tB-PER\n\n# id = 2\nRome\tB-LOC\n",
    "# id 7 domain=en\nwe _ _ O\nsaw _ _ O\nAnn _ _ B-PER\n\n# id 8 domain=en\nRome _ _ B-LOC\n",
])
def test_words_and_tags_are_in_the_first_and_the_last_column(text):
    assert read(text) == WANT


def test_columns_are_asked_for_by_number():
    text = "1\twe\tPRP\tO\t_\n2\tsaw\tV\tO\t_\n3\tAnn\tN\tB-PER\t_\n\n1\tRome\tN\tB-LOC\t_\n"
    assert read(text, columns={"tokens": 1, "tags": 3}) == read(text, columns={"tokens": 1, "tags": -2}) == WANT


def test_words_may_have_spaces_where_tabs_are_between_and_may_be_hashes():
    assert read("New York\tB-LOC\n#\tO\n\n#\tO\n") == [
        {"tokens": ["New York", "#"], "tags": ["B-LOC", "O"]}, {"tokens": ["#"], "tags": ["O"]}]


def test_words_without_tags_are_rows_without_labels():
    assert read("we\nsaw\n\nAnn\n", "transfer") == [{"tokens": ["we", "saw"]}, {"tokens": ["Ann"]}]


@pytest.mark.parametrize("text, data, words", [
    ("we O\nsaw\n", {}, "line 2 has 1 columns, and those before it 2: saw"),
    ("we O\n\nsaw a B-X\n", {}, "line 3 has 3 columns"),
    ("we\nsaw\n", {}, "its first line has 1 columns, and 2 are needed: a word and its tag"),
    ("we O\n", {"columns": {"tags": 2}}, "data.columns.tags = 2 is none of its 2 columns"),
    ("we O\n", {"columns": {"tags": "ner"}}, "data.columns.tags = ner is none of its 2 columns, which have no names"),
])
def test_what_is_not_in_columns_is_refused_with_its_line(text, data, words):
    with pytest.raises(ValueError) as error:
        read(text, **data)
    assert words in str(error.value)


def test_another_task_says_what_reads_columns():
    with pytest.raises(ValueError, match="token-classification"):
        read_columns(b"we O\n", asked("train", DataConfig(source="x"), TASKS["sequence-classification"]))
