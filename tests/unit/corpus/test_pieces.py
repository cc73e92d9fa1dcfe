"""Rows are the same however they are cut into pieces; files that change under a run are noticed."""

import pytest

from kdray.config import DataConfig
from kdray.corpus.build import build_corpus, see_splits
from kdray.corpus.files import file_pieces
from kdray.corpus.pieces import whole
from kdray.corpus.rows import Rows
from kdray.corpus.sources import read_splits
from kdray.errors import DataError
from kdray.storage import Store
from kdray.tasks import TASKS
from tests.small import sentences, write_jsonl

TASK = TASKS["sequence-classification"]


def write(folder, count: int = 6, each: int = 30) -> str:
    """Rows in several files; the glob that names them."""
    folder.mkdir(exist_ok=True)
    rows = sentences(count * each)
    for number in range(count):
        write_jsonl(folder / f"{number}.jsonl", rows[number * each:(number + 1) * each])
    return f"{folder}/*.jsonl"


def test_small_files_are_a_piece_together_and_large_ones_alone(tmp_path, monkeypatch):
    source = write(tmp_path)
    size = (tmp_path / "0.jsonl").stat().st_size
    counts = []
    for limit in (1, int(2.5 * size), 100 * size):
        monkeypatch.setattr("kdray.corpus.files.PIECE_BYTES", limit)
        pieces = file_pieces(source, "train", DataConfig(source=source), TASK)
        counts.append(len(pieces))
        assert whole(pieces).column("text").to_pylist() == [row["text"] for row in sentences(180)]
    assert counts == [6, 3, 1]


@pytest.mark.parametrize("phrases", [0, 2])
def test_rows_do_not_depend_on_the_pieces(tmp_path, model_folder, monkeypatch, phrases):
    def splits(name: str) -> dict[str, list]:
        store, source = Store(str(tmp_path / name)), write(tmp_path / "rows")
        data = DataConfig(train=source, validation=source, test=source, max_length=24, phrases=phrases)
        made = build_corpus(store, "key", see_splits(read_splits(data, TASK)), TASK, data, str(model_folder), None)
        parts.append(len(made["parts"]["train"]))
        return {split: Rows.open(store.fetch("corpus", "key"), split).table.to_pylist() for split in made["rows"]}

    parts: list[int] = []
    one = splits("one")
    monkeypatch.setattr("kdray.corpus.files.PIECE_BYTES", 1)
    assert splits("several") == one and parts == [1, 6] and ("transfer" in one) == bool(phrases)


def test_a_wrong_row_is_named_by_its_place_in_the_split(tmp_path, model_folder, monkeypatch):
    monkeypatch.setattr("kdray.corpus.files.PIECE_BYTES", 1)
    source = write(tmp_path)
    rows = sentences(30)
    rows[7]["text"] = ""
    write_jsonl(tmp_path / "2.jsonl", rows)
    for data in (DataConfig(source=source), DataConfig(train=source, validation=source, test=source)):
        with pytest.raises(DataError, match=r"row 67 of the \w+ split: text is empty"):
            build_corpus(Store(str(tmp_path)), "key", see_splits(read_splits(data, TASK)), TASK, data,
                         str(model_folder), None)


def test_files_with_other_columns_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr("kdray.corpus.files.PIECE_BYTES", 1)
    source = write(tmp_path)
    write_jsonl(tmp_path / "3.jsonl", [{**row, "text_pair": "b"} for row in sentences(30)])
    with pytest.raises(DataError, match=r"3.jsonl of the train split has text, text_pair, label, but .*0.jsonl has "
                       r"text, label"):
        see_splits(read_splits(DataConfig(source=source), TASK))


def test_a_file_that_changes_between_two_looks_stops_the_build(tmp_path, model_folder):
    source = write(tmp_path, count=1)
    data = DataConfig(source=source)
    seen = see_splits(read_splits(data, TASK))
    write_jsonl(tmp_path / "0.jsonl", sentences(31))
    with pytest.raises(DataError, match=r"0.jsonl has changed since this run began"):
        build_corpus(Store(str(tmp_path)), "key", seen, TASK, data, str(model_folder), None)
