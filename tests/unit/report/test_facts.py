"""A report is read where it is whole and of this version."""

import json

import pytest

from kdray.errors import StorageError
from kdray.report.facts import FACTS, KIND, VERSION, read_report
from kdray.storage import Store


def test_a_report_is_read_back(tmp_path):
    store = Store(str(tmp_path))
    store.write(json.dumps({"version": VERSION, "name": "films"}).encode(), KIND, "key", FACTS)
    assert read_report(store, "key")["name"] == "films"


def test_a_report_that_is_gone_or_older_says_what_to_do(tmp_path):
    store = Store(str(tmp_path))
    with pytest.raises(StorageError, match=r"report key is gone from .*: run `kdray evaluate` again"):
        read_report(store, "key")
    store.write(b'{"name": "films"}', KIND, "key", FACTS)
    with pytest.raises(StorageError, match=rf"report.json has version None, this kdray draws {VERSION}"):
        read_report(store, "key")
