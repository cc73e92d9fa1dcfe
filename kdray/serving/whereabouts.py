"""A service that `kdray serve` started on this machine is found again by its port.

Knows nothing about what is served. A file a service, which holds the address of its Ray cluster and whether that asks
for the token that Ray keeps in the user's home.
"""

import json
import os
import socket
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from kdray.errors import ClusterError
from kdray.storage import machine_folder

_CONNECT_SECONDS = 2.0
_LISTENING = "0A"
"""State of a listening socket in Linux's tables of sockets."""


@dataclass(frozen=True)
class Cluster:
    """How a Ray cluster is joined."""

    address: str
    auth_mode: str
    """RAY_AUTH_MODE: token or disabled."""
    host: str
    """Where the service listens."""


def note(port: int, cluster: Cluster) -> None:
    """Says where the service on `port` runs."""
    _folder().mkdir(parents=True, exist_ok=True)
    (_folder() / str(port)).write_text(json.dumps(asdict(cluster)))


def forget(port: int) -> None:
    """Takes back what `note` said."""
    (_folder() / str(port)).unlink(missing_ok=True)


def find(port: int | None) -> Cluster:
    """Cluster of the service on `port`, or of the only one on this machine.

    Raises ClusterError where there is none, or several to choose from.
    """
    alive = {one: cluster for one, cluster in _alive().items() if port in (None, one)}
    if len(alive) == 1:
        return next(iter(alive.values()))
    if alive:
        raise ClusterError(f"services run on the ports {', '.join(map(str, sorted(alive)))}: say which with --port")
    where = "" if port is None else f" on port {port}"
    raise ClusterError(f"no service{where} was started by `kdray serve` on this machine. Start one, or name its "
                       "cluster in RAY_ADDRESS")


def _folder() -> Path:
    return machine_folder() / "services"


def _alive() -> dict[int, Cluster]:
    """Clusters by the port of their service; what cannot be read, or says of a cluster that is gone, is removed.

    A port of a Ray that is gone may be another Ray's by now: where services answer, those that do not are left out. It
    may be another user's, who would be shown the token.
    """
    found = {}
    for file in _folder().glob("[0-9]*"):
        cluster = _read(file)
        if cluster and _answers(cluster.address) and _is_own(cluster.address):
            found[int(file.name)] = cluster
        else:
            file.unlink(missing_ok=True)
    return {port: cluster for port, cluster in found.items() if _answers(f"{cluster.host}:{port}")} or found


def _read(file: Path) -> Cluster | None:
    """What a file says; None for another version's, or one that is gone or half-written."""
    with suppress(OSError, ValueError, TypeError):
        return Cluster(**json.loads(file.read_text()))
    return None


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with suppress(OSError, ValueError), socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS):
        return True
    return False


def _is_own(address: str) -> bool:
    """Whether all that listens on the port, on this machine, is this user's."""
    port = f":{int(address.rpartition(':')[2]):04X}"
    users = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with suppress(FileNotFoundError):
            for line in Path(table).read_text().splitlines()[1:]:
                _, local, _, state, _, _, _, uid, *_ = line.split()
                if state == _LISTENING and local.endswith(port):
                    users.add(int(uid))
    return users == {os.getuid()}
