"""An artefact is whole or absent, whatever happens while it is written."""

import errno
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from kdray.errors import StorageError
from kdray.storage import MANIFEST, Store, absolute_uri, artefact, content_key, fetch, folder_at


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(str(tmp_path / "store"))


def publish(store: Store, key: str, text: str) -> dict:
    with store.staging("things") as folder:
        (folder / "file.txt").write_text(text)
        return store.publish("things", key, folder, {"parents": {"a": "b"}})


def everything(store: Store) -> list[str]:
    return sorted(str(path.relative_to(store.root)) for path in Path(store.root).rglob("*"))


@pytest.fixture
def full_disk(monkeypatch):
    def refuse(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)


def test_a_published_artefact_has_its_files_and_a_manifest_with_parents(store):
    made = publish(store, "k1", "whole")
    assert store.manifest("things", "k1") == made
    assert made == {"version": 2, "kind": "things", "key": "k1", "parents": {"a": "b"}}
    assert (store.fetch("things", "k1") / "file.txt").read_text() == "whole"


def test_without_a_manifest_an_artefact_is_not_there_and_is_made_anew(store):
    folder = Path(store.path("things", "k1"))
    folder.mkdir(parents=True)
    (folder / "file.txt").write_text("half")
    assert store.manifest("things", "k1") is None
    publish(store, "k1", "whole")
    assert (folder / "file.txt").read_text() == "whole"


def test_an_exception_while_staging_leaves_nothing(store):
    with pytest.raises(RuntimeError, match="boom"):
        with store.staging("things") as folder:
            (folder / "file.txt").write_text("half")
            raise RuntimeError("boom")
    assert everything(store) == ["things"]


def test_staged_folders_are_not_listed(store):
    publish(store, "k1", "whole")
    with store.staging("things"):
        assert store.names("things") == ["k1"]


def test_the_second_publisher_of_a_key_changes_nothing(store):
    publish(store, "k1", "first")
    publish(store, "k1", "second")
    assert (store.fetch("things", "k1") / "file.txt").read_text() == "first"
    assert everything(store) == ["things", "things/k1", "things/k1/file.txt", f"things/k1/{MANIFEST}"]


@pytest.mark.parametrize("text, words", [
    (b"", "is not a manifest"),
    (b'{"version": 2, "ki', "is not a manifest"),
    (b'\xff\xfe', "is not a manifest"),
    (b'{"version": 99}', "manifest version 99, this kdray reads 2"),
    (b'{}', "manifest version None"),
    (b'[1]', "manifest version None"),
])
def test_a_torn_manifest_or_one_of_another_version_is_refused(store, text, words):
    store.write(text, "things", "k1", MANIFEST)
    with pytest.raises(StorageError, match=words):
        store.manifest("things", "k1")


def test_a_write_on_a_full_disk_leaves_the_old_file_and_says_so(store, full_disk):
    Path(store.path("a")).mkdir(parents=True)
    Path(store.path("a", "file")).write_bytes(b"old")
    with pytest.raises(StorageError, match="no space left on the device"):
        store.write(b"new", "a", "file")
    assert store.read("a", "file") == b"old"
    assert everything(store) == ["a", "a/file"]


def test_a_publication_on_a_full_disk_leaves_nothing(store, full_disk):
    with pytest.raises(StorageError, match="no space left"):
        publish(store, "k1", "whole")
    assert everything(store) == ["things"]
    assert store.manifest("things", "k1") is None


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_a_folder_that_may_not_be_written_is_named(store, monkeypatch, number):
    def refuse(source, target):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(StorageError, match=r"cannot write to .*store"):
        store.write(b"new", "a", "file")
    assert everything(store) == ["a"]


def test_a_storage_where_no_folder_can_be_is_named_before_anything_is_written(tmp_path):
    (tmp_path / "file").write_text("mine")
    for place, words in ((tmp_path / "file", "Not a directory"), (Path("/proc/x"), "no folder can be made")):
        store = Store(str(place))
        for act in (lambda store=store: store.write(b"new", "a", "file"), lambda store=store: publish(store, "k", "x")):
            with pytest.raises(StorageError, match=f"{words}.*Choose another `storage`"):
                act()
    assert (tmp_path / "file").read_text() == "mine"


def test_content_keys_are_stable_and_tell_inputs_apart():
    assert content_key({"b": [1, "é"], "a": None}) == "f8f17faab95c024891d173fa43442b0e"
    assert content_key({"a": 1, "b": 2}) == content_key({"b": 2, "a": 1})
    different = [{"a": 1}, {"a": 1.5}, {"a": "1"}, {"a": [1]}, {"a": None}, {}, {"b": 1}, [["a", 1]]]
    assert len({content_key(inputs) for inputs in different}) == len(different)
    assert all(len(content_key(inputs)) == 32 for inputs in different)


def test_content_keys_are_those_of_another_process():
    inputs = {"labels": ["b", "a"], "rows": {"train": "x", "test": "y"}}
    code = f"from kdray.storage import content_key; print(content_key({inputs!r}))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                          env={**os.environ, "PYTHONHASHSEED": "7"}).stdout.strip()
    assert told == content_key(inputs)


def test_a_store_travels_by_its_uri(store):
    store.write(b"x", "a")
    assert pickle.loads(pickle.dumps(store)).read("a") == b"x"


@pytest.mark.parametrize("sign", ["?", "#", "%", "?a=b#c%20d", "[1] "])
def test_a_path_may_have_the_signs_of_a_uri(tmp_path, sign):
    store = Store(str(tmp_path / f"a{sign}b"))
    publish(store, "k", "hello")
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"a{sign}b"]
    uri = store.uri_of("things", "k")
    assert uri == f"{tmp_path}/a{sign}b/things/k"
    assert (fetch(uri) / "file.txt").read_text() == (folder_at(uri) / "file.txt").read_text() == "hello"
    found = artefact(uri, "things")
    assert found is not None and (found[0].uri, found[1]) == (store.uri, "k")


def test_the_query_of_a_uri_stays_behind_its_path():
    query = "?region=eu-west-3&endpoint_override=host:2"
    store = Store(f"s3://bucket/x{query}")
    assert store.uri_of("things", "k") == f"s3://bucket/x/things/k{query}"
    found = artefact(store.uri_of("things", "k"), "things")
    assert found is not None and (found[0].uri, found[1]) == (store.uri, "k")


def test_files_are_sized_and_deleted_and_absence_is_no_error(store):
    store.write(b"xyz", "a", "file")
    assert (store.size("a", "file"), store.size("a"), store.size("b")) == (3, None, None)
    store.delete("a", "file")
    store.delete("a", "file")
    store.delete_folder("a")
    store.delete_folder("a")
    assert store.names("a") == [] and not store.exists("a")


@pytest.mark.parametrize("act", ["write", "publish"])
def test_a_folder_that_others_remove_all_the_time_is_written_all_the_same(store, act):
    """Thousands of times, from processes of their own: the folder's last writer is its remover's next victim."""
    code = "\n".join([
        "import sys", "from kdray.storage import Store", f"store = Store({store.uri!r})", "for number in range(2000):",
        {"write": "    store.write(b'x', 'things', 'k', f'{sys.argv[1]}{number}')",
         "publish": "    with store.staging('things') as folder: store.publish('things', 'k', folder, {})"}[act],
        "    store.files('things', 'k')", "    store.delete_folder('things', 'k')"])
    both = [subprocess.Popen([sys.executable, "-c", code, which], stderr=subprocess.PIPE, text=True) for which in "ab"]
    assert [(one.communicate()[1], one.returncode) for one in both] == [("", 0)] * 2
    assert everything(store) == ["things"]


def test_a_manifest_keeps_text_as_it_is(store):
    store.write(b"", "x")
    with store.staging("things") as folder:
        store.publish("things", "k", folder, {"labels": ["é", "日本"]})
    assert json.loads(store.read("things", "k", MANIFEST))["labels"] == ["é", "日本"]


@pytest.mark.parametrize("uri", [
    "s3://KEYID:hush@bucket/x", "s3://KEYID:hu/sh+@bucket/x", "S3://KEYID:hush@bucket", "s3://KEYID@bucket/x",
    "s3://bucket/x?access_key=KEYID&secret_key=hush", "s3://bucket/x?region=eu-west-1&session_token=hush",
    "s3://bucket/x?endpoint_override=http://KEYID:hush@host:9000", "abfs://account:hush@host/x",
    "gs://bucket/x?access_token=hush",
])
def test_a_uri_with_credentials_is_refused_and_not_repeated(uri):
    with pytest.raises(StorageError, match="AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile") as caught:
        Store(uri)
    assert "hush" not in str(caught.value) and "KEYID" not in str(caught.value)


@pytest.mark.parametrize("uri", [
    "s3://bucket/x", "s3://bucket/user@host/a:b", "s3://bucket?region=eu-west-1&scheme=http&endpoint_override=host:9000",
    "gs://anonymous@bucket/x", "hdfs://user@host:8020/x", "file:///home/a:b@c",
])
def test_a_uri_without_credentials_stays_as_it_is(uri):
    assert absolute_uri(uri) == uri


def test_the_query_and_the_environment_of_s3_are_heeded(monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://host:1")
    found = [Store(uri).file_system.__reduce__()[1][0] for uri in (
        "s3://bucket/x", "s3://bucket/x?region=eu-west-3&scheme=http&endpoint_override=host:2")]
    assert found[0]["endpoint_override"] == "http://host:1" and found[0]["access_key"] is None
    assert [found[1][name] for name in ("region", "scheme", "endpoint_override")] == ["eu-west-3", "http", "host:2"]


def test_a_uri_that_nothing_opens_is_named():
    with pytest.raises(StorageError, match="cannot open s4://bucket/x: Unrecognized filesystem type"):
        Store("s4://bucket/x")


@pytest.mark.parametrize("parts", [("packages", "../../home"), ("packages", ".."), ("corpus", "k", "../../../x.arrow")])
def test_a_name_that_leads_upwards_is_neither_read_nor_written(store, parts):
    for act in (store.read, store.fetch if len(parts) == 2 else store.size, lambda *given: store.write(b"", *given),
                store.delete_folder):
        with pytest.raises(StorageError, match="leads out of"):
            act(*parts)
    assert store.exists() is False


@pytest.mark.parametrize("name", ["x" * 300, "ü" * 128])
def test_a_storage_whose_name_is_too_long_is_said_before_it_is_read(tmp_path, name):
    with pytest.raises(StorageError, match=r"x+\.\.\.|ü+\.\.\.") as raised:
        absolute_uri(str(tmp_path / name / "run"))
    assert "255. Choose another `storage`" in str(raised.value)
    assert absolute_uri(str(tmp_path / name[:127])) == str(tmp_path / name[:127])
