"""Actors, workers and drivers are killed in mid-work; what comes out is what an undisturbed run gives."""

import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray
from safetensors.torch import load_file

from kdray.cache.plan import Slot
from kdray.config import load
from kdray.errors import TrainingError
from kdray.pipeline import Pipeline
from kdray.teacher.pool import Pool
from tests.integration.conftest import Command, command, environment, small_config, write_config


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory, rows: Path, teacher: Path, cluster: None) -> Path:
    """Storage of an undisturbed run with a cache, and a student with checkpoints in mid-epoch."""
    folder = tmp_path_factory.mktemp("quiet")
    pipeline = Pipeline(load(make(folder, rows, teacher)))
    assert pipeline.students["student"]
    return folder / "store"


def make(folder: Path, rows: Path, teacher: Path, max_failures: int = 2, epochs: int = 3, **training: Any) -> Path:
    return write_config(folder / "c.yaml", small_config(folder / "store", rows, teacher, {
        "cache": {"rows_per_shard": 1}, "teacher": {"model": str(teacher), "num_cpus": 1},
        "training": {"epochs": epochs, "lr": 3e-3, "checkpoint_steps": 4, "num_cpus": 1,
                     "max_failures": max_failures, **training}}))


def shards(store: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (store / "shards").rglob("*.arrow")}


def student(store: Path) -> dict:
    (folder,) = (path for path in (store / "students").iterdir() if not path.name.startswith("."))
    return load_file(folder / "model.safetensors")


def same_weights(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(bool((one[name] == other[name]).all()) for name in one)


def kill_when(found: Callable[[], bool], victim: Callable[[], int | None]) -> threading.Thread:
    """Sends SIGKILL to the `victim` process as soon as `found`."""

    def watch() -> None:
        ends = time.monotonic() + 120
        while time.monotonic() < ends:
            pid = victim() if found() else None
            if pid is not None:
                os.kill(pid, signal.SIGKILL)
                return
            time.sleep(0.02)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


def process(title: str) -> int | None:
    """A Ray worker process of this cluster, by the start of its title."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().decode(errors="replace").replace("\0", " ")
            parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
            mine = Path(f"/proc/{parent}/stat").read_text().rpartition(")")[2].split()[1] == str(os.getpid())
        except (OSError, IndexError):
            continue
        if words.startswith(title) and mine:
            return int(folder.name)
    return None


def test_killed_actor_changes_nothing(tmp_path: Path, rows: Path, teacher: Path, quiet: Path) -> None:
    store = tmp_path / "store"
    killer = kill_when(lambda: len(shards(store)) >= 5, lambda: process("ray::TeacherActor"))
    assert Pipeline(load(make(tmp_path, rows, teacher))).cache
    killer.join(1)
    assert not killer.is_alive(), "nothing was killed"
    assert shards(store) == shards(quiet)


def test_killed_worker_resumes_on_the_same_batches(tmp_path: Path, rows: Path, teacher: Path, quiet: Path) -> None:
    store = tmp_path / "store"
    pipeline = Pipeline(load(make(tmp_path, rows, teacher)))
    assert pipeline.cache
    saved = lambda: any((store / "train").rglob("checkpoint_*/state.json"))  # noqa: E731
    killer = kill_when(saved, lambda: process("ray::LoneWorker"))
    assert pipeline.students["student"]
    killer.join(1)
    assert not killer.is_alive(), "nothing was killed"
    assert same_weights(student(store), student(quiet))


@pytest.mark.slow
@pytest.mark.parametrize("stage", [0, 1, 3])
def test_when_one_of_two_workers_is_killed_both_resume_on_the_same_batches(
        tmp_path: Path, rows: Path, teacher: Path, cluster: None, stage: int) -> None:
    found = []
    for name in ("calm", "killed"):
        (tmp_path / name).mkdir()
        store = tmp_path / name / "store"
        pipeline = Pipeline(load(make(tmp_path / name, rows, teacher, workers=2,
                                      deepspeed={"zero_optimization": {"stage": stage}})))
        assert pipeline.cache
        if name == "killed":
            sealed = lambda: any((store / "train").rglob("checkpoint_*/files.json"))  # noqa: B023, E731
            killer = kill_when(sealed, lambda: process("ray::RayTrainWorker"))
        assert pipeline.students["student"] and not list((store / "train").iterdir())
        found.append(student(store))
    killer.join(1)
    assert not killer.is_alive(), "nothing was killed"
    assert same_weights(*found)


def test_a_worker_that_may_not_begin_again_says_so_and_the_next_run_goes_on(
        tmp_path: Path, rows: Path, teacher: Path, quiet: Path) -> None:
    store = tmp_path / "store"
    pipeline = Pipeline(load(make(tmp_path, rows, teacher, max_failures=0)))
    assert pipeline.cache
    saved = lambda: any((store / "train").rglob("checkpoint_*/state.json"))  # noqa: E731
    kill_when(saved, lambda: process("ray::LoneWorker"))
    with pytest.raises(TrainingError, match="its restarts are used up, last cause: ActorDiedError: The actor died"):
        assert pipeline.students["student"]
    assert list((store / "train").rglob("checkpoint_*/state.json"))
    again = Pipeline(load(make(tmp_path, rows, teacher)))
    assert again.students["student"] and not list((store / "train").iterdir())
    assert same_weights(student(store), student(quiet))


@pytest.mark.parametrize("number, status", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_driver_ended_in_mid_cache_goes_on(tmp_path: Path, rows: Path, teacher: Path, quiet: Path, kdray: Command,
                                           number: int, status: int) -> None:
    config, store = make(tmp_path, rows, teacher), tmp_path / "store"
    driver = subprocess.Popen(command("cache", "fill", str(config)), env=environment(), stderr=subprocess.PIPE)
    wait_for(lambda: len(shards(store)) >= 3)
    driver.send_signal(number)
    assert driver.wait(60) == status
    before = len(shards(store))
    assert 3 <= before < len(shards(quiet)), "the driver had finished"
    done = kdray("cache", "fill", str(config))
    assert done.returncode == 0, done.stderr
    assert "0 of" not in done.stderr and "shards are there" in done.stderr
    assert shards(store) == shards(quiet)


def test_a_driver_interrupted_in_mid_training_says_one_line_and_the_next_run_goes_on(
        tmp_path: Path, rows: Path, teacher: Path, quiet: Path, kdray: Command) -> None:
    config, store = make(tmp_path, rows, teacher), tmp_path / "store"
    assert kdray("cache", "fill", str(config)).returncode == 0
    driver = subprocess.Popen(command("distill", str(config)), env=environment(), stderr=subprocess.PIPE, text=True)
    wait_for(lambda: any((store / "train").rglob("checkpoint_*/state.json")))
    driver.send_signal(signal.SIGINT)
    _, said = driver.communicate(timeout=60)
    assert driver.returncode == 130 and said.endswith("kdray: interrupted; the same command goes on from here\n"), said
    assert "begins again" not in said
    done = kdray("distill", str(config))
    assert done.returncode == 0, done.stderr
    assert same_weights(student(store), student(quiet))


def test_torn_shard_is_computed_anew(tmp_path: Path, rows: Path, teacher: Path, quiet: Path, cluster: None) -> None:
    config, store = make(tmp_path, rows, teacher), tmp_path / "store"
    assert Pipeline(load(config)).cache
    torn = next((store / "shards").rglob("*.arrow"))
    torn.write_bytes(torn.read_bytes()[:-100])
    assert Pipeline(load(config)).cache
    assert shards(store) == shards(quiet)


@pytest.mark.parametrize("how", ["sleeps", "is stopped"])
def test_an_actor_that_hangs_is_ended_and_its_shard_is_leased_again(
        cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
        how: str) -> None:
    """With every processor taken, so that its successor needs the room that it had."""
    monkeypatch.setattr("kdray.teacher.leases._FLOOR", 3.0)
    monkeypatch.setattr("kdray.teacher.pool._LOOK", 0.2)

    class Hanging:
        def ready(self) -> None:
            pass

        def fill(self, slot: Slot) -> str:
            begun = tmp_path / slot.key
            if slot.start == 50 and not begun.exists():
                begun.write_text(str(os.getpid()))
                if how == "sleeps":
                    time.sleep(10**6)
                os.kill(os.getpid(), signal.SIGSTOP)
            return slot.key

    slots, done = [Slot("train", 10 * number, 10 * number + 10, f"key{number}") for number in range(20)], list[str]()
    with caplog.at_level(logging.WARNING, "kdray"):
        Pool(slots, lambda: ray.remote(num_cpus=1)(Hanging).remote(), 2, 3, done.append).run()
    assert sorted(done) == sorted(slot.key for slot in slots)
    (said,) = [message for message in caplog.messages if "hangs" in message]
    assert "rows 50 to 59 of the train split take it" in said and "its shard is leased again" in said
    wait_for(lambda: not Path(f"/proc/{(tmp_path / 'key5').read_text()}").exists())


def wait_for(condition: Callable[[], bool], seconds: float = 120) -> None:
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, "it did not come to that"
        time.sleep(0.02)
