import os
import socket
from pathlib import Path
from typing import Any

import pytest
from ray.job_submission import JobStatus
from ray.util.state.common import NodeState

from kdray import cli, submission
from kdray.errors import ConfigError
from kdray.submission import _ESCAPES, _next, check_paths, dashboard, placement

ELSEWHERE = "203.0.113.1"
"""An address that no machine has: kept for documentation."""
HERE = "127.0.0.1"


def node(name: str, head: bool = False, ip: str = HERE, resources: dict[str, float] | None = None,
         **labels: str) -> NodeState:
    return NodeState(node_id=name, node_ip=ip, is_head_node=head, state="ALIVE", state_message=None, node_name=ip,
                     resources_total=resources or {"CPU": 4.0}, labels={"ray.io/node-id": name, **labels},
                     start_time_ms=0, end_time_ms=0)


def test_the_driver_goes_where_the_resource_is() -> None:
    nodes = [node("h", head=True), node("d", resources={"driver": 1.0}), node("w")]
    assert placement(nodes) == {"entrypoint_resources": {"driver": 1}}


def test_the_driver_keeps_off_the_head_and_off_nodes_that_may_go() -> None:
    nodes = [node("h", head=True), node("t", **{"kdray/group": "teacher"}), node("s", **{"kdray/group": "student"})]
    assert placement(nodes) == {"entrypoint_label_selector": {
        "ray.io/node-id": "!h", "ray.io/market-type": "!spot", "kdray/group": "!teacher"}}


@pytest.mark.parametrize("workers", [[], [node("s", **{"ray.io/market-type": "spot"})],
                                     [node("t", **{"kdray/group": "teacher"})]])
def test_without_a_lasting_worker_the_driver_is_on_the_head(workers: list[NodeState]) -> None:
    assert placement([node("h", head=True), *workers]) == {}


def test_paths_of_this_machine_are_for_a_cluster_on_it() -> None:
    check_paths({"storage": "/data"}, [node("h", head=True)], [], "http://127.0.0.1:8265")


@pytest.mark.parametrize("setting, path", [("storage", "/mnt/data/x"), ("data.source", "file:///mnt/data/r.csv")])
def test_a_path_that_other_nodes_lack_is_refused_with_the_remedy(setting: str, path: str) -> None:
    nodes = [node("h", head=True), node("w", ip=ELSEWHERE)]
    with pytest.raises(ConfigError) as refused:
        check_paths({setting: path}, nodes, ["/mnt/dat"], "http://127.0.0.1:8265")
    for word in (setting, path, ELSEWHERE, "http://127.0.0.1:8265", "s3://", "--shared /mnt/data"):
        assert word in str(refused.value)
    check_paths({setting: path}, nodes, ["/other", "/mnt/data"], "http://127.0.0.1:8265")


def test_a_shared_folder_is_known_by_its_link_and_by_its_place(tmp_path: Path) -> None:
    (tmp_path / "place").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "place")
    for name in ("link", "place"):
        check_paths({"storage": f"{tmp_path}/{name}/x"}, [node("h", ip=ELSEWHERE)], [f"{tmp_path}/link"], "http://x")


@pytest.mark.parametrize("given, environment, expected", [
    ("http://a:1/", {"RAY_ADDRESS": "http://b:2"}, "http://a:1"),
    (None, {"RAY_API_SERVER_ADDRESS": "https://a:1", "RAY_ADDRESS": "b:2"}, "https://a:1"),
    (None, {"RAY_ADDRESS": "http://b:2"}, "http://b:2"),
    (None, {}, "http://127.0.0.1:8265"),
])
def test_the_address_that_was_given_is_the_one_that_counts(
        given: str | None, environment: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.setenv(name, environment.get(name, ""))
    assert dashboard(given) == os.environ["RAY_API_SERVER_ADDRESS"] == expected


@pytest.mark.parametrize("given, environment", [("10.0.0.1:6379", ""), (None, "ray://head:10001"), (None, "auto")])
def test_an_address_that_is_no_dashboard_is_refused(given: str | None, environment: str,
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "")
    monkeypatch.setenv("RAY_ADDRESS", environment)
    with pytest.raises(ConfigError, match=r"8265.*port-forward"):
        dashboard(given)


@pytest.mark.parametrize("known, expected", [
    ({}, ("a", False)),
    ({"a": JobStatus.RUNNING, "b": JobStatus.RUNNING}, ("a", True)),
    ({"a": JobStatus.STOPPED}, ("a-2", False)),
    ({"a": JobStatus.FAILED, "a-2": JobStatus.PENDING}, ("a-2", True)),
    ({"a": JobStatus.FAILED, "a-2": JobStatus.SUCCEEDED, None: JobStatus.RUNNING}, ("a-3", False)),
])
def test_a_job_that_runs_is_followed_and_one_that_ended_has_a_next(known: dict[Any, JobStatus],
                                                                    expected: tuple[str, bool]) -> None:
    assert _next("a", known) == expected


def test_escape_sequences_are_taken_out() -> None:
    assert _ESCAPES.sub("", "\x1b[1;31mred\x1b[0m \x1b]8;;http://x\x07link\x1b]8;;\x07 100%\r\x1b[2K[a]") == (
        "red link 100%\r[a]")


def test_no_dashboard_is_said_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                          capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind((HERE, 0))
        address = f"http://{HERE}:{taken.getsockname()[1]}"
        monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://overruled:1")
        (tmp_path / "c.yaml").write_text("{data: {source: hub/set}, teacher: {model: hub/model}}")
        with pytest.raises(SystemExit) as ended:
            cli.main(["submit", str(tmp_path / "c.yaml"), "--address", address])
    said = capsys.readouterr().err
    assert ended.value.code == 1 and said.startswith(f"kdray: no Ray dashboard answers at {address}")
    assert "--address http://HOST:8265" in said and "Traceback" not in said


def test_the_command_line_knows_the_stages(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["submit", "--help"])
    assert f"{{{','.join(submission.STAGES)}}}" in capsys.readouterr().out
