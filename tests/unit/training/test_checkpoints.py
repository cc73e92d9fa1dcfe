"""Only a checkpoint of which all files are there is whole."""

import shutil
from pathlib import Path

import pytest
from pyarrow.fs import LocalFileSystem

from kdray.training.checkpoints import SEAL, seal, whole


def made(parent: Path, number: int) -> Path:
    folder = parent / f"checkpoint_{number:06d}"
    (folder / "engine").mkdir(parents=True)
    (folder / "state.json").write_text('{"step": 3}')
    (folder / "engine" / "model.pt").write_bytes(bytes(100))
    (folder / SEAL).write_bytes(seal(folder))
    return folder


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    return [made(tmp_path, number) for number in (10, 8, 9)]


def found(parent: Path) -> list[int]:
    return [int(name.rpartition("_")[2]) for name in whole(LocalFileSystem(), str(parent))]


def test_those_that_are_whole_are_found_in_their_order(folders, tmp_path):
    (tmp_path / "result.json").touch()
    assert found(tmp_path) == [8, 9, 10]


@pytest.mark.parametrize("lost", ["state.json", "engine/model.pt", "files.json"])
def test_one_that_lacks_a_file_is_left_out(folders, tmp_path, lost):
    (folders[1] / lost).unlink()
    assert found(tmp_path) == [9, 10]


def test_one_cut_short_is_left_out_and_so_is_one_whose_seal_is(folders, tmp_path):
    (folders[0] / "engine" / "model.pt").write_bytes(bytes(99))
    (folders[1] / "files.json").write_text('{"sta')
    assert found(tmp_path) == [9]


def test_there_are_none_without_a_folder(folders, tmp_path):
    shutil.rmtree(tmp_path)
    assert found(tmp_path) == []
