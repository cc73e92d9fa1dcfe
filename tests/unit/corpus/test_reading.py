"""Files are found by their names, whatever signs are in them, and opened however they are packed."""

import bz2
import gzip
import zipfile

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kdray.config import DataConfig
from kdray.corpus.build import see_splits
from kdray.corpus.pieces import whole
from kdray.corpus.sources import read_splits
from kdray.errors import DataError
from kdray.tasks import TASKS

ROWS = [{"text": "fine", "label": "x"}]
CSV = b"text,label\nfine,x\n"


def read(path, task: str = "sequence-classification", **data) -> list[dict]:
    seen = see_splits(read_splits(DataConfig(source=str(path), **data), TASKS[task]))
    return whole(seen["train"]).to_pylist()


@pytest.mark.parametrize("name", ["[2024] reviews.csv", "what?.csv", "a*b.csv", "50%.csv", "#1.csv", "a%20b.csv"])
def test_a_file_that_is_there_is_no_glob_and_no_uri(tmp_path, name):
    (tmp_path / name).write_bytes(CSV)
    assert read(tmp_path / name) == ROWS


@pytest.mark.parametrize("end, pack", [(".gz", gzip.compress), (".bz2", bz2.compress), (".BZ2", bz2.compress)])
@pytest.mark.parametrize("name, content", [("a.csv", CSV), ("a.jsonl", b'{"text": "fine", "label": "x"}\n' * 2)])
def test_packed_files_are_read(tmp_path, end, pack, name, content):
    (tmp_path / f"{name}{end}").write_bytes(pack(content))
    assert read(tmp_path / f"{name}{end}")[:1] == ROWS


def archive(path, **files: bytes):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        for name, content in files.items():
            made.writestr(name.replace("_DOT_", ".").replace("_IN_", "/"), content)
    return path


def test_an_archive_of_one_file_is_read(tmp_path):
    assert read(archive(tmp_path / "a.csv.zip", a_DOT_csv=CSV)) == ROWS
    assert read(archive(tmp_path / "b.zip", in_IN_a_DOT_csv=CSV, readme=b"x", __MACOSX_IN_a_DOT_csv=b"\0")) == ROWS
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "a.pq")
    assert read(archive(tmp_path / "c.zip", a_DOT_pq=(tmp_path / "a.pq").read_bytes())) == ROWS


@pytest.mark.parametrize("files, words", [
    ({"a_DOT_csv": CSV, "b_DOT_csv": CSV}, "must have one file of a known kind, and has a.csv, b.csv"),
    ({"a_DOT_doc": CSV}, "must have one file of a known kind, and has none: a.doc"),
])
def test_an_archive_of_several_files_or_none_is_refused(tmp_path, files, words):
    with pytest.raises(DataError, match=words):
        read(archive(tmp_path / "a.zip", **files))


@pytest.mark.parametrize("name, content", [("a.csv.gz", b"no"), ("a.csv.bz2", b"no"), ("a.zip", b"no"),
                                           ("b.csv.gz", gzip.compress(CSV, mtime=0)[:-12]), ("a.parquet", b"")])
def test_a_torn_file_is_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=f"cannot read .*{name} as "):
        read(tmp_path / name)


def test_what_is_not_a_number_is_a_missing_label(tmp_path):
    pq.write_table(pa.table({"text": ["a", "b"], "label": [1.0, float("nan")], "more": [{"x": 1}, None]}),
                   tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet") == [{"text": "a", "label": "1"}, {"text": "b", "label": None}]


def test_parquet_that_datasets_wrote_has_the_names_of_its_classes(tmp_path):
    features = datasets.Features(tokens=datasets.List(datasets.Value("string")), n=datasets.Value("int64"),
                                 tags=datasets.List(datasets.ClassLabel(names=["O", "B-X"])))
    part = datasets.Dataset.from_dict({"tokens": [["a"], ["b", "c"]], "n": [1, 2], "tags": [[0], [1, 0]]}, features)
    part.to_parquet(str(tmp_path / "a.parquet"))
    assert read(tmp_path / "a.parquet", "token-classification") == [
        {"tokens": ["a"], "tags": ["O"]}, {"tokens": ["b", "c"], "tags": ["B-X", "O"]}]


def test_a_missing_column_of_parquet_names_those_there(tmp_path):
    pq.write_table(pa.table({"body": ["a"], "n": [1]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match="no column 'text' for text, only body, n"):
        read(tmp_path / "a.parquet")


def test_the_same_oddity_of_many_files_is_said_once(tmp_path, caplog):
    caplog.set_level("INFO", "kdray")
    for number in range(4):
        (tmp_path / f"{number}.csv").write_bytes(CSV.replace(b",", b";"))
    assert read(tmp_path / "*.csv") == ROWS * 4
    assert len(caplog.messages) == 1 and "0.csv: columns are separated by ';'" in caplog.messages[0]
