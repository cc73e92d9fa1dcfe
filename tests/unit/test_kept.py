"""What a machine keeps of remote artefacts is bounded, and what a living process was given stays under its hands."""

import os
import tempfile
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from kdray.copies import local_copy
from kdray.kept import LIMIT, _used
from kdray.storage import Store, file_digest, machine_folder

SIZE = 10_000
spawned = get_context("spawn")


class Remote(Store):
    """A storage that counts as remote."""

    def __init__(self, uri: str):
        super().__init__(uri)
        self.local = False

    def __reduce__(self):
        return Remote, (self.uri,)


@pytest.fixture
def store(tmp_path, monkeypatch) -> Remote:
    """Artefacts a to g, and a folder for this test's copies, in this process and in those that it starts."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv(LIMIT, str(3.5 * SIZE / 2**30))
    for name in "abcdefg":
        with (plain := Store(str(tmp_path / "store"))).staging("things") as folder:
            (folder / "file").write_text(name * SIZE)
            plain.publish("things", name, folder, {})
    return Remote(plain.uri)


def content(folder: Path) -> str:
    return (folder / "file").read_text()


def kept() -> list[str]:
    return sorted(path.name for path in machine_folder().glob("artefacts/*/*") if path.is_dir())


def fetch(store: Store, names: str, go: Connection | None = None) -> None:
    folders = [store.fetch("things", name) for name in names]
    if go:
        go.send("fetched")
        go.recv()
    assert [content(folder) for folder in folders] == [name * SIZE for name in names]


def elsewhere(store: Store, name: str) -> None:
    """Fetches as a process does that ends then: the system closes its files."""
    fetch(store, name)
    for file in _used.values():
        os.close(file)
    _used.clear()


def living(store: Store, names: str) -> tuple[Connection, Callable[[], None]]:
    """A process that has fetched, and reads it when it is told to."""
    ours, theirs = spawned.Pipe()
    process = spawned.Process(target=fetch, args=(store, names, theirs))
    process.start()
    assert ours.recv() == "fetched"

    def ended() -> None:
        process.join(60)
        assert process.exitcode == 0

    return ours, ended


def test_those_not_used_for_longest_go_first(store):
    for name in "abcade":
        elsewhere(store, name)
    assert kept() == ["a", "c", "d", "e"], "three that nobody uses, and the one that was being fetched"


def test_what_a_living_process_was_given_stays_and_does_not_count(store):
    ours, ended = living(store, "abcd")
    for name in "ef":
        elsewhere(store, name)
    assert kept() == list("abcdef")
    ours.send("read")
    ended()
    elsewhere(store, "g")
    assert kept() == ["d", "e", "f", "g"]


def test_what_a_killed_process_was_given_goes(store):
    ours, theirs = spawned.Pipe()
    process = spawned.Process(target=fetch, args=(store, "abcd", theirs))
    process.start()
    assert ours.recv() == "fetched"
    process.kill()
    process.join(60)
    elsewhere(store, "e")
    assert kept() == ["b", "c", "d", "e"]


def test_artefacts_and_copies_of_files_have_one_bound(store):
    for name in "abc":
        elsewhere(store, name)
    for number in range(5):
        Store(store.uri).write(bytes([number]) * SIZE, "shards", str(number))
        local_copy(store, ("shards", str(number)), file_digest(store.path("shards", str(number))))
    elsewhere(store, "d")
    copies = list(machine_folder().glob("copies/[0-9a-f]*"))
    assert len(copies) == 3 and kept() == ["d"]


def test_what_was_removed_is_fetched_anew(store):
    for name in "abcde":
        elsewhere(store, name)
    assert "a" not in kept()
    assert content(store.fetch("things", "a")) == "a" * SIZE
