"""A service is found by its port or as the only one; what a Ray that is gone left behind is in nobody's way."""

import socket
from collections.abc import Iterator

import pytest

from kdray.errors import ClusterError
from kdray.serving import whereabouts
from kdray.serving.whereabouts import Cluster


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(whereabouts, "machine_folder", lambda: tmp_path)


@pytest.fixture
def listening() -> Iterator[list[int]]:
    """Two ports that something listens on."""
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        yield [one.getsockname()[1], other.getsockname()[1]]


def closed() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return one.getsockname()[1]


def cluster(gcs: int) -> Cluster:
    return Cluster(f"127.0.0.1:{gcs}", "token", "127.0.0.1")


def test_the_only_service_is_found_and_one_of_several_by_its_port(listening):
    gcs, port = listening
    whereabouts.note(port, cluster(gcs))
    assert whereabouts.find(None) == whereabouts.find(port) == cluster(gcs)
    whereabouts.note(gcs, cluster(gcs))
    with pytest.raises(ClusterError, match="say which with --port"):
        whereabouts.find(None)
    assert whereabouts.find(gcs) == cluster(gcs)


def test_what_a_ray_that_is_gone_left_is_not_found_though_its_port_is_anothers_by_now(listening):
    gcs, port = listening
    whereabouts.note(closed(), cluster(gcs))
    whereabouts.note(port, cluster(gcs))
    assert whereabouts.find(None) == cluster(gcs)


def test_a_service_whose_replica_starts_again_is_found(listening):
    port = closed()
    whereabouts.note(port, cluster(listening[0]))
    assert whereabouts.find(None) == cluster(listening[0])


def test_a_service_of_a_ray_that_is_gone_is_none(listening):
    whereabouts.note(listening[0], cluster(closed()))
    with pytest.raises(ClusterError, match="no service was started"):
        whereabouts.find(None)


@pytest.mark.parametrize("text", ['{"address": "127.0.0.1:1", "auth_mode": "token"}', "", "[1", "[]", "3"])
def test_what_another_version_wrote_is_removed(listening, tmp_path, text):
    whereabouts.note(listening[1], cluster(listening[0]))
    (tmp_path / "services" / "8000").write_text(text)
    assert whereabouts.find(None) == cluster(listening[0])
    assert [file.name for file in (tmp_path / "services").iterdir()] == [str(listening[1])]
