import os
import sys
from pathlib import Path

import pytest

from kdray.config import Config, parse
from kdray.portable import modules_beside, resolved


def make(**changes: object) -> Config:
    return parse({"data": {"source": "rows.csv"}, "teacher": {"model": "package:models:large"}, **changes}, "test")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "model").mkdir()
    return tmp_path


@pytest.mark.parametrize("source, path", [
    ("rows.csv", "rows.csv"), ("part-*/rows.jsonl.gz", "part-*/rows.jsonl.gz"), ("./sets/imdb", "sets/imdb"),
    ("../x.parquet", "../x.parquet"), ("~/rows.tsv", "home/rows.tsv"), ("model", "model"),
])
def test_relative_and_home_paths_become_absolute(here: Path, source: str, path: str) -> None:
    config, paths = resolved(make(data={"source": source}, storage="s3://bucket/x"))
    assert paths == {"data.source": os.path.abspath(here / path)}
    assert config.data.source == paths["data.source"]


@pytest.mark.parametrize("source", ["package:corpus:rows", "stanfordnlp/imdb", "s3://bucket/rows/*.csv"])
def test_what_is_no_path_stays(source: str) -> None:
    whole = make(data={"source": source}, storage="gs://bucket/x", student={"model": "org/small"})
    assert resolved(whole) == (whole, {})


def test_every_path_is_named_by_its_setting(here: Path) -> None:
    _, paths = resolved(make(
        storage="store", data={"train": "a.csv", "validation": "file:///b.csv", "test": "hub/set"},
        teacher={"model": "model"}, students={"a.b": {"model": "./small"}, "c": {"layers": 2}}))
    assert paths == {"storage": f"{here}/store", "data.train": f"{here}/a.csv", "data.validation": "file:///b.csv",
                     "teacher.model": f"{here}/model", "students.a.b.model": f"{here}/small"}


def test_a_link_is_kept_as_it_is_called(here: Path) -> None:
    (here / "link").symlink_to(here / "model")
    assert resolved(make(data={"source": "link/rows.csv"}, storage="s3://bucket"))[1] == {
        "data.source": f"{here}/link/rows.csv"}


def test_a_split_beside_a_source_is_no_path_though_a_folder_is_called_so(here: Path) -> None:
    (here / "test").mkdir()
    whole = make(data={"source": "hub/set", "test": "test", "transfer": "more.csv"}, storage="s3://bucket")
    config, paths = resolved(whole)
    assert config.data.test == "test" and paths == {"data.transfer": f"{here}/more.csv"}


@pytest.mark.parametrize("source, names", [
    ("package:made_rows:rows", ["helping.py", "made_rows.py"]),
    ("package:made_set.inner:rows", ["helping.py", "made_rows.py", "made_set"]),
    ("package:json:rows", []), ("package:kdray.corpus.bbcnews:rows", []), ("package:nowhere:rows", []),
    ("rows.csv", []),
])
def test_modules_beside_a_config_are_those_that_go_with_it(here: Path, monkeypatch: pytest.MonkeyPatch, source: str,
                                                           names: list[str]) -> None:
    for name in ("made_rows.py", "helping.py", "notes.txt", "made_set/__init__.py", "made_set/inner.py", "kdray/x.py"):
        (here / name).parent.mkdir(exist_ok=True)
        (here / name).write_text("")
    monkeypatch.setattr(sys, "path", [*sys.path, str(here)])
    for name in ("made_rows", "made_set", "made_set.inner"):
        monkeypatch.delitem(sys.modules, name, raising=False)  # another test's
    assert [path.name for path in modules_beside(make(data={"source": source}), here)] == names
