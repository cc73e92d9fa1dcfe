"""Every source gives the same table of the task's columns, or says what is missing."""

import gzip
import json
import sys

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kdray.config import DataConfig
from kdray.corpus.bbcnews import rows as bbcnews
from kdray.corpus.build import see_splits
from kdray.corpus.pieces import whole
from kdray.corpus.sources import read_splits
from kdray.errors import DataError
from kdray.tasks import TASKS

SEQUENCE, TOKEN = TASKS["sequence-classification"], TASKS["token-classification"]
ROWS = [{"text": 'He said "no", then\nleft', "label": "1"}, {"text": "plain,  text é", "label": "NA"}]


def read(task=SEQUENCE, **data) -> dict[str, list]:
    seen = see_splits(read_splits(DataConfig(**data), task))
    return {split: whole(parts).to_pylist() for split, parts in seen.items()}


@pytest.fixture
def functions(tmp_path, monkeypatch):
    """Installs a module with the code given and returns its name."""

    def install(code: str, name: str) -> str:
        (tmp_path / f"{name}.py").write_text(code)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, name, raising=False)
        return name

    return install


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets-cache")


def as_csv(path, extra: str = "") -> None:
    path.write_text('text,label\n"He said ""no"", then\nleft",1\n"plain,  text é",NA\n' + extra)


def as_jsonl(path) -> None:
    path.write_text("".join(json.dumps({**row, "unused": [1]}) + "\n" for row in ROWS))


def as_parquet(path) -> None:
    pq.write_table(pa.Table.from_pylist(ROWS), path)


@pytest.mark.parametrize("name, write", [
    ("a.csv", as_csv), ("a.CSV", as_csv), ("a.jsonl", as_jsonl), ("a.json", as_jsonl), ("a.ndjson", as_jsonl),
    ("a.parquet", as_parquet), ("a.pq", as_parquet)])
def test_a_file_of_each_kind_gives_its_rows(tmp_path, name, write):
    write(tmp_path / name)
    assert read(source=str(tmp_path / name)) == {"train": ROWS}
    assert read(source=f"file://{tmp_path / name}") == {"train": ROWS}


def test_tsv_has_no_quotes(tmp_path):
    (tmp_path / "a.tsv").write_text('text\tlabel\n"Hi", he said\tx\n5" disk\ty\n')
    assert read(source=str(tmp_path / "a.tsv")) == {"train": [{"text": '"Hi", he said', "label": "x"},
                                                              {"text": '5" disk', "label": "y"}]}


def test_a_gzipped_file_is_read(tmp_path):
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"text,label\nfine,x\n"))
    assert read(source=str(tmp_path / "a.csv.gz")) == {"train": [{"text": "fine", "label": "x"}]}


def test_labels_that_look_like_numbers_stay_as_written_and_json_numbers_become_text(tmp_path):
    (tmp_path / "a.csv").write_text("text,label\n1,01\n2,true\n")
    (tmp_path / "b.jsonl").write_text('{"text": "1", "label": 3}\n{"text": "2", "label": 4}\n')
    assert [row["label"] for row in read(source=str(tmp_path / "a.csv"))["train"]] == ["01", "true"]
    assert [row["label"] for row in read(source=str(tmp_path / "b.jsonl"))["train"]] == ["3", "4"]


@pytest.mark.parametrize("pattern, texts", [
    ("*.csv", "ab"), ("[a].csv", "a"), ("[!a].csv", "b"), ("?.csv", "ab"), ("**/*.csv", "abcd"), ("in/**/*.csv", "cd"),
    ("*/*.csv", "c")])
def test_a_glob_gives_the_rows_of_its_files_in_order_of_their_names(tmp_path, pattern, texts):
    (tmp_path / "in" / "deep").mkdir(parents=True)
    for name in ("b.csv", "a.csv", "in/c.csv", "in/deep/d.csv"):
        (tmp_path / name).write_text(f"text,label\n{name[-5]},x\n")
    (tmp_path / "a.csv.bak").write_text("text,label\nwrong,x\n")
    assert "".join(row["text"] for row in read(source=str(tmp_path / pattern))["train"]) == texts


def test_columns_are_mapped_and_others_left_out(tmp_path):
    (tmp_path / "a.csv").write_text("id,sentence,topic,text\n7,good,x,wrong\n")
    found = read(source=str(tmp_path / "a.csv"), columns={"text": "sentence", "label": "topic"})
    assert found == {"train": [{"text": "good", "label": "x"}]}


def test_splits_with_sources_of_their_own(tmp_path):
    for name in ("train", "test"):
        (tmp_path / f"{name}.csv").write_text(f"text,label\n{name},x\n")
    found = read(train=str(tmp_path / "train.csv"), test=str(tmp_path / "test.csv"))
    assert {split: rows[0]["text"] for split, rows in found.items()} == {"train": "train", "test": "test"}


@pytest.mark.parametrize("body", [
    "[{'text': 'a', 'label': 'x'}, {'text': 'b', 'label': 'y'}]",
    "{'text': ['a', 'b'], 'label': ['x', 'y']}",
    "__import__('pyarrow').table({'text': ['a', 'b'], 'label': ['x', 'y']})",
    "({'text': text, 'label': label} for text, label in (('a', 'x'), ('b', 'y')))",
])
def test_a_function_gives_its_rows(functions, body):
    name = functions(f"def rows():\n    return {body}\n", "given_rows")
    assert read(source=f"package:{name}:rows") == {"train": [{"text": "a", "label": "x"}, {"text": "b", "label": "y"}]}


def test_a_function_may_give_columns_by_number_and_take_arguments(functions):
    name = functions("def rows(count):\n    return ['t'] * count, ['x'] * count\n", "numbered_rows")
    found = read(source=f"package:{name}:rows", arguments={"count": 3}, columns={"text": "0", "label": "1"})
    assert found == {"train": [{"text": "t", "label": "x"}] * 3}


def test_a_function_that_prints_stays_quiet(functions, capsys):
    name = functions("def rows():\n    print('noise')\n    return {'text': ['a'], 'label': ['x']}\n", "noisy_rows")
    read(source=f"package:{name}:rows")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("source, words", [
    ("package:no_such_module:rows", "Put it beside the config, or install the package"),
    ("package:no_such.module:rows", "Put it beside the config, or install the package"),
    ("package:pyarrow:no_rows", r"module pyarrow \(.*pyarrow/__init__.py\) has no function no_rows"),
    ("package:pyarrow:csv", "has no function csv"),
    ("package:json", "package:MODULE:FUNCTION"),
    ("package:a:b:c", "package:MODULE:FUNCTION"),
    ("package:.os:system", "package:MODULE:FUNCTION"),
    ("package::rows", "package:MODULE:FUNCTION"),
])
def test_a_function_that_is_not_there_is_named(source, words):
    with pytest.raises(DataError, match=words):
        read(source=source)


@pytest.mark.parametrize("source, module", [
    ("package:os:system", "os"), ("package:subprocess:run", "subprocess"), ("package:builtins:eval", "builtins"),
    ("package:os.path:exists", "os.path"), ("package:json:no_rows", "json")])
def test_a_function_of_python_itself_is_not_called(source, module):
    with pytest.raises(DataError, match=f"{source} is a function of {module}, a part of Python itself: name one that"):
        read(source=source)


@pytest.mark.parametrize("body, module", [
    ("from os import system as rows", "posix"), ("rows = eval", "builtins"),
    ("import functools, os\nrows = functools.partial(os.mkdir, 'made')", "posix"),
    ("import subprocess\nrows = subprocess.Popen", "subprocess")])
def test_nor_is_one_that_a_package_has_from_python_itself(functions, tmp_path, monkeypatch, body, module):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=f":rows is a function of {module}, a part of Python itself"):
        read(source=f"package:{functions(body, 'borrowed_rows')}:rows", arguments={"command": "touch made"})
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("made", ["functools.partial(some, 2)", "functools.lru_cache(some)", "Some()"])
def test_what_a_package_makes_of_its_own_functions_is_called(functions, made):
    body = ("import functools\ndef some(count=2): return [{'text': 'a', 'label': 'x'}] * count\n"
            f"class Some:\n    def __call__(self): return some()\nrows = {made}\n")
    assert len(read(source=f"package:{functions(body, 'made_rows')}:rows")["train"]) == 2


def test_a_function_without_rows_gives_an_empty_split(functions):
    with pytest.raises(DataError, match="train split is empty"):
        read(source=f"package:{functions('def rows(): return []', 'no_rows')}:rows")


@pytest.mark.parametrize("body", ["5", "None", "['a', 'b']", "{'text': ['a'], 'label': ['x', 'y']}"])
def test_a_function_that_gives_no_rows_is_told_what_to_give(functions, body):
    name = functions(f"def rows():\n    return {body}\n", "wrong_rows")
    with pytest.raises(DataError, match="must return a list of dicts"):
        read(source=f"package:{name}:rows")


@pytest.mark.parametrize("body, words", [
    ("1 / 0", "raised ZeroDivisionError: division by zero"),
    ("[helper(), 1]", "raised KeyError: 'gone'"),
    ("({'text': helper()} for _ in '12')", "raised KeyError: 'gone'"),
    ("exit(0)", "raised SystemExit: 0"),
    ("__import__('json').loads('no')", "raised JSONDecodeError: Expecting value: line 1 column 1 (char 0)"),
])
def test_a_function_that_raises_is_named_with_the_error_and_its_place(functions, tmp_path, body, words):
    code = f"def helper():\n    return {{}}['gone']\ndef rows():\n    from sys import exit\n    return {body}\n"
    name = functions(code, "raising_rows")
    with pytest.raises(DataError) as error:
        read(source=f"package:{name}:rows")
    line = 2 if "helper" in body else 5
    assert str(error.value) == f"package:{name}:rows {words} ({tmp_path}/{name}.py, line {line})"


@pytest.mark.parametrize("code, words", [
    ("import no_such\n", r"raised ModuleNotFoundError: No module named 'no_such' \(.*bad_module.py, line 1"),
    ("x = 1\ny = x / 0\n", r"raised ZeroDivisionError: division by zero \(.*bad_module.py, line 2"),
    ("def rows(:\n", r"raised SyntaxError: .* \(.*bad_module.py, line 1\)$"),
    ("x = 1\nx.y\n", r"raised AttributeError: .* \(.*bad_module.py, line 2\)$"),
])
def test_a_module_that_cannot_be_imported_is_named_with_the_error(functions, code, words):
    with pytest.raises(DataError, match=words):
        read(source=f"package:{functions(code, 'bad_module')}:rows")


def test_a_function_that_is_called_wrongly_is_told_with_its_arguments(functions):
    name = functions("def rows(count):\n    return []\n", "called_rows")
    with pytest.raises(DataError, match=r"raised TypeError: .*'counts'.*\(its arguments: data.arguments\)"):
        read(source=f"package:{name}:rows", arguments={"counts": 3})


def test_columns_of_a_function_that_nobody_asked_for_may_be_anything(functions):
    body = "[{'text': 'a', 'label': 1, 'id': 1}, {'text': 'b', 'label': True, 'id': 'x', 'more': object()}]"
    name = functions(f"def rows():\n    return {body}\n", "loose_rows")
    assert read(source=f"package:{name}:rows")["train"] == [{"text": "a", "label": "1"}, {"text": "b", "label": "true"}]


def test_what_is_not_a_number_is_a_missing_label(functions):
    body = "{'text': ['a', 'b', 'c'], 'label': [1.0, float('nan'), 'x']}"
    name = functions(f"def rows():\n    return {body}\n", "nan_rows")
    assert [row["label"] for row in read(source=f"package:{name}:rows")["train"]] == ["1", None, "x"]


def test_a_local_dataset_folder_gives_its_splits(tmp_path, hub_cache):
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("train", "test"):
        (folder / f"{name}.csv").write_text(f"text,label\n{name} one,x\n{name} two,y\n")
    found = read(source=str(folder))
    assert found == {name: [{"text": f"{name} one", "label": "x"}, {"text": f"{name} two", "label": "y"}]
                     for name in ("train", "test")}
    with pytest.raises(DataError, match=r"name it as data.source"):
        read(train=str(folder))


def test_files_in_a_folder_are_read_as_files_are(tmp_path, hub_cache):
    folder = tmp_path / "data"
    (folder / "more").mkdir(parents=True)
    rows = [{"text": "2024-01-01T10:00:00", "label": "01"}, {"text": "null", "label": "NA"}]
    for name in ("train-0.jsonl", "train-1.jsonl", "more/dev.jsonl", "test.jsonl"):
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "test.jsonl").write_text('{"text": "a", "label": null}\n')
    assert read(source=str(folder)) == {"train": rows * 2, "validation": rows}, "labels of test are withheld"
    (folder / "README.md").write_text("---\nconfigs:\n- config_name: default\n  data_files: more/dev.jsonl\n---\n")
    assert list(read(source=str(folder))) == ["train"], "as the folder says"


class Loaded(dict):
    """What `datasets.load_dataset` gives."""


def loaded(monkeypatch, **splits) -> None:
    monkeypatch.setattr(datasets, "load_dataset", lambda source, subset: Loaded(splits))


def test_class_labels_of_a_dataset_become_their_names(monkeypatch):
    features = datasets.Features(text=datasets.Value("string"), label=datasets.ClassLabel(names=["neg", "pos"]))
    part = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features)
    loaded(monkeypatch, train=part, validation=part.select([1]))
    assert read(source="owner/name") == {"train": [{"text": "a", "label": "pos"}, {"text": "b", "label": "neg"}],
                                         "validation": [{"text": "b", "label": "neg"}]}


def rows_of_each(*names: str) -> dict[str, datasets.Dataset]:
    return {name: datasets.Dataset.from_dict({"text": [name], "label": ["x"]}) for name in names}


def test_splits_with_other_names_are_said_and_can_be_named(monkeypatch, caplog):
    loaded(monkeypatch, **rows_of_each("train", "validation_matched", "validation_mismatched", "test"))
    assert set(read(source="owner/name")) == {"train", "test"}
    [told] = caplog.messages
    assert "its splits validation_matched, validation_mismatched are left out, and validation cut off train" in told
    assert "data.validation: validation_matched" in told
    caplog.clear()
    found = read(source="owner/name", validation="validation_matched", test="validation_mismatched", train="test")
    assert {split: rows[0]["text"] for split, rows in found.items()} == {
        "train": "test", "validation": "validation_matched", "test": "validation_mismatched"}
    assert caplog.messages == []


def test_of_two_splits_for_one_the_first_is_taken_and_the_other_said(monkeypatch, caplog):
    caplog.set_level("INFO", "kdray")
    loaded(monkeypatch, **rows_of_each("train", "dev", "val", "test"))
    assert read(source="owner/name")["validation"] == [{"text": "dev", "label": "x"}]
    assert "its splits val are left out" in caplog.text and caplog.records[0].levelname == "INFO"


@pytest.mark.parametrize("source", ["owner/name", "rows.csv"])
def test_a_split_that_a_source_does_not_have_is_refused(monkeypatch, tmp_path, source):
    (tmp_path / "rows.csv").write_text("text,label\na,x\n")
    monkeypatch.chdir(tmp_path)
    loaded(monkeypatch, **rows_of_each("train"))
    with pytest.raises(DataError, match=r"data.test = b.csv beside data.source names a split of .*, which has train. "
                                        r"Where it is a source of its own"):
        read(source=source, test="b.csv")


@pytest.mark.parametrize("several", [False, True])
def test_a_dataset_saved_to_disk_is_read_with_the_names_of_its_classes(tmp_path, several):
    features = datasets.Features(text=datasets.Value("string"), label=datasets.ClassLabel(names=["neg", "pos"]))
    part = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features)
    (datasets.DatasetDict(train=part, test=part) if several else part).save_to_disk(tmp_path / "set")
    rows = [{"text": "a", "label": "pos"}, {"text": "b", "label": "neg"}]
    assert read(source=str(tmp_path / "set")) == ({"train": rows, "test": rows} if several else {"train": rows})
    if not several:
        assert read(train=str(tmp_path / "set"), validation=str(tmp_path / "set"))["validation"] == rows


def test_columns_of_a_dataset_that_nobody_asked_for_are_not_read(monkeypatch):
    part = datasets.Dataset.from_dict({"text": ["a"], "label": ["x"], "meta": [{"a": 1}]})
    loaded(monkeypatch, train=part)
    assert read(source="owner/name") == {"train": [{"text": "a", "label": "x"}]}


def test_tags_of_a_dataset_become_their_names(monkeypatch):
    features = datasets.Features(tokens=datasets.List(datasets.Value("string")),
                                 ner_tags=datasets.List(datasets.ClassLabel(names=["O", "B-X"])))
    part = datasets.Dataset.from_dict({"tokens": [["a"], ["b", "c"]], "ner_tags": [[0], [1, 0]]}, features)
    loaded(monkeypatch, train=part.select([1, 0]))
    assert read(TOKEN, source="owner/name", columns={"tags": "ner_tags"})["train"] == [
        {"tokens": ["b", "c"], "tags": ["B-X", "O"]}, {"tokens": ["a"], "tags": ["O"]}]


def test_labels_that_a_dataset_hides_are_missing(monkeypatch):
    features = datasets.Features(text=datasets.Value("string"), label=datasets.ClassLabel(names=["neg", "pos"]))
    hidden = datasets.Dataset.from_dict({"text": ["a"], "label": [-1]}, features)
    loaded(monkeypatch, train=hidden)
    assert read(source="owner/name") == {"train": [{"text": "a", "label": None}]}


def test_a_split_with_withheld_labels_is_left_out(monkeypatch):
    features = datasets.Features(text=datasets.Value("string"), label=datasets.ClassLabel(names=["neg", "pos"]))
    given = datasets.Dataset.from_dict({"text": ["a"], "label": [1]}, features)
    hidden = datasets.Dataset.from_dict({"text": ["b"], "label": [-1]}, features)
    loaded(monkeypatch, train=given, validation=given, test=hidden)
    assert set(read(source="owner/name")) == {"train", "validation"}


def test_a_dataset_without_train_is_refused(monkeypatch):
    loaded(monkeypatch, test=datasets.Dataset.from_dict({"text": ["a"], "label": ["x"]}))
    with pytest.raises(DataError, match="no train split, only test"):
        read(source="owner/name")


def test_a_dataset_that_is_not_there_is_named(hub_cache):
    with pytest.raises(DataError, match="'no-such-owner/no-such-data'"):
        read(source="no-such-owner/no-such-data")


@pytest.mark.parametrize("name, words", [
    ("missing.csv", "no file matches .*missing.csv"),
    ("missing/*.csv", "no file matches"),
    ("missing", "neither a folder nor a file of a known kind"),
    ("notes.doc", r"neither a folder nor a file of a known kind \(.csv, .tsv, "),
    ("notes.txt", "cannot read .*notes.txt as columns: a word a line is what token-classification reads"),
])
def test_a_missing_file_is_named(tmp_path, name, words):
    for known in ("notes.txt", "notes.doc"):
        (tmp_path / known).write_text("text")
    with pytest.raises(DataError, match=words):
        read(source=str(tmp_path / name))


def test_a_missing_column_names_those_there_and_the_remedy(tmp_path):
    (tmp_path / "a.csv").write_text("sentence,label\na,x\n")
    with pytest.raises(DataError, match=r"train split has no column 'text'.*only sentence, label.*data.columns.text"):
        read(source=str(tmp_path / "a.csv"))
    with pytest.raises(DataError, match="no column 'second' for text_pair"):
        read(source=str(tmp_path / "a.csv"), columns={"text": "sentence", "text_pair": "second"})


def test_what_only_measures_may_be_missing_where_it_is_learned_from(tmp_path):
    texts, pairs = tmp_path / "train.csv", tmp_path / "test.csv"
    texts.write_text("sentence\na\n")
    pairs.write_text("sentence,second,score\na,b,1\n")
    data = DataConfig(train=str(texts), validation=str(pairs), test=str(pairs),
                      columns={"text": "sentence", "text_pair": "second"})
    seen = see_splits(read_splits(data, TASKS["sentence-embedding"]))
    assert [seen[split][0].columns for split in ("train", "test")] == [("text",), ("text", "text_pair", "score")]
    assert [odd.what for odd in seen["train"][0].oddities] == [
        "the train split has no column 'second' for text_pair; its rows go without"]
    pairs.write_text("sentence\na\n")
    with pytest.raises(DataError, match="the validation split has no column 'second' for text_pair"):
        see_splits(read_splits(data, TASKS["sentence-embedding"]))


@pytest.mark.parametrize("name, text, words", [
    ("a.csv", b"text,label\n", "train split is empty"),
    ("a.csv", b"wrong,names\n", "train split is empty"),
    ("a.csv", b"", "cannot read"),
    ("a.csv", b"text,label\na,b,c\n", "cannot read .*a.csv as csv"),
    ("a.csv", "text,label\ncafé,x\n".encode("latin-1"), "cannot read"),
    ("a.jsonl", b'{"text": "a", "label"', "cannot read .*a.jsonl as json"),
    ("a.jsonl", b'{"text": {"de": "a"}, "label": "x"}\n', "text of the train split is neither text nor a list"),
    ("a.parquet", b"text,label\n", "cannot read .*a.parquet as parquet"),
])
def test_a_file_that_cannot_be_read_is_named(tmp_path, name, text, words):
    (tmp_path / name).write_bytes(text)
    with pytest.raises(DataError, match=words):
        read(source=str(tmp_path / name))


def test_the_quickstarts_articles_are_in_a_fixed_order(capsys):
    columns = bbcnews()
    capsys.readouterr()
    found = read(source="package:kdray.corpus.bbcnews:rows", columns={"label": "topic"})["train"]
    assert capsys.readouterr().out == ""
    assert [row["label"] for row in found] == columns["topic"]
    assert len(columns["text"]) == len(columns["topic"]) == 2225
    assert len(set(columns["topic"])) == 5
    assert list(zip(*columns.values(), strict=True)) == sorted(zip(*columns.values(), strict=True))


@pytest.mark.parametrize("data", ["text,label\ngood,a\n".encode("utf-16"), "text,label\ncafé,a\n".encode("latin-1")])
def test_a_file_in_another_encoding_is_named_with_the_remedy(tmp_path, data):
    (tmp_path / "rows.csv").write_bytes(data)
    with pytest.raises(DataError, match=r"cannot read .*rows.csv as csv: .*Save it as UTF-8"):
        read(source=str(tmp_path / "rows.csv"))


def test_json_in_another_encoding_is_named_with_the_remedy(tmp_path):
    (tmp_path / "rows.jsonl").write_bytes('{"text": "caf\u00e9", "label": "a"}\n'.encode("latin-1"))
    with pytest.raises(DataError, match=r"cannot read .*rows.jsonl as json: .*Save it as UTF-8"):
        read(source=str(tmp_path / "rows.jsonl"))
