"""Checkpoints of a process that trains alone: the last one is kept, and one in pieces is passed over."""

import shutil
from pathlib import Path

import pytest

from kdray.storage import Store
from kdray.training.alone import LoneSurroundings

PLACE = ("train", "students-a")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


@pytest.fixture
def here(store: Store) -> LoneSurroundings:
    return LoneSurroundings(store, PLACE, None)


def checkpoint(tmp_path: Path, step: int) -> Path:
    folder = tmp_path / f"step{step}"
    (folder / "engine").mkdir(parents=True)
    (folder / "engine" / "states").write_text(str(step))
    return folder


def restored(store: Store) -> str | None:
    """What the next actor goes on from."""
    folder = LoneSurroundings(store, PLACE, None).restore()
    if folder is None:
        return None
    states = (folder / "engine" / "states").read_text()
    shutil.rmtree(folder)
    return states


def test_the_last_checkpoint_is_restored_and_the_one_before_it_is_gone(store, here, tmp_path):
    assert here.restore() is None
    for step in (1, 2, 3):
        here.report({"step": step}, checkpoint(tmp_path, step))
        assert restored(store) == str(step)
        assert len(store.names(*PLACE)) == 1


def test_a_checkpoint_that_was_half_uploaded_gives_way_to_the_one_before_it(store, here, tmp_path):
    here.report({"step": 1}, checkpoint(tmp_path, 1))
    torn = Path(store.path(*PLACE, "checkpoint_000001", "engine"))
    torn.mkdir(parents=True)
    (torn / "states").write_text("2")
    assert restored(store) == "1"
    here.report({"step": 2}, checkpoint(tmp_path, 2))
    assert restored(store) == "2" and store.names(*PLACE) == ["checkpoint_000001"]
