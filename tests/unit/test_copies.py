"""Copies on this machine are whole, downloaded once, and bounded, whoever is killed."""

import hashlib
import os
import resource
import signal
import tempfile
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

import pytest

from kdray.copies import SpoiltError, copies, local_copy
from kdray.errors import StorageError
from kdray.kept import LIMIT
from kdray.storage import Store

SIZE = 10_000
spawned = get_context("spawn").Process


class Slow(Store):
    """A store that notes each download, and takes its time."""

    def __init__(self, uri: str, seconds: float = 0.0):
        super().__init__(uri)
        self.seconds = seconds

    def read(self, *parts: str) -> bytes:
        with open(self.path("downloads"), "a") as file:
            file.write(f"{parts[-1]}\n")
        time.sleep(self.seconds)
        return super().read(*parts)


def content(name: str) -> bytes:
    return name.encode() * SIZE


def checksum(name: str) -> str:
    return hashlib.sha256(content(name)).hexdigest()


def opened(store: Store, name: str) -> bytes:
    return local_copy(store, ("shards", name), checksum(name)).to_pybytes()


def downloads(store: Store) -> list[str]:
    path = Path(store.path("downloads"))
    return path.read_text().split() if path.exists() else []


def kept() -> list[str]:
    return sorted(path.name.partition("-")[2] for path in copies().iterdir() if not path.name.startswith("."))


def partial() -> list[Path]:
    return list(copies().glob(".tmp-*"))


def limit(monkeypatch: pytest.MonkeyPatch, files: float) -> None:
    monkeypatch.setenv(LIMIT, str(files * SIZE / 2**30))


@pytest.fixture
def store(tmp_path, monkeypatch) -> Slow:
    """Files a to f, and a folder for this test's copies, in this process and in those that it starts."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    made = Slow(str(tmp_path / "store"))
    for name in "abcdef":
        made.write(content(name), "shards", name)
    return made


def open_all(uri: str, names: str) -> None:
    for name in names:
        assert opened(Slow(uri, 0.05), name) == content(name)


def open_slowly(uri: str) -> None:
    opened(Slow(uri, 60), "a")


def die_while_writing(uri: str) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_FSIZE, (SIZE // 2, SIZE // 2))
    opened(Slow(uri), "a")


def wait_for(what: Callable[[], object]) -> None:
    ends = time.monotonic() + 60
    while not what():
        assert time.monotonic() < ends
        time.sleep(0.02)


def test_a_file_is_downloaded_once(store):
    assert [opened(store, "a") for _ in range(3)] == [content("a")] * 3
    assert downloads(store) == ["a"] and kept() == ["a"]


def test_processes_that_want_the_same_files_at_once_download_each_once(store):
    processes = [spawned(target=open_all, args=(store.uri, "abcdef")) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert sorted(downloads(store)) == list("abcdef")


def test_processes_that_evict_each_other_s_files_read_them_all_the_same(store, monkeypatch):
    limit(monkeypatch, 1.1)
    processes = [spawned(target=open_all, args=(store.uri, names * 5)) for names in ("abcdef", "fedcba", "cfaebd")]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert len(kept()) <= 1 and not partial()


def test_those_not_opened_for_longest_go_first(store, monkeypatch):
    limit(monkeypatch, 3.3)
    for name in "abcad":
        opened(store, name)
        time.sleep(0.02)
    assert kept() == ["a", "c", "d"]
    opened(store, "b")
    assert kept() == ["a", "b", "d"] and downloads(store) == list("abcdb")


def test_copies_of_all_storages_have_one_bound(store, monkeypatch, tmp_path):
    limit(monkeypatch, 3.3)
    other = Slow(str(tmp_path / "other"))
    for name in "xyz":
        other.write(content(name), "shards", name)
    for name in "abc":
        opened(store, name)
    time.sleep(0.02)
    for name in "xyz":
        opened(other, name)
    assert kept() == ["x", "y", "z"]


def test_a_mapped_file_stays_readable_when_it_is_evicted(store, monkeypatch):
    limit(monkeypatch, 0)
    data = local_copy(store, ("shards", "a"), checksum("a"))
    assert kept() == [] and data.to_pybytes() == content("a")


@pytest.mark.parametrize("spoil", [lambda data: data[:-1], lambda data: b"", lambda data: b"x" + data[1:]])
def test_a_spoilt_copy_is_downloaded_anew(store, spoil):
    opened(store, "a")
    path = next(copies().glob("*-a"))
    path.write_bytes(spoil(path.read_bytes()))
    assert opened(store, "a") == opened(store, "a") == content("a")
    assert downloads(store) == ["a", "a"]


def test_what_storage_has_with_other_bytes_is_not_kept(store):
    store.write(content("b"), "shards", "a")
    with pytest.raises(SpoiltError, match=f"{SIZE} bytes"):
        opened(store, "a")
    assert kept() == [] and not partial()
    store.write(content("a"), "shards", "a")
    assert opened(store, "a") == content("a")


def test_what_storage_does_not_have_leaves_nothing(store):
    store.delete("shards", "a")
    with pytest.raises(FileNotFoundError):
        opened(store, "a")
    assert kept() == [] and not partial()


def test_a_process_killed_while_it_writes_leaves_no_copy_and_no_rest(store):
    process = spawned(target=die_while_writing, args=(store.uri,))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGXFSZ
    assert kept() == [] and [path.stat().st_size for path in partial()] == [SIZE // 2]
    assert opened(store, "a") == content("a")
    assert kept() == ["a"] and not partial()


def test_a_killed_process_holds_nobody_up(store):
    first, second = (spawned(target=work, args=arguments) for work, arguments in (
        (open_slowly, (store.uri,)), (open_all, (store.uri, "a"))))
    first.start()
    wait_for(lambda: downloads(store))
    second.start()
    time.sleep(1)
    assert second.exitcode is None and downloads(store) == ["a"]
    first.kill()
    second.join(30)
    assert second.exitcode == 0 and kept() == ["a"]


def test_what_killed_processes_left_goes_with_the_copies_when_it_is_old(store, monkeypatch):
    limit(monkeypatch, 3.3)
    opened(store, "a")
    for name, age in (("old", 7200), ("new", 60)):
        path = copies() / f".tmp-{name}"
        path.write_bytes(b"half")
        os.utime(path, times=(time.time() - age, time.time() - age))
    opened(store, "b")
    assert [path.name for path in partial()] == [".tmp-new"] and kept() == ["a", "b"]


def test_a_limit_that_is_no_number_is_named(store, monkeypatch):
    monkeypatch.setenv(LIMIT, "10 GiB")
    with pytest.raises(StorageError, match="KDRAY_LOCAL_GIB = '10 GiB' is not a number"):
        opened(store, "a")


@pytest.mark.parametrize("sha256", ["", "../../../../x", "0" * 63, "G" * 64])
def test_what_is_no_checksum_names_no_copy(store, tmp_path, sha256):
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SpoiltError):
        local_copy(store, ("shards", "a"), sha256)
    assert [path for path in sorted(tmp_path.rglob("*")) if path not in before and path.is_file()] == []
