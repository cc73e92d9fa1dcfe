"""What the stages of a config ask for, stage by stage, and whether nodes have room for it."""

from typing import Any

import pytest

from kdray.config import Config, parse
from kdray.needs import Need, needs, shortage

ONE = {"CPU": 1.0, "GPU": 0.0}


def config(**changes: Any) -> Config:
    return parse({"data": {"source": "rows.csv"}, "teacher": {"model": "m"}, **changes}, "test")


def origins(found: list[Need]) -> list[tuple[str, int]]:
    return [(need.origin, need.count) for need in found]


def test_every_stage_that_works_on_the_cluster_asks() -> None:
    whole = config(teacher={"model": "m", "finetune": {"workers": 2, "num_gpus": 1}, "actors": 3, "num_cpus": 4},
                   training={"workers": 5, "num_gpus": 0.5})
    assert needs(whole) == [Need("teacher.finetune.workers", 2, {"CPU": 1.0, "GPU": 1.0}),
                            Need("teacher.actors", 3, {"CPU": 4.0, "GPU": 0.0}),
                            Need("training.workers", 5, {"CPU": 1.0, "GPU": 0.5})]
    assert origins(needs(whole, after="teacher")) == [("teacher.actors", 3), ("training.workers", 5)]
    assert origins(needs(whole, last="cache")) == [("teacher.finetune.workers", 2), ("teacher.actors", 3)]
    assert needs(whole, after="students") == []


def test_actors_are_those_that_must_fit_and_have_work() -> None:
    some = config(teacher={"model": "m", "actors": 8, "min_actors": 2}, cache={"rows_per_shard": 10})
    assert origins(needs(some, last="cache")) == [("teacher.min_actors", 2)]
    assert origins(needs(some, last="cache", rows=7)) == [("teacher.min_actors", 1)]
    assert needs(config(teacher={"model": "m", "live": True}), last="cache") == []


def test_students_with_training_of_their_own_ask_for_their_own() -> None:
    family = config(students={"a": {"layers": 1}, "b": {"layers": 2}, "c": {"layers": 3, "training": {"num_gpus": 2}}})
    assert [need.each["GPU"] for need in needs(family)[1:]] == [0.0, 2.0]


@pytest.mark.parametrize("count, each, nodes, fits", [
    (2, ONE, [{"CPU": 2.0}], True),
    (3, ONE, [{"CPU": 2.0}], False),
    (3, ONE, [{"CPU": 2.0}, {"CPU": 1.0}], True),
    (1, {"CPU": 3.0, "GPU": 0.0}, [{"CPU": 2.0}, {"CPU": 2.0}], False),
    (2, {"CPU": 1.0, "GPU": 1.0}, [{"CPU": 8.0, "GPU": 1.0}, {"CPU": 8.0}], False),
    (4, {"CPU": 1.0, "GPU": 0.5}, [{"CPU": 8.0, "GPU": 2.0}], True),
    (1, ONE, [], False),
])
def test_room_is_counted_node_by_node(count: int, each: dict[str, float], nodes: list[dict[str, float]],
                                      fits: bool) -> None:
    assert (shortage(Need("x", count, each), nodes) is None) == fits


def test_a_shortage_says_what_is_asked_for_and_what_there_is() -> None:
    said = shortage(Need("teacher.actors", 2, {"CPU": 1.0, "GPU": 1.0}), [{"CPU": 8.0, "GPU": 1.0}, {"CPU": 8.0}])
    assert said == ("teacher.actors = 2 with 1 CPU and 1 GPU each does not fit: the cluster has 16 CPU, 1 GPU on 2 "
                    "nodes, room for 1")
