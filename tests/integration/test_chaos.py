"""A cluster of several nodes loses actors, nodes and drivers while a cache is filled; two drivers fill the same one;
garbage is collected meanwhile. The cache is byte for byte that of an undisturbed run, every row in it once.

The nodes are real Ray nodes on this machine, the drivers `kdray` commands, the teachers real models.
"""

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from ray.cluster_utils import Cluster

from kdray.cache.codec import Loss
from kdray.cache.manifest import KIND as CACHES
from kdray.cache.manifest import shard_table, split_shards
from kdray.cache.plan import KEY, Plan, read_plan
from kdray.cache.plan import KIND as PLANS
from kdray.cache.receipts import FILLS, Journal
from kdray.cache.shard import Receipt, Schema
from kdray.storage import Store
from tests.integration.conftest import ROOT, Command, command, environment, small_config, write_config
from tests.integration.test_faults import shards
from tests.small import sentences, write_jsonl

SST2 = ROOT / "jobs" / "configs" / "sst2.yaml"
SHARED = ROOT.parent / "shared"
ROWS = 12_000
AGE = 3600.0
"""Seconds; far more than the grace that garbage is given."""
HEALTH = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 4}
"""A node that is killed is known to be dead after 2 s; Ray's own settings take 15."""
FILLING = "ray::TeacherActor.fill"
"""Title of an actor's process while it computes a shard."""
OF_THE_RUN = ("teacher_seconds", "rows_computed", "table", "table_sha256")
"""What a manifest says of how its cache came to be: the table has each shard's seconds, and its name its checksum."""
DIED = "died, its shard is leased again"


@dataclass
class Fill:
    """A `kdray cache fill` in a process of its own."""

    driver: subprocess.Popen
    log: Path

    def said(self) -> str:
        return self.log.read_text()

    def until(self, condition: Callable[[], bool], seconds: float = 180) -> None:
        """Returns when the condition holds while the driver runs; fails where it ends before."""
        ends = time.monotonic() + seconds
        while not condition():
            assert self.driver.poll() is None, f"the driver ended with {self.driver.returncode}: {self.said()}"
            assert time.monotonic() < ends, f"it did not come to that: {self.said()}"
            time.sleep(0.1)
        assert self.driver.poll() is None, f"the driver had ended: {self.said()}"

    def kill(self) -> None:
        assert self.driver.poll() is None, f"the driver had ended: {self.said()}"
        self.driver.send_signal(signal.SIGKILL)
        assert self.driver.wait(60) == -signal.SIGKILL

    def done(self, seconds: float = 300) -> None:
        assert self.driver.wait(seconds) == 0, self.said()


Start = Callable[[Path], Fill]


@pytest.fixture
def grid() -> Iterator[Cluster]:
    """A cluster whose head has no CPU; nodes are for the test to add."""
    made = Cluster()
    try:
        made.add_node(num_cpus=0, include_dashboard=False, _system_config=HEALTH)
        yield made
    finally:
        made.shutdown()


@pytest.fixture
def start(grid: Cluster, tmp_path: Path) -> Iterator[Start]:
    """Starts `kdray cache fill CONFIG` on the grid; what still runs after the test is killed."""
    running: list[Fill] = []

    def begin(config: Path) -> Fill:
        log = tmp_path / f"driver-{len(running)}.log"
        with log.open("w") as file:
            driver = subprocess.Popen(command("cache", "fill", str(config)), stdout=file, stderr=file, cwd=ROOT,
                                      env={**environment(), "RAY_ADDRESS": grid.address, "RAY_AUTH_MODE": "disabled"})
        running.append(Fill(driver, log))
        return running[-1]

    yield begin
    for fill in running:
        fill.driver.kill()
        fill.driver.wait()


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows that keep two cores busy for 15 to 30 seconds."""
    return write_jsonl(tmp_path_factory.mktemp("many") / "rows.jsonl", sentences(ROWS))


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory, many: Path, teacher: Path, kdray: Command) -> Path:
    """Storage of an undisturbed fill."""
    return undisturbed(make(tmp_path_factory.mktemp("quiet"), many, teacher), kdray)


def make(folder: Path, rows: Path, teacher: Path, actors: int = 3) -> Path:
    """A config with batches of one row or two, so that a small teacher takes its time over 500 shards."""
    return write_config(folder / "c.yaml", small_config(folder / "store", rows, teacher, {
        "cache": {"rows_per_shard": 32},
        "teacher": {"model": str(teacher), "actors": actors, "min_actors": 1, "num_cpus": 1, "batch_tokens": 16}}))


def make_sst2(folder: Path) -> Path:
    config = yaml.safe_load(SST2.read_text())
    config["teacher"] |= {"actors": 3, "min_actors": 1, "num_cpus": 1}
    return write_config(folder / "c.yaml", {**config, "storage": str(folder / "store"),
                                            "cache": {"rows_per_shard": 32}})


def undisturbed(config: Path, kdray: Command) -> Path:
    done = kdray("cache", "fill", str(config), timeout=500)
    assert done.returncode == 0, done.stderr
    assert DIED not in done.stderr
    return config.parent / "store"


def raylet(node: Any) -> int:
    return node.all_processes["raylet"][0].process.pid


def actors(nodes: list[Any], title: str = "ray::TeacherActor") -> list[int]:
    """Teacher actors of these nodes by the start of their processes' titles."""
    parents = {str(raylet(node)) for node in nodes}
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
            if parent in parents and (folder / "cmdline").read_bytes().startswith(title.encode()):
                found.append(int(folder.name))
        except (OSError, IndexError):
            continue
    return found


def filling(grid: Cluster) -> int:
    """Actors that compute a shard at this moment."""
    return len(actors(grid.list_all_nodes(), FILLING))


def count(store: Path) -> int:
    """Shards in storage."""
    return sum(1 for _ in store.glob("shards/*/*.arrow"))


def remove_node(grid: Cluster, node: Any) -> int:
    """Kills all processes of a node, whose one actor works; returns what was that actor's."""
    (lost,) = actors([node])
    grid.remove_node(node, allow_graceful=False)
    return lost


def until_gone(pids: list[int]) -> None:
    ends = time.monotonic() + 60
    while any(Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes() for pid in pids):
        assert time.monotonic() < ends, f"processes {pids} go on"
        time.sleep(0.1)


def the_one(store: Store, kind: str) -> str:
    (key,) = store.names(kind)
    return key


def of_the_cache(manifest: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in manifest.items() if name not in OF_THE_RUN}


def assert_as_undisturbed(disturbed: Path, calm: Path, rows: int) -> None:
    """One manifest with every row of the plan once, the same shards byte for byte, and no journal."""
    store, other = Store(str(disturbed)), Store(str(calm))
    manifest, expected = (place.manifest(CACHES, the_one(place, CACHES)) or {} for place in (store, other))
    assert manifest and of_the_cache(manifest) == of_the_cache(expected)
    plan, table = read_plan(store, the_one(store, PLANS)), shard_table(store, manifest)
    assert table["key"].tolist() == plan.keys.tolist() and len(set(plan.keys.tolist())) == len(plan)
    for split, expected_rows in manifest["rows"].items():
        assert table["rows"][split_shards(manifest, split)].sum() == expected_rows
    assert table["rows"].sum() == rows
    assert shards(disturbed) == shards(calm)
    assert store.names(FILLS) == []


def assert_verified(store: Path, kdray: Command) -> None:
    done = kdray("cache", "verify", "--rows", "0", "--storage", str(store), the_one(Store(str(store)), CACHES))
    assert done.returncode == 0, done.stdout + done.stderr


def lose_actor_and_node(grid: Cluster, nodes: list[Any], fill: Fill) -> None:
    """Of three nodes at work, one loses its actor and one is lost whole; another joins."""
    fill.until(lambda: filling(grid) == 3)
    (killed,) = actors(nodes[:1])
    os.kill(killed, signal.SIGKILL)
    lost = remove_node(grid, nodes[1])
    joined = grid.add_node(num_cpus=1)
    fill.until(lambda: fill.said().count(DIED) >= 2)
    until_gone([killed, lost])
    fill.until(lambda: filling(grid) == 3 and len(actors([joined], FILLING)) == 1)


def chaos(grid: Cluster, start: Start, config: Path, calm: Path, rows: int) -> None:
    """Fills the config's cache with an actor, a node and the driver killed and a shard torn."""
    store = config.parent / "store"
    nodes = [grid.add_node(num_cpus=1) for _ in range(3)]
    first = start(config)
    lose_actor_and_node(grid, nodes, first)
    first.until(lambda: any(store.glob("fills/*/*.arrow")))
    working = actors(grid.list_all_nodes())
    first.kill()
    until_gone(working)
    there, all_shards = count(store), count(calm)
    assert 0 < there < all_shards and not (store / "caches").exists(), "the driver had finished"
    torn = min(store.glob("shards/*/*.arrow"), key=lambda path: path.stat().st_mtime_ns)
    torn.write_bytes(torn.read_bytes()[:-100])
    second = start(config)
    second.done()
    assert f"{there - 1} of {all_shards} shards are there" in second.said()
    assert_as_undisturbed(store, calm, rows)


def test_chaos(grid: Cluster, start: Start, tmp_path: Path, many: Path, teacher: Path, quiet: Path,
               kdray: Command) -> None:
    chaos(grid, start, make(tmp_path, many, teacher), quiet, ROWS)
    assert_verified(tmp_path / "store", kdray)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not SHARED.is_dir(), reason="needs SST-2 and its teacher in ../shared")
def test_chaos_with_a_real_teacher(grid: Cluster, start: Start, tmp_path: Path, kdray: Command) -> None:
    (tmp_path / "calm").mkdir()
    calm = undisturbed(make_sst2(tmp_path / "calm"), kdray)
    chaos(grid, start, make_sst2(tmp_path), calm, 6920 + 872 + 1821)
    assert_verified(tmp_path / "store", kdray)


@pytest.mark.slow
def test_nodes_join_and_leave(grid: Cluster, start: Start, tmp_path: Path, many: Path, teacher: Path,
                              quiet: Path) -> None:
    store = tmp_path / "store"
    first = grid.add_node(num_cpus=1)
    fill = start(make(tmp_path, many, teacher))
    fill.until(lambda: count(store) >= 10)
    assert len(actors(grid.list_all_nodes())) == 1
    more = [grid.add_node(num_cpus=1) for _ in range(2)]
    fill.until(lambda: filling(grid) == 3)
    gone = [remove_node(grid, node) for node in more]
    until_gone(gone)
    fill.until(lambda: fill.said().count(DIED) >= 2)
    before = count(store)
    fill.until(lambda: count(store) > before + 10)
    assert len(actors([first])) == 1
    fill.done()
    assert_as_undisturbed(store, quiet, ROWS)


@pytest.mark.slow
def test_a_teacher_that_cannot_be_loaded_any_more_ends_the_run(
        grid: Cluster, start: Start, tmp_path: Path, many: Path, teacher: Path) -> None:
    folder, store = shutil.copytree(teacher, tmp_path / "teacher"), tmp_path / "store"
    node = grid.add_node(num_cpus=1)
    fill = start(make(tmp_path, many, folder, actors=1))
    fill.until(lambda: count(store) >= 10)
    folder.rename(tmp_path / "moved")
    (killed,) = actors([node])
    os.kill(killed, signal.SIGKILL)
    assert fill.driver.wait(120) == 1, fill.said()
    assert DIED in fill.said() and fill.said().count("died before it was loaded") == 2
    assert "kdray: the teacher could not be loaded in an actor" in fill.said()
    assert count(store) >= 10 and not (store / "caches").exists()


def test_two_drivers_fill_the_same_cache(grid: Cluster, start: Start, tmp_path: Path, many: Path, teacher: Path,
                                         quiet: Path) -> None:
    for _ in range(2):
        grid.add_node(num_cpus=1)
    config = make(tmp_path, many, teacher, actors=1)
    one, two = start(config), start(config)
    one.until(lambda: filling(grid) == 2)
    assert two.driver.poll() is None
    for fill in (one, two):
        fill.done()
    assert_as_undisturbed(tmp_path / "store", quiet, ROWS)
    assert not list((tmp_path / "store").rglob(".tmp-*"))


@pytest.mark.slow
def test_garbage_collection_takes_nothing_from_a_running_fill(
        grid: Cluster, start: Start, tmp_path: Path, many: Path, teacher: Path, quiet: Path, kdray: Command) -> None:
    """Finished shards are made to look old, so that nothing but the fill's journal keeps them."""
    store, kept = tmp_path / "store", set[Path]()
    for _ in range(2):
        grid.add_node(num_cpus=1)
    fill = start(make(tmp_path, many, teacher))
    fill.until(lambda: count(store) >= 10)
    for number in range(3):
        kept.update(store.glob("shards/*/*.arrow"))
        planted = plant(store, number)
        age([*kept, *planted])
        done = kdray("cache", "gc", "--grace", "0.02", "--storage", str(store))
        assert done.returncode == 0 and "removed 2 files" in done.stdout, done.stdout + done.stderr
        assert not any(path.exists() for path in planted)
        assert fill.driver.poll() is None, "the fill had ended"
    fill.done()
    assert all(path.stat().st_mtime < time.time() - AGE / 2 for path in kept), "a shard was removed and made again"
    assert_as_undisturbed(store, quiet, ROWS)
    assert_verified(store, kdray)


def plant(store: Path, number: int) -> list[Path]:
    """A shard that nothing names and a leftover of a writer, both in a folder where shards are."""
    folder = next(store.glob("shards/*"))
    planted = [folder / f"{folder.name}{number:030d}.arrow", folder / f".tmp-{number}"]
    for path in planted:
        path.write_bytes(b"orphan")
    return planted


def age(paths: list[Path]) -> None:
    """Sets back the time of the last change."""
    then = time.time() - AGE
    for path in paths:
        os.utime(path, (then, then))


def test_one_journal_is_opened_written_and_removed_by_two_runs_at_once(tmp_path: Path) -> None:
    """What two drivers that fill the same cache may do in the same millisecond, over and over."""
    schema = Schema("t", "sequence-classification", ("a", "b"), 24, "float32")
    plan = Plan(schema, 5, {"train": 15}, np.array(["aa1", "aa2", "aa3"], KEY))
    meet, errors = threading.Barrier(2), list[OSError]()

    def run() -> None:
        try:
            for number in range(100):
                store = Store(str(tmp_path / str(number)))
                meet.wait()
                write_journal(store, plan)
                meet.wait()
                write_journal(store, plan).remove()
        except OSError as error:
            errors.append(error)
            meet.abort()
        except threading.BrokenBarrierError:
            return

    runs = [threading.Thread(target=run) for _ in range(2)]
    for thread in runs:
        thread.start()
    for thread in runs:
        thread.join()
    assert not errors, errors
    assert not list(tmp_path.glob("*/fills/*"))


def write_journal(store: Store, plan: Plan) -> Journal:
    """Opens a cache's journal, and writes a part for each slot."""
    journal = Journal(store, plan, "p")
    for slot in plan:
        journal.add(Receipt(slot.key, slot.rows, 10, "0" * 64, Loss(5, 0.0, (0.0,) * 4)), 1.0)
        journal.flush()
    return journal
