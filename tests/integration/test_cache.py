"""The cache and its commands: what it says of itself, what more rows cost, several teachers read as one."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from kdray.cache.manifest import KIND
from kdray.config import load
from kdray.pipeline import Pipeline
from kdray.storage import Store
from tests.integration.conftest import run_here, small_config, write_config
from tests.small import make_model, sentences, write_jsonl

Told = Callable[..., str]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, teacher: Path) -> Path:
    """Three files of rows."""
    folder = tmp_path_factory.mktemp("cache")
    rows = sentences(300)
    write_jsonl(folder / "train.jsonl", rows[:200])
    write_jsonl(folder / "held.jsonl", rows[200:])
    return folder


def config(folder: Path, model: Path, **changes: object) -> Path:
    data = {"train": str(folder / "train.jsonl"), "validation": str(folder / "held.jsonl"),
            "test": str(folder / "held.jsonl"), "max_length": 32}
    return write_config(folder / "c.yaml", small_config(folder / "store", folder, model, {"data": data, **changes}))


def fill(path: Path) -> dict:
    """The cache's manifest."""
    return Pipeline(load(path)).cache


@pytest.fixture(scope="module")
def filled(folder: Path, teacher: Path, cluster: None) -> dict:
    return fill(config(folder, teacher))


@pytest.fixture
def told(folder: Path) -> Told:
    """Runs a `kdray cache` command in this process and returns what it printed."""

    def run(*arguments: str, status: int = 0, store: Path = folder / "store") -> str:
        done = run_here("cache", *arguments, "--storage", str(store))
        assert done.returncode == status, done.stderr
        return done.stdout + done.stderr

    return run


def test_ls_and_show_tell_what_the_manifest_holds(told: Told, folder: Path, teacher: Path, filled: dict) -> None:
    assert filled["key"][:12] in told("ls") and str(teacher) in told("ls")
    text = told("show", filled["key"][:8])
    for word in (filled["key"], filled["schema"]["teacher"], "train 200, validation 100, test 100", "confidence",
                 "train: 200 rows, 200 targets", "negative", "positive"):
        assert word in text
    assert float(re.search(r"Agreement with the labels ([\d.]+)", text)[1]) > 0.9


def test_verify_passes_then_finds_a_spoilt_shard_which_a_fill_mends(told: Told, folder: Path, teacher: Path,
                                                                  filled: dict) -> None:
    text = told("verify", filled["key"][:8])
    assert "15 of 15 shards are as they were written" in text and "0 decisions differ" in text
    shard = next((folder / "store" / "shards").rglob("*.arrow"))
    whole = shard.read_bytes()
    shard.write_bytes(whole[:300] + bytes([whole[300] ^ 1]) + whole[301:])
    text = told("verify", filled["key"][:8], status=1)
    spoilt = text.count(f"{shard} is corrupt")
    assert spoilt in (1, 2) and f"{15 - spoilt} of 15 shards" in text, "validation and test have the same rows"
    shard.unlink()
    assert fill(config(folder, teacher))["key"] == filled["key"]
    assert shard.read_bytes() == whole
    told("verify", filled["key"][:8], "--rows", "0")


def test_appended_and_edited_rows_cost_their_shards_alone(told: Told, folder: Path, teacher: Path, filled: dict,
                                                          tmp_path: Path) -> None:
    rows = sentences(300)
    (tmp_path / "store").symlink_to(folder / "store")
    write_jsonl(tmp_path / "held.jsonl", rows[200:])
    write_jsonl(tmp_path / "train.jsonl", rows[:200] + sentences(40, seed=5))
    appended = fill(config(tmp_path, teacher))
    assert appended["rows"]["train"] == 240 and 40 < appended["rows_computed"] <= 40 + 32
    rows[40] = {**rows[40], "text": "the plot was awful and dull", "label": "negative"}
    write_jsonl(tmp_path / "train.jsonl", rows[:200] + sentences(40, seed=5))
    edited = fill(config(tmp_path, teacher))
    assert edited["rows_computed"] == 32 and edited["key"] != appended["key"]
    text = told("diff", appended["key"], edited["key"])
    assert "shards: 11 shared, 1 of the first alone, 1 of the second alone" in text
    assert "validation: 100 rows, largest difference of a logit 0," in text


def test_another_codec_is_another_cache_that_says_what_it_costs(told: Told, folder: Path, teacher: Path,
                                                                filled: dict) -> None:
    small = fill(config(folder, teacher, teacher={"model": str(teacher), "precision": "float32"},
                        cache={"rows_per_shard": 32, "codec": "float16", "compression": "zstd"}))
    assert small["key"] != filled["key"] and 0 < small["codec_error"]["largest_logit"] < 0.01
    assert all(abs(kl) < 1e-4 for kl in small["codec_error"]["kl"].values())
    assert "codec: float32 | float16" in told("diff", filled["key"], small["key"])


def test_an_ensemble_runs_no_teacher_again_and_teaches_a_student(told: Told, folder: Path, teacher: Path,
                                                                 filled: dict) -> None:
    other = make_model(folder / "other", seed=11)
    second = fill(config(folder, other, teacher={"model": str(other), "finetune": {"epochs": 2, "lr": 3e-3}}))
    before = {path.name for path in (folder / "store" / "shards").rglob("*.arrow")}
    path = config(folder, teacher, cache={"rows_per_shard": 32, "ensemble": [second["key"][:10]], "weights": [2, 1],
                                          "mean": "probabilities"})
    ensemble = fill(path)
    assert ensemble["members"] == [filled["key"], second["key"]]
    assert Pipeline(load(path)).students["student"]["validation"]["accuracy"] > 0.8
    assert {path.name for path in (folder / "store" / "shards").rglob("*.arrow")} == before
    assert "mean of probabilities: 0.667 x" in told("show", ensemble["key"])
    assert "ensemble of 2" in told("ls")


def test_gc_removes_what_nothing_names_and_keeps_every_cache(told: Told, folder: Path, filled: dict) -> None:
    orphan = folder / "store" / "shards" / "00" / f"{'0' * 32}.arrow"
    orphan.parent.mkdir(exist_ok=True)
    orphan.write_bytes(b"x" * 1000)
    assert "would remove 0 files" in told("gc", "--dry-run")
    os.utime(orphan, (0, 0))
    assert "would remove 1 files, 1.0 kB" in told("gc", "--dry-run") and orphan.exists()
    assert "removed 1 files" in told("gc") and not orphan.exists()
    assert "removed 0 files" in told("gc", "--grace", "0")
    for key in Store(str(folder / "store")).names(KIND):
        told("verify", key, "--rows", "0")


def test_a_cache_that_is_not_there_is_said_to_be_so(told: Told, folder: Path, filled: dict, tmp_path: Path) -> None:
    assert "no cache begins with 'zz'" in told("show", "zz", status=1)
    assert "no cache in" in told("ls", store=tmp_path)
