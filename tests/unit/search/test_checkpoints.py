"""A checkpoint that Tune remembers is taken where it is whole, else the one after it."""

import shutil
from pathlib import Path

import pytest
from ray.tune import Checkpoint

from kdray.search.checkpoints import seal, whole


def made(trial: Path, number: int) -> Path:
    folder = trial / f"checkpoint_{number:06d}"
    (folder / "engine").mkdir(parents=True)
    (folder / "state.json").write_text('{"step": 3}')
    (folder / "engine" / "model.pt").write_bytes(bytes(100))
    seal(folder)
    return folder


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    return [made(tmp_path, number) for number in (8, 9, 10)]


def found(recorded: Path) -> str | None:
    one = whole(Checkpoint.from_directory(str(recorded)))
    return Path(one.path).name if one else None


def test_one_that_is_whole_is_taken_though_there_are_later_ones(folders):
    assert found(folders[1]) == "checkpoint_000009"


@pytest.mark.parametrize("lost", ["state.json", "engine/model.pt", "files.json"])
def test_one_half_deleted_gives_way_to_the_one_after_it(folders, lost):
    (folders[0] / lost).unlink()
    assert found(folders[0]) == "checkpoint_000009"


def test_one_cut_short_or_gone_gives_way_too(folders):
    (folders[0] / "engine" / "model.pt").write_bytes(bytes(99))
    shutil.rmtree(folders[1])
    assert found(folders[0]) == found(folders[1]) == "checkpoint_000010"


def test_an_earlier_one_is_never_taken(folders):
    (folders[2] / "files.json").write_text('{"sta')
    assert found(folders[2]) is None
    shutil.rmtree(folders[2].parent)
    assert found(folders[2]) is None
