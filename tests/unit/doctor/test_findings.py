"""Every finding on plain data: what is well, what is not, the nodes it names, and the remedy."""

from collections.abc import Callable

import pytest

from kdray.doctor import findings
from kdray.doctor.findings import GIB, Facts, Finding, Node
from kdray.doctor.machine import ABSENT

HERE = Facts({"python": "3.11.7", "ray": "2.60.0"}, folders={"/m": "aa"})
WORKS = {"CPU": 4.0, "object_store_memory": 2.0 * GIB}


def node(name: str, resources: dict[str, float] = WORKS, **facts: object) -> Node:
    return Node(name, resources, Facts(**{"versions": HERE.versions, "folders": {"/m": "aa"},
                                          "shared_memory": 2 * GIB, **facts}))


def only(found: list[Finding]) -> tuple[str, str]:
    (finding,) = found
    assert bool(finding.remedy) == (finding.level != "ok")
    return finding.level, finding.text


def test_a_package_that_is_missing_or_of_another_version_is_named() -> None:
    there: Callable[[str], str | None] = {"ray": "2.59.0", "torch": "2.13.0"}.get
    required = ["ray[serve]==2.60.0", "torch~=2.13.0", "rich>=15", 'wandb~=0.31; extra == "wandb"']
    found = findings.packages(required, there)
    assert [finding.text for finding in found] == ["ray 2.59.0, kdray needs ==2.60.0",
                                                   "rich is missing, kdray needs >=15"]
    assert all("cluster/constraints.txt" in finding.remedy for finding in found)
    assert only(findings.packages(required[1:2], there)) == (
        "ok", "the 1 that kdray needs are there, each in a version it takes")


@pytest.mark.parametrize("free, level", [(20.0, "ok"), (5.0, "warning"), (0.5, "wrong")])
def test_a_disk_that_fills_up(free: float, level: str) -> None:
    found = findings.disk("storage", "/data", int(free * GIB), "`storage`")
    assert (found.level, found.text) == (level, f"{free:.1f} GiB free for storage in /data")


def test_a_port_that_is_taken() -> None:
    assert only([findings.port(8000, "kdray serve", False, "Choose another")])[0] == "ok"
    assert only([findings.port(8000, "kdray serve", True, "Choose another")])[0] == "warning"


@pytest.mark.parametrize("joining, mode, origin, level, words", [
    (True, "token", None, "wrong", "RAY_AUTH_MODE is token, there is no token"),
    (True, "token", "RAY_AUTH_TOKEN", "ok", "a token is in RAY_AUTH_TOKEN"),
    (True, None, "/home/t", "warning", "RAY_AUTH_MODE is not set, a token is in /home/t: this process sends none"),
    (True, "disabled", None, "warning", "this process sends none"),
    (False, None, None, "ok", "RAY_AUTH_MODE is not set, there is no token"),
    (False, None, "/home/t", "ok", "a token is in /home/t"),
    (False, "disabled", None, "ok", "RAY_AUTH_MODE is disabled, there is no token"),
])
def test_tokens(joining: bool, mode: str | None, origin: str | None, level: str, words: str) -> None:
    found = only(findings.token(joining, mode, origin, 0o600 if origin == "/home/t" else None))
    assert found[0] == level and words in found[1]


def test_a_token_that_others_may_read() -> None:
    found = findings.token(True, "token", "/home/t", 0o640)
    assert [finding.level for finding in found] == ["ok", "warning"] and found[1].remedy == "chmod 600 /home/t"


def test_room_is_wrong_where_nothing_can_be_added_and_a_warning_where_it_may() -> None:
    assert only(findings.room([], False))[0] == only(findings.room([], True))[0] == "ok"
    assert only(findings.room(["a does not fit"], False)) == ("wrong", "a does not fit")
    assert only(findings.room(["a does not fit"], True)) == ("warning", "a does not fit")


def test_nodes_that_do_not_answer_are_named() -> None:
    silent = Node("b", {"CPU": 1.0}, None, "no answer in 5 s")
    assert only(findings.answers([node("a"), silent])) == ("wrong", "b: no answer in 5 s")
    assert only(findings.answers([node("a"), node("c", {"CPU": 1.0, "GPU": 2.0})])) == (
        "ok", "all 2 nodes answer: 5 CPU, 2 GPU")


def test_versions_that_differ_are_grouped_by_what_differs() -> None:
    old = {"python": "3.11.2", "ray": "2.59.0"}
    found = findings.same_versions(HERE, [node("a"), *(node(name, versions=old) for name in "bcdef")])
    assert only(found) == ("wrong", "b, c, d and 2 more nodes: ray 2.59.0, and 2.60.0 here")
    assert "pip install -c cluster/constraints.txt" in found[0].remedy
    lacks = findings.same_versions(HERE, [node("a", versions={"python": "3.12.7", "ray": None})])
    assert [finding.text for finding in lacks] == ["a: python 3.12, and 3.11 here",
                                                   "a: ray is missing, and 2.60.0 here"]
    assert only(findings.same_versions(HERE, [node("a", versions={"python": "3.11.2", "ray": "2.60.0"})])) == (
        "ok", "the same here and on every node: python 3.11, ray 2.60.0")


def test_a_local_storage_that_nodes_do_not_share() -> None:
    found = findings.storage_everywhere("/home/me/kdray", HERE, [node("a"), node("b", storage=ABSENT)])
    assert only(found) == (
        "wrong", "b: /home/me/kdray is another folder there: it does not have what was just written here")
    assert "s3://" in found[0].remedy and "network file system" in found[0].remedy


def test_a_storage_that_cannot_be_written_from_nodes_or_from_here() -> None:
    found = findings.storage_everywhere("s3://b/x", HERE, [node("a", storage="denied"), node("b", storage="denied")])
    assert only(found) == ("wrong", "a, b: s3://b/x cannot be written and read: denied")
    assert "credentials" in found[0].remedy
    from_here = findings.storage_everywhere("s3://b/x", Facts({}, storage="denied"), [node("a")])
    assert only(from_here) == ("wrong", "s3://b/x cannot be written from here: denied")
    assert only(findings.storage_everywhere("s3://b/x", HERE, [node("a")])) == (
        "ok", "s3://b/x can be written from here, and from every node")
    assert only(findings.storage_everywhere("/x", HERE, [])) == ("ok", "/x can be written from here")


def test_models_that_nodes_which_work_do_not_have_or_have_otherwise() -> None:
    head = node("head", {"CPU": 0.0}, folders={"/m": None})
    assert only(findings.folders_everywhere(HERE, [head, node("a")])) == (
        "ok", "/m is the same on every node that works")
    found = findings.folders_everywhere(HERE, [node("a", folders={"/m": None}), node("b", folders={"/m": "bb"})])
    assert [finding.text for finding in found] == [
        "a: /m is not there", "b: /m holds another model there (fingerprint bb, aa here)"]


def test_gpus_that_ray_counts_and_torch_does_not_see() -> None:
    two = {"CPU": 4.0, "GPU": 2.0}
    found = findings.gpus_seen([node("a", two, gpus=["H100", "H100"]), node("b", two, gpus=["H100"]), node("c")])
    assert only(found) == ("wrong", "b: Ray counts 2 GPU, torch sees 1")
    assert only(findings.gpus_seen([node("a", two, gpus=["H100", "H100"])])) == (
        "ok", "torch sees what Ray counts: H100")
    assert findings.gpus_seen([node("c")]) == []


def test_shared_memory_smaller_than_the_object_store() -> None:
    assert only([findings.shared_memory([node("a")])])[0] == "ok"
    found = findings.shared_memory([node("a"), node("b", shared_memory=64 * 2**20)])
    assert found.level == "warning" and found.text.startswith("b: /dev/shm has 0.1 GiB, Ray's object store wants 2.0")
    assert "--shm-size" in found.remedy
