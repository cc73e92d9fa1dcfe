"""Nothing is lost while replicas die, hang, come and go; what is served and who may ask survives them all."""

import http.client
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import ray
from ray import serve

from kdray.config import ServeConfig
from kdray.errors import ClusterError
from kdray.serving import change
from kdray.serving.deploy import deploy, running, take_down
from kdray.serving.guard import digest
from kdray.serving.haproxy import services
from tests.integration.asking import Load, fetch, post, replicas, replicas_when, until_running
from tests.integration.conftest import free_port
from tests.packages import write_hanging_package

WORD = "zebra"
OLD, NEW = "a key of sixteen or more", "another key of that length"


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student on whose text the model hangs, where it holds the word."""
    return write_hanging_package(tmp_path_factory.mktemp("packages") / "hangs", WORD)


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    os.environ["RAY_AUTH_MODE"] = "disabled"
    ray.init("local", num_cpus=4, include_dashboard=False)
    try:
        yield
    finally:
        serve.shutdown()
        ray.shutdown()


@pytest.fixture(scope="module")
def url(cluster: None, package: Path, port: int) -> Iterator[str]:
    yield deploy({"default": str(package)}, ServeConfig(port=port, replicas=2), [], blocking=False)
    folder = Path(running()["metrics"])
    assert folder.exists()
    take_down()
    assert not folder.exists() and port not in services()


def test_a_port_that_is_taken_where_a_replica_comes_is_named(cluster: None, package: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ClusterError, match=rf"cannot listen on 0\.0\.0\.0:{port} of .*: address already in use\. "
                           "Choose another `serve.port`"):
            deploy({"default": str(package)}, ServeConfig(host="0.0.0.0", port=port, open=True), [], blocking=False)
    assert port not in services() and not serve.status().applications


def scaled(package: Path, port: int, count: int) -> set[int]:
    """Process ids of the replicas when there are `count`."""
    deploy({"default": str(package)}, ServeConfig(port=port, replicas=count), [], blocking=False)
    until_running(count)
    return replicas()


def test_no_request_is_lost_while_replicas_go_and_come(url: str, package: Path, port: int) -> None:
    before = replicas()
    with Load(url) as load:
        assert scaled(package, port, 1) < before
        assert len(scaled(package, port, 3)) == 3
    assert load.lost_none()
    scaled(package, port, 2)


def test_no_request_is_lost_with_the_only_replica(url: str, package: Path, port: int) -> None:
    (only,) = scaled(package, port, 1)
    metrics = running()["metrics"]
    with Load(url) as load:
        os.kill(only, signal.SIGKILL)
        replicas_when(lambda found: len(found - {only}) == 1, metrics)
        assert post(url, {"inputs": "a film"})[0] == 200
    assert load.lost_none()
    scaled(package, port, 2)


def test_what_is_served_and_who_may_ask_survives_all_replicas(url: str, package: Path) -> None:
    change.replace_keys([digest(OLD)])
    change.put_canary("default", str(package), 0.5)
    state, before = running(), replicas()
    for one in before:
        os.kill(one, signal.SIGKILL)
    replicas_when(lambda found: len(found - before) == 2, state["metrics"])
    assert fetch(f"{url}/v1/model")[0] == 401
    assert post(url, {"inputs": "a film"}, authorization=f"Bearer {OLD}")[0] == 200
    assert running() == state
    change.back("default")
    with Load(url, authorization=f"Bearer {NEW}") as refused, Load(url, authorization=f"Bearer {OLD}") as load:
        while not refused.counts[0]:
            time.sleep(0.01)
        change.replace_keys([digest(OLD), digest(NEW)])
    assert load.lost_none() and {status for status, _ in refused.wrong} == {401}
    change.replace_keys([])


def test_an_ingress_that_is_lost_comes_again(url: str) -> None:
    haproxy = haproxy_of(url)
    haproxy.kill()
    answered(url)
    ingress = haproxy_of(url).parent()
    assert ingress is not None
    ingress.kill()
    ingress.wait(30)
    answered(url)


def haproxy_of(url: str) -> psutil.Process:
    folder = f"/services/{url.rpartition(':')[2]}-"
    (found,) = [one for one in psutil.process_iter(["cmdline"]) if folder in " ".join(one.info["cmdline"] or [])]
    return found


def answered(url: str) -> None:
    ends = time.monotonic() + 60
    while True:
        try:
            assert post(url, {"inputs": "a film"})[0] == 200
            return
        except OSError:
            assert time.monotonic() < ends
            time.sleep(0.1)


@pytest.mark.slow
def test_no_request_is_lost_with_a_replica_that_is_stopped_and_it_is_replaced(url: str) -> None:
    until_running(2)
    before, metrics = replicas(), running()["metrics"]
    with Load(url) as load:
        os.kill(min(before), signal.SIGSTOP)
        replicas_when(lambda found: min(before) not in found and len(found) == 2, metrics)
    assert load.lost_none()


@pytest.mark.slow
def test_no_request_is_lost_with_a_replica_whose_model_hangs_and_it_is_replaced(url: str) -> None:
    until_running(2)
    before, metrics = replicas(), running()["metrics"]
    (port,) = [one.laddr.port for one in psutil.Process(min(before)).net_connections("tcp")
               if one.status == "LISTEN" and fetch_health(one.laddr.port)]
    with Load(url) as load:
        with pytest.raises(OSError):  # asked by itself, so that no other replica is asked again
            post(f"http://127.0.0.1:{port}", {"inputs": f"a {WORD}"})
        replicas_when(lambda found: min(before) not in found and len(found) == 2, metrics)
    assert load.lost_none()


def fetch_health(port: int) -> bool:
    try:
        return fetch(f"http://127.0.0.1:{port}/health")[0] == 200
    except (OSError, ValueError, http.client.HTTPException):
        return False
