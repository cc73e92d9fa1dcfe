"""Teachers on nodes with one label, students on nodes with another, what belongs to the driver beside it."""

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster

from kdray.cluster import ask, check_resources
from kdray.config import TrainingConfig, load
from kdray.errors import CacheError, ClusterError
from kdray.evaluation.evaluate import evaluate
from kdray.pipeline import Pipeline
from kdray.workers import work
from tests.integration.conftest import small_config, write_config

SPOT, STEADY = {"ray.io/market-type": "spot"}, {"ray.io/market-type": "on-demand", "kdray/group": "student"}


@pytest.fixture(scope="module")
def nodes() -> Iterator[dict[str, str]]:
    """Ids of the nodes of a cluster that this process has joined: driver (4 CPUs, no labels), spot and steady."""
    made = Cluster()
    try:
        driver = made.add_node(num_cpus=4, include_dashboard=False)
        spot, steady = (made.add_node(num_cpus=1, labels=labels) for labels in (SPOT, STEADY))
        ray.init(made.address, log_to_driver=False, configure_logging=False)
        yield {"driver": driver.node_id, "spot": spot.node_id, "steady": steady.node_id}
    finally:
        ray.shutdown()
        made.shutdown()


def pipeline(folder: Path, rows: Path, teacher: Path, teachers: dict[str, str],
             **students: Any) -> Pipeline:
    return Pipeline(load(write_config(folder / "c.yaml", small_config(folder / "store", rows, teacher, {
        "teacher": {"model": str(teacher), "labels": teachers}, "search": {"trials": 1}, "training": students}))))


def places() -> dict[str, set[str]]:
    """Ids of the nodes of all actors there were, by the name of their class.

    Ray qualifies the name where an earlier cluster of this process had the class too.
    """
    found = defaultdict(set)
    for actor in ray._private.state.actors().values():
        found[actor["ActorClassName"].rpartition(".")[2]].add(actor["Address"]["NodeID"])
    return found


def test_each_runs_where_its_labels_are(nodes: dict[str, str], tmp_path: Path, rows: Path, teacher: Path) -> None:
    run = pipeline(tmp_path, rows, teacher, SPOT, epochs=1, lr=3e-3, labels=STEADY)
    assert run.cache and run.students and run.sweep
    found = places()
    assert found["TeacherActor"] == {nodes["spot"]}
    assert found["LoneWorker"] == found["ImplicitFunc"] == {nodes["steady"]}
    assert found["Board"] == {nodes["driver"]}


def rounded(numbers: dict[str, Any]) -> Any:
    """Without the last bits of a confidence, which depend on the rows beside it in a batch."""
    return json.loads(json.dumps(numbers), parse_float=lambda text: round(float(text), 4))


def test_models_are_asked_in_parts_where_students_are_trained_and_say_what_they_say_here(
        nodes: dict[str, str], tmp_path: Path, rows: Path, teacher: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = pipeline(tmp_path, rows, teacher, SPOT, epochs=1, lr=3e-3, labels=STEADY)
    here, chosen = run.evaluation, run.selection
    assert "Worker" not in places(), "a split of a run without a cluster is no reason to start processes"
    monkeypatch.setenv("RAY_ADDRESS", ray.get_runtime_context().gcs_address)
    monkeypatch.setattr("kdray.evaluation.answers.ROWS", 16)
    there = evaluate(run.store, "there", run.task, run.corpus, run.teacher.place, run.cache["key"], chosen, run._where)
    assert there["numbers"] == here["numbers"] and rounded(there["breakdown"]) == rounded(here["breakdown"])
    assert places()["Worker"] == {nodes["steady"]}
    checks = run.package["checks"]
    assert checks["onnx"]["agreement"] == 1.0 and checks["onnx-int8"]["units"] == run.corpus["rows"]["validation"]
    assert run.report["numbers"]["test"]["served"]["accuracy"]["value"] > 0.5


def test_what_is_wrong_with_a_part_ends_the_work_with_its_cause(nodes: dict[str, str], tmp_path: Path) -> None:
    settings = TrainingConfig(labels=STEADY)
    with pytest.raises(CacheError, match="there is no such thing"):
        list(work(refuse, [(0, 5), (5, 9)], "rows", settings))
    with pytest.raises(ClusterError, match=r"training\.workers = 1 with .* nodes that have kdray/group=pupil"):
        work(refuse, [(0, 5)], "rows", TrainingConfig(labels={"kdray/group": "pupil"}))


def refuse(start: int, stop: int) -> None:
    raise CacheError("there is no such thing")


def test_what_precision_auto_is_follows_from_the_nodes_that_will_work(nodes: dict[str, str]) -> None:
    assert ask(node, SPOT) == [nodes["spot"]] and ask(node, {"zone": "a"}) == []
    assert sorted(ask(node, {})) == sorted(nodes.values())


def node() -> str:
    return ray.get_runtime_context().get_node_id()


def test_labels_that_no_node_has_are_refused_before_work_starts(nodes: dict[str, str], tmp_path: Path, rows: Path,
                                                                teacher: Path) -> None:
    with pytest.raises(ClusterError, match=r"teacher\.actors = 1 .* 0 nodes that have kdray/group=teacher and zone=a"):
        assert pipeline(tmp_path, rows, teacher, {"zone": "a", "kdray/group": "teacher"}).cache
    with pytest.raises(ClusterError, match=r"training\.workers = 1 .* nodes that have kdray/group=pupil"):
        assert pipeline(tmp_path, rows, teacher, {}, labels={"kdray/group": "pupil"}).cache
    assert not list(tmp_path.rglob("shards/*")), "refused before the teacher was paid for"


@pytest.mark.parametrize(("count", "labels", "fits"), [(1, SPOT, True), (2, SPOT, False), (2, {}, True)])
def test_room_is_counted_on_the_nodes_with_the_labels(nodes: dict[str, str], count: int, labels: dict[str, str],
                                                      fits: bool) -> None:
    if fits:
        check_resources(count, {"CPU": 1}, "teacher.actors", labels)
        return
    with pytest.raises(ClusterError, match=r"1 CPU on 1 nodes that have ray\.io/market-type=spot, room for 1"):
        check_resources(count, {"CPU": 1}, "teacher.actors", labels)
