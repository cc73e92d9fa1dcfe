"""Only a checkpoint of which all files are there is gone on from; the one before it goes when it is there."""

import shutil
from pathlib import Path

import pytest
from pyarrow.fs import LocalFileSystem

from kdray.storage import Store
from kdray.training.checkpoints import SEAL, Checkpoints, seal, whole

PLACE = ("train", "students-k")


def made(parent: Path, number: int) -> Path:
    folder = parent / f"checkpoint_{number:06d}"
    (folder / "engine").mkdir(parents=True)
    (folder / "state.json").write_text('{"step": 3}')
    (folder / "engine" / "model.pt").write_bytes(bytes(100))
    (folder / SEAL).write_bytes(seal(LocalFileSystem(), str(folder)))
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


@pytest.fixture
def run(store: Store) -> Path:
    """The folder of a run in the store."""
    return Path(store.path(*PLACE))


@pytest.fixture
def folders(run: Path) -> list[Path]:
    return [made(run, number) for number in (10, 8, 9)]


def found(parent: Path) -> list[int]:
    return sorted(whole(LocalFileSystem(), str(parent)))


def part(folder: Path, name: str, text: str) -> Path:
    """What one process adds to a checkpoint."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    return folder


def test_those_that_are_whole_are_found(folders, run):
    (run / "result.json").touch()
    (run / "checkpoint_2026-11-28").mkdir()
    (run / "checkpoint_2026-11-28" / SEAL).write_text("{}")
    assert found(run) == [8, 9, 10]


@pytest.mark.parametrize("lost", ["state.json", "engine/model.pt", "files.json"])
def test_one_that_lacks_a_file_is_left_out(folders, run, lost):
    (folders[1] / lost).unlink()
    assert found(run) == [9, 10]


def test_one_cut_short_is_left_out_and_so_is_one_whose_seal_is(folders, run):
    (folders[0] / "engine" / "model.pt").write_bytes(bytes(99))
    (folders[1] / "files.json").write_text('{"sta')
    assert found(run) == [9]


def test_there_are_none_without_a_folder(folders, run, store):
    shutil.rmtree(run)
    assert found(run) == []
    assert Checkpoints(store, PLACE).fetch() is None and Checkpoints(store, PLACE).read("state.json") is None


def test_the_next_checkpoint_takes_the_place_of_those_before_it_once_it_is_sealed(store, folders, run, tmp_path):
    checkpoints = Checkpoints(store, PLACE)
    checkpoints.write(part(tmp_path / "part", "state.json", "new"))
    assert found(run) == [8, 9, 10]
    checkpoints.finish()
    assert [path.name for path in run.iterdir()] == ["checkpoint_000011"] and found(run) == [11]
    assert Checkpoints(store, PLACE).read("state.json") == b"new"
    fetched = Checkpoints(store, PLACE).fetch()
    assert (fetched / "state.json").read_text() == "new"
    shutil.rmtree(fetched)


def test_the_parts_of_two_processes_are_one_checkpoint_which_one_of_them_seals(store, run, tmp_path):
    one, other = Checkpoints(store, PLACE), Checkpoints(store, PLACE)
    for number in range(2):
        one.write(part(tmp_path / "one", "a", f"a{number}"))
        other.write(part(tmp_path / "other", "b", f"b{number}"))
        other.finish(seals=False)
        assert found(run) == list(range(number)), "before it is sealed, the one before it is there"
        one.finish()
        assert found(run) == [number]
    assert Checkpoints(store, PLACE).read("a") + Checkpoints(store, PLACE).read("b") == b"a1b1"


def test_a_process_that_was_thought_dead_removes_none_that_came_after_its_own(store, folders, run, tmp_path):
    late = Checkpoints(store, PLACE)
    made(run, 12)
    late.write(part(tmp_path / "part", "state.json", "late"))
    late.finish()
    assert found(run) == [11, 12]
